"""What to train: the recipe for a budget, from the posterior of a loss surface."""

from m3bayes.decision import risk
from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.near_optimal import NearOptimal
from m3bayes.decision.recommend import recommend
from m3bayes.decision.recommendation import Loss, Optimum, Recommendation
from m3bayes.decision.regret import Interval
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
