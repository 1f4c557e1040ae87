"""Tables simulated from the prior, with the truth they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
import numpyro
from jax import Array
from jaxtyping import Float

from m3bayes.inference.data import canonical, to_table_units, unscale
from m3bayes.inference.model import HANDLERS, model
from m3bayes.inference.noise import Noise, student_t
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame


@dataclass(frozen=True)
class Simulation:
    """``runs`` as measured, the ``truth`` {coefficient, sigma, nu: value} in the table's units, and the
    reference quantities the prior was stated with: a fit must reuse them to have the same prior."""

    runs: Runs
    truth: Mapping[str, np.ndarray]
    constants: Mapping[str, float]


def simulate(law: Law, design: Runs, key: Array, *, noise: Noise | None = None) -> Simulation:
    """Draw coefficients from the law's prior and losses for the recipes of ``design``.

    The prior's references, median loss included, are those of ``design``, and so is the standard error of log
    loss where ``loss_se`` gives it. Losses so small or large that no
    table could hold them (not positive, not finite) do not occur under the shipped priors; a law of the
    user's that gives them raises RunTableError.
    """
    noise = student_t() if noise is None else noise
    with jax.enable_x64(True):
        table = canonical(design, law, noise)
        with HANDLERS:
            traced = numpyro.handlers.trace(numpyro.handlers.seed(model, key))
            found = traced.get_trace(law, noise, len(table.groups), table.arrays, False)
        sites = {name: np.asarray(site["value"]) for name, site in found.items() if site["type"] == "sample"}
        log_loss = sites.pop("log_loss")
        c = {name: np.asarray(v) for name, v in unscale(law, sites, table.arrays["reference"]).items()}
    loss = np.empty(len(design))
    loss[table.order] = table.scale["loss"] * np.exp(log_loss[: len(design)])
    truth = {**to_table_units(law, c, table.scale), **{n: v for n, v in sites.items() if n not in c}}
    truth = {name: np.asarray(value) for name, value in truth.items()}
    return Simulation(with_losses(design, loss), truth, table.constants(law))


def with_losses(design: Runs, loss: Float[np.ndarray, " run"]) -> Runs:
    """The recipes of ``design`` with other losses, known to the same standard error of log loss."""
    frame = design.frame()
    if "loss_se" in frame:
        frame["loss_se"] *= loss / frame["loss"]
    frame["loss"] = loss
    return runs_from_frame(frame, unit_params=design.unit_params, unit_tokens=design.unit_tokens)
