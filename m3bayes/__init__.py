"""m3bayes: Bayesian scaling laws for training language models when text is scarce.

A table of training runs goes in, a posterior over a loss surface comes out, and from the posterior a
training recipe with honest intervals::

    runs = m3.read_runs("runs.csv")
    post = m3.fit(runs, law=m3.laws.m3(), seed=0)
    best = m3.recommend(post, compute=1e21, target_tokens=2e9)
"""

from importlib.metadata import version as _version

from m3bayes import data, decision, evaluation, languages, laws, plots
from m3bayes.data import demo_runs
from m3bayes.decision import (
    Checkpoint,
    Recommendation,
    constraints,
    continue_from,
    cost,
    evaluate_plans,
    frontier,
    guidelines,
    recommend,
    recommend_averaged,
    risk,
)
from m3bayes.decision.candidate_runs import candidate_runs
from m3bayes.decision.design import NextRuns, next_runs
from m3bayes.decision.inverse import (
    best_epochs,
    least_compute,
    least_target_text,
    smallest_model,
    value_of_text,
)
from m3bayes.errors import (
    FitError,
    InfeasibleError,
    LawError,
    M3BayesError,
    NotConvergedError,
    Note,
    PosteriorFileError,
    RecipeError,
    RunTableError,
)
from m3bayes.evaluation import (
    Comparison,
    Rollout,
    calibrate,
    check,
    compare,
    discrepancy,
    rollout,
    rollout_weights,
    sensitivity,
)
from m3bayes.inference import noise
from m3bayes.inference.fit import fit
from m3bayes.inference.many import Fits, fit_many
from m3bayes.inference.pooled import Pooled
from m3bayes.inference.pooled_storage import load_pooled
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import Prediction, loss_draws, predict
from m3bayes.inference.storage import load
from m3bayes.laws import Coefficient, Law
from m3bayes.recipe import Recipe, Schedule, Stage
from m3bayes.runs import Runs, read_runs, runs_from_frame, runs_from_stages

__version__ = _version("m3bayes")

__all__ = [
    "Checkpoint",
    "Coefficient",
    "Comparison",
    "FitError",
    "Fits",
    "InfeasibleError",
    "Law",
    "LawError",
    "M3BayesError",
    "NextRuns",
    "NotConvergedError",
    "Note",
    "Pooled",
    "Posterior",
    "PosteriorFileError",
    "Prediction",
    "Recipe",
    "RecipeError",
    "Recommendation",
    "Rollout",
    "RunTableError",
    "Runs",
    "Schedule",
    "Stage",
    "__version__",
    "best_epochs",
    "calibrate",
    "candidate_runs",
    "check",
    "compare",
    "constraints",
    "continue_from",
    "cost",
    "data",
    "decision",
    "demo_runs",
    "discrepancy",
    "evaluate_plans",
    "evaluation",
    "fit",
    "fit_many",
    "frontier",
    "guidelines",
    "languages",
    "laws",
    "least_compute",
    "least_target_text",
    "load",
    "load_pooled",
    "loss_draws",
    "next_runs",
    "noise",
    "plots",
    "predict",
    "read_runs",
    "recommend",
    "recommend_averaged",
    "risk",
    "rollout",
    "rollout_weights",
    "runs_from_frame",
    "runs_from_stages",
    "sensitivity",
    "smallest_model",
    "value_of_text",
]
