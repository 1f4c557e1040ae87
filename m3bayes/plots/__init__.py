"""Figures of results: each function returns a matplotlib Figure, :func:`save_figure` writes it."""

from m3bayes.plots.budget import loss_against_epochs, loss_against_final_ratio
from m3bayes.plots.calibrated import calibrated
from m3bayes.plots.checked import checked
from m3bayes.plots.coefficients import coefficient_forest
from m3bayes.plots.compared import compared
from m3bayes.plots.frontier import mean_cvar_frontier
from m3bayes.plots.measured import predicted_against_measured
from m3bayes.plots.optimum import optimum_posterior
from m3bayes.plots.recommended import recommendation
from m3bayes.plots.rolled_out import rolled_out
from m3bayes.plots.style import save_figure
from m3bayes.plots.surface import loss_surface

__all__ = [
    "calibrated",
    "checked",
    "coefficient_forest",
    "compared",
    "loss_against_epochs",
    "loss_against_final_ratio",
    "loss_surface",
    "mean_cvar_frontier",
    "optimum_posterior",
    "predicted_against_measured",
    "recommendation",
    "rolled_out",
    "save_figure",
]
