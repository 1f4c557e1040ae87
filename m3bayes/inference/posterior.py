"""Posterior: the draws, and everything needed to read them again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from m3bayes.errors import M3BayesError, Note
from m3bayes.inference.diagnostics import bulk_ess, mean_ess, nested_r_hat, r_hat, superchains_of, tail_ess
from m3bayes.inference.noise import Noise
from m3bayes.laws.departing import departs
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

if TYPE_CHECKING:
    import xarray

Verdict = Literal["passed", "flagged"]

# what intervals hold
ASSUMING = "coefficients and noise; they assume that the law holds"
DEPARTING = "coefficients, noise and a departure from the law beyond the runs"


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior of a law given runs.

    ``draws``           {coefficient: (chain, draw)} in the table's units, then ``sigma`` (chain, draw) or
                        (chain, draw, group) and, for Student-t noise, ``nu`` (chain, draw)
    ``sample_stats``    {statistic: (chain, draw)}: lp, energy, diverging, acceptance_rate, n_steps, step_size
    ``log_likelihood``  (chain, draw, run) of log loss
    ``constants``       reference quantities of the priors, in the table's units
    ``groups``          values of the noise's column, in the order of sigma's last axis
    ``verdict``         ``passed`` or ``flagged`` by the gate; ``notes`` say why and what else to know
    ``settings``        seed, chains, warmup, draws, target_accept, attempts
    """

    law: Law
    noise: Noise
    runs: Runs
    draws: Mapping[str, np.ndarray]
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    log_likelihood: np.ndarray | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    verdict: Verdict = "passed"
    notes: tuple[Note, ...] = ()
    settings: Mapping[str, float | int | str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def coefficients(self) -> dict[str, np.ndarray]:
        """{coefficient of the law: (draw,)}, all chains one after the other."""
        return {name: self.draws[name].reshape(-1) for name in self.law.names}

    @property
    def quantities(self) -> dict[str, np.ndarray]:
        """{name: (chain, draw)} of everything sampled: coefficients, sigma (``sigma[group]``), nu."""
        names = [*self.law.names, *(name for name in _OF_NOISE if name in self.draws)]
        scalars: dict[str, np.ndarray] = {}
        for name in names:
            values = self.draws[name]
            if values.ndim == 2:
                scalars[name] = values
            else:
                scalars |= {f"{name}[{group}]": values[..., i] for i, group in enumerate(self.groups)}
        return scalars

    def described(self, name: str) -> tuple[str, str]:
        """Unit and meaning of a coefficient, sigma or nu."""
        if name in self.law.names:
            return self.law[name].unit, self.law[name].meaning
        return _OF_NOISE.get(name.partition("[")[0], ("", ""))

    def summary(self, ci: float = 0.9) -> pd.DataFrame:
        """One row a coefficient, then sigma and nu, in the table's units.

        Columns: ``mean``, ``sd``, ``median``, ``lower`` and ``upper`` (equal-tailed, holding ``ci`` of the
        draws), ``ess_bulk``, ``ess_tail`` (smaller of the 5 and 95 % quantiles'), ``r_hat`` (rank-normalised,
        split; nested where chains are many and short), ``mcse_mean``, ``unit``, ``meaning``. Not rounded.
        Diagnostics are NaN where there are too few draws for them, r_hat also with one chain. Raises
        M3BayesError unless 0 < ci < 1.
        """
        if not 0 < ci < 1:
            raise M3BayesError(f"ci is {ci}; give the share of draws in the interval, between 0 and 1, as .9")
        quantities = self.quantities
        draws = np.stack(list(quantities.values()))  # (quantity, chain, draw)
        flat = draws.reshape(len(draws), -1)
        lower, median, upper = np.quantile(flat, [(1 - ci) / 2, 0.5, (1 + ci) / 2], axis=1)
        described = [self.described(name) for name in quantities]
        sd = flat.std(axis=1, ddof=1)
        superchains = superchains_of(draws.shape[1], int(self.settings.get("draws", draws.shape[2])))
        return pd.DataFrame(
            {
                "mean": flat.mean(axis=1),
                "sd": sd,
                "median": median,
                "lower": lower,
                "upper": upper,
                "ess_bulk": bulk_ess(draws),
                "ess_tail": tail_ess(draws),
                "r_hat": nested_r_hat(draws, superchains) if superchains else r_hat(draws),
                "mcse_mean": sd / np.sqrt(mean_ess(draws)),
                "unit": [unit for unit, _ in described],
                "meaning": [meaning for _, meaning in described],
            },
            index=pd.Index(quantities, name="coefficient"),
        )

    @property
    def intervals(self) -> str:
        """What intervals of losses and of decisions hold, in words that outputs repeat."""
        return DEPARTING if departs(self.law) else ASSUMING

    @property
    def tree(self) -> xarray.DataTree:
        """The posterior as ArviZ has it: see :func:`m3bayes.inference.storage.tree`."""
        from m3bayes.inference import storage

        return storage.tree(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to netCDF in one step: see :func:`m3bayes.inference.storage.save`."""
        from m3bayes.inference import storage

        storage.save(self, path)


def thinned(post: Posterior, most: int) -> Posterior:
    """The posterior with at most ``most`` of its draws, evenly spaced, as one chain without statistics."""
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in post.draws.items()}
    total = len(next(iter(flat.values())))
    rows = np.arange(total) if total <= most else (np.arange(most) * total) // most
    draws = {name: values[rows][None] for name, values in flat.items()}
    return replace(post, draws=draws, sample_stats={}, log_likelihood=None)


_OF_NOISE = {
    "sigma": ("log loss", "scatter of measured log loss about the law"),
    "nu": ("1", "degrees of freedom of the scatter, small = heavy tails"),
}
