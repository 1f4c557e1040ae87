"""Is the posterior right, and which law is best."""

from m3bayes.evaluation.calibrate import Calibration, calibrate
from m3bayes.evaluation.checks import Check, check, prior_check
from m3bayes.evaluation.compare import Comparison, compare
from m3bayes.evaluation.discrepancy import discrepancy
from m3bayes.evaluation.rollout import Rollout, rollout, rollout_weights
from m3bayes.evaluation.scores import Scores
from m3bayes.evaluation.sensitivity import Sensitivity, sensitivity
from m3bayes.evaluation.splits import ATLAS, Split, atlas_splits, splits

__all__ = [
    "ATLAS",
    "Calibration",
    "Check",
    "Comparison",
    "Rollout",
    "Scores",
    "Sensitivity",
    "Split",
    "atlas_splits",
    "calibrate",
    "check",
    "compare",
    "discrepancy",
    "prior_check",
    "rollout",
    "rollout_weights",
    "sensitivity",
    "splits",
]
