"""What to train: the recipe for a budget, from the posterior of a loss surface."""

from m3bayes.decision import risk
from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.recommend import Loss, Optimum, Recommendation, recommend
from m3bayes.decision.regret import Interval, NearOptimal
from m3bayes.decision.risk import Risk

__all__ = [
    "Cost",
    "Interval",
    "Loss",
    "NearOptimal",
    "Optimum",
    "Recommendation",
    "Risk",
    "recommend",
    "risk",
    "six_nd",
]
