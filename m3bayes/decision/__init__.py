"""What to train: the recipe for a budget, from the posterior of a loss surface."""

from m3bayes.decision import risk
from m3bayes.decision.averaged import Averaged, recommend_averaged
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.continuing import Checkpoint, Continuation, continue_from
from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.frontier import Frontier, frontier
from m3bayes.decision.near_optimal import NearOptimal
from m3bayes.decision.plans import Plans, evaluate_plans
from m3bayes.decision.recommend import recommend
from m3bayes.decision.recommendation import Loss, Optimum, Recommendation, Snapped
from m3bayes.decision.regret import Interval
from m3bayes.decision.risk import Risk

__all__ = [
    "Averaged",
    "Checkpoint",
    "Constraint",
    "Continuation",
    "Cost",
    "Frontier",
    "Interval",
    "Loss",
    "NearOptimal",
    "Optimum",
    "Plans",
    "Recommendation",
    "Risk",
    "Snapped",
    "continue_from",
    "evaluate_plans",
    "frontier",
    "recommend",
    "recommend_averaged",
    "risk",
    "six_nd",
]
