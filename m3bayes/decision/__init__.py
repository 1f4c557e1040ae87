"""What to train: the recipe for a budget, from the posterior of a loss surface."""

from m3bayes.decision import risk
from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.frontier import Frontier, frontier
from m3bayes.decision.near_optimal import NearOptimal
from m3bayes.decision.plans import Plans, evaluate_plans
from m3bayes.decision.recommend import recommend
from m3bayes.decision.recommendation import Loss, Optimum, Recommendation
from m3bayes.decision.regret import Interval
from m3bayes.decision.risk import Risk

__all__ = [
    "Cost",
    "Frontier",
    "Interval",
    "Loss",
    "NearOptimal",
    "Optimum",
    "Plans",
    "Recommendation",
    "Risk",
    "evaluate_plans",
    "frontier",
    "recommend",
    "risk",
    "six_nd",
]
