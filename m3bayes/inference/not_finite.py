"""Where a law has no finite loss: the row of the table and the coefficients, for the error that says so."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to

from m3bayes.errors import LawError
from m3bayes.inference.data import Canonical, to_table_units, unscale
from m3bayes.inference.mode import STARTS, prior_starts
from m3bayes.inference.model import log_surface
from m3bayes.laws.law import Law
from m3bayes.runs import Runs


def where_not_finite(law: Law, table: Canonical, runs: Runs, random: np.random.Generator) -> LawError | None:
    """An error that names the row at which most draws of the prior give no finite loss, and one of these draws, in
    the table's units; None where some draw gives finite losses in all rows."""

    def one(real: Array, arrays) -> tuple[Array, dict[str, Array]]:
        scaled = {
            c.name: jnp.asarray(biject_to(c.prior.support)(value))
            for c, value in zip(law.coefficients, real, strict=True)
        }
        return log_surface(law, scaled, arrays), unscale(law, scaled, arrays["reference"])

    log_loss, canonical_draws = jax.jit(jax.vmap(one, in_axes=(0, None)))(
        prior_starts(law, random), dict(table.arrays)
    )
    fails = np.empty((STARTS, len(runs)), bool)
    fails[:, table.order] = ~np.isfinite(np.asarray(log_loss)[:, : len(runs)])
    if not fails.any(axis=1).all():
        return None
    row = int(np.argmax(fails.sum(axis=0)))
    draw = int(np.argmax(fails[:, row]))
    drawn = {name: np.asarray(values)[[draw]] for name, values in canonical_draws.items()}
    c = {name: values[0] for name, values in to_table_units(law, drawn, table.scale).items()}
    columns = [name for name in law.columns if name in runs.columns]
    return LawError(
        f"law {law.name} has no finite loss above 0 for row {row + 1} of {runs.name} "
        f"({_listed({name: runs[name][row] for name in columns})}) at {_listed(c)}; of {STARTS} draws of its prior "
        f"{int(fails[:, row].sum())} fail there, and each in some row: check its formula and the priors of its "
        "coefficients"
    )


def _listed(values: Mapping[str, float | np.ndarray]) -> str:
    return ", ".join(f"{name} {float(value):.6g}" for name, value in values.items())
