"""Pooled: the posterior of one law for many groups of runs, and the posterior of each of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import jax
import numpy as np
import pandas as pd
from numpyro.distributions import biject_to

from m3bayes.errors import FitError, M3BayesError, Note
from m3bayes.inference.noise import Noise
from m3bayes.inference.pooled_model import Pooling
from m3bayes.inference.posterior import Posterior, Verdict
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

Draws = Mapping[str, np.ndarray]

ONE_GROUP, NO_RUNS = "POOLED", "NO_RUNS"  # codes of notes


@dataclass(frozen=True, eq=False)
class Pooled:
    """Draws from the joint posterior of a law's coefficients in several groups, made by ``fit(..., pool=COLUMN)``.

    ``by``             the column of the runs whose values are the ``groups``
    ``pooling``        {coefficient: "shared", "partial" or "free"}
    ``draws``          {coefficient: (chain, draw, group)} in the table's units, also of shared ones, whose units can
                       hold exponents that are not; ``sigma`` (chain, draw) or (chain, draw, group), and ``nu``
    ``means``, ``spreads``  {partial coefficient: (chain, draw)} mean and standard deviation between groups of the
                       reference-scaled coefficient on the real line: its log, or its logit where it is bounded
    ``spread_priors``  {partial coefficient: scale of the half-normal prior of its spread}
    ``shared``         {shared coefficient: (chain, draw)} reference-scaled
    ``log_likelihood``  (chain, draw, run) of log loss

    The other fields are those of :class:`m3bayes.Posterior`.
    """

    law: Law
    noise: Noise
    runs: Runs
    by: str
    groups: tuple[str, ...]
    pooling: Mapping[str, Pooling]
    draws: Draws
    means: Draws
    spreads: Draws
    spread_priors: Mapping[str, float]
    shared: Draws
    sample_stats: Draws = field(default_factory=dict)
    log_likelihood: np.ndarray | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    verdict: Verdict = "passed"
    notes: tuple[Note, ...] = ()
    settings: Mapping[str, float | int | str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def of(self, group: str) -> Posterior:
        """The posterior of one group, for ``predict``, ``recommend`` and all else. FitError where there is none."""
        if group not in self.groups:
            raise FitError(
                f"no run has {self.by} {group!r}; the fit has {', '.join(self.groups)}; "
                "one without runs is new_group(), or --new on the command line"
            )
        index = self.groups.index(group)
        rows = np.array([str(value) == group for value in self.runs[self.by]])
        draws = {
            name: values[..., index] if values.ndim == 3 else values for name, values in self.draws.items()
        }
        told = Note(
            ONE_GROUP,
            f"{group}: {rows.sum()} runs, fitted together with those of {len(self.groups) - 1} other values of "
            f"{self.by}; what its own leave open comes from theirs",
            (self.by,),
        )
        likelihood = None if self.log_likelihood is None else self.log_likelihood[..., rows]
        return self._posterior(self.runs.select(rows), draws, likelihood, told)

    def new_group(self, seed: int = 0) -> Posterior:
        """The posterior of a group without runs.

        Partially pooled coefficients are drawn from the spread between groups, shared ones are as they are. Free ones,
        which floors and scales are by default, are drawn from the law's prior, and make its losses far wider than
        groups differ; the note NO_RUNS names them. Its ``runs``, from which extrapolation is counted, are those of
        all groups. FitError for a seed that is no whole number.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise FitError(f"seed is {seed!r}; give a whole number, at least 0")
        random = np.random.default_rng(seed)
        shape = next(iter(self.draws.values())).shape[:2]
        scaled: dict[str, np.ndarray] = {}
        with jax.enable_x64(True):
            for number, (name, kind) in enumerate(self.pooling.items()):
                prior = self.law[name].prior
                if kind == "shared":
                    scaled[name] = self.shared[name]
                elif kind == "partial":
                    theta = self.means[name] + self.spreads[name] * random.standard_normal(shape)
                    scaled[name] = np.asarray(biject_to(prior.support)(theta))
                else:
                    key = jax.random.fold_in(jax.random.key(seed), number)
                    scaled[name] = np.asarray(prior.sample(key, shape))
        draws = in_table_units(self.law, scaled, self.constants)
        draws |= {name: values for name, values in self.draws.items() if name not in draws}
        if draws["sigma"].ndim == 3:
            any_group = random.integers(len(self.groups), size=(*shape, 1))
            draws["sigma"] = np.take_along_axis(draws["sigma"], any_group, axis=2)[..., 0]
        return self._posterior(self.runs, draws, None, self._no_runs())

    def _no_runs(self) -> Note:
        def listed(kind: Pooling) -> str:
            return ", ".join(name for name, its in self.pooling.items() if its == kind)

        parts = []
        if partial := listed("partial"):
            parts.append(f"{partial} drawn from the spread between {len(self.groups)} others")
        if shared := listed("shared"):
            parts.append(f"{shared} shared with them")
        if free := listed("free"):
            parts.append(
                f"{free}, free in the fit, as wide as the prior: pool them partially to have them from others"
            )
        return Note(NO_RUNS, f"a {self.by} without runs: {'; '.join(parts)}", (self.by,))

    @property
    def coefficients(self) -> NoReturn:
        """Those of one group are what predictions and decisions need: FitError."""
        raise FitError(
            f"this is a pooled fit of {len(self.groups)} groups; take the posterior of one, as "
            f".of({self.groups[0]!r}), or of one without runs, .new_group()"
        )

    def summary(self, ci: float = 0.9) -> pd.DataFrame:
        """One row a coefficient and group, in the table's units: the columns of :meth:`m3bayes.Posterior.summary`."""
        parts = [self.of(group).summary(ci) for group in self.groups]
        return (
            pd.concat(parts, keys=self.groups, names=[self.by])
            .swaplevel()
            .sort_index(level=0, sort_remaining=False)
        )

    def between(self, ci: float = 0.9) -> pd.DataFrame:
        """How much each coefficient differs between groups; one row a coefficient.

        Columns: ``pooling``; ``spread``, ``spread_lower``, ``spread_upper``: median and interval of the standard
        deviation between groups of the coefficient's log (logit where it is bounded; of itself where it can be
        negative), 0 for shared ones; ``prior_spread``, its median before the runs. Raises M3BayesError unless
        0 < ci < 1.
        """
        if not 0 < ci < 1:
            raise M3BayesError(f"ci is {ci}; give the share of draws in the interval, between 0 and 1, as .9")
        rows = []
        for name, kind in self.pooling.items():
            row: dict[str, object] = {"pooling": kind}
            if kind == "partial":
                levels = np.quantile(self.spreads[name], [0.5, (1 - ci) / 2, (1 + ci) / 2])
                row |= dict(zip(("spread", "spread_lower", "spread_upper"), levels, strict=True))
                row["prior_spread"] = HALF_NORMAL_MEDIAN * self.spread_priors[name]
            elif kind == "shared":
                row |= dict.fromkeys(("spread", "spread_lower", "spread_upper"), 0.0)
            rows.append(row)
        columns = ["pooling", "spread", "spread_lower", "spread_upper", "prior_spread"]
        return pd.DataFrame(rows, index=pd.Index(self.pooling, name="coefficient"), columns=columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to netCDF in one step: see :func:`m3bayes.inference.pooled_storage.save`."""
        from m3bayes.inference import pooled_storage

        pooled_storage.save(self, path)

    def _posterior(
        self, runs: Runs, draws: Draws, log_likelihood: np.ndarray | None, told: Note
    ) -> Posterior:
        return Posterior(
            law=self.law,
            noise=Noise(self.noise.kind, None, self.noise.known),
            runs=runs,
            draws=draws,
            sample_stats=self.sample_stats,
            log_likelihood=log_likelihood,
            constants=self.constants,
            verdict=self.verdict,
            notes=(told, *self.notes),
            settings=self.settings,
            versions=self.versions,
        )


HALF_NORMAL_MEDIAN = 0.6744897501960817


def refuse_pooled(post: Posterior, why: str) -> None:
    """Raise FitError where a posterior is one group's of a pooled fit, whose prior is what the others say."""
    if of_pooled(post):
        raise FitError(f"the posterior is one of a pooled fit: {why} fit its runs without pool")


def of_pooled(post: Posterior) -> tuple[Note, ...]:
    """The notes that say which group of a pooled fit a posterior is of, none for others."""
    return tuple(note for note in post.notes if note.code in (ONE_GROUP, NO_RUNS))


def in_table_units(law: Law, scaled: Draws, constants: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Coefficients in the table's units from reference-scaled ones of any shapes that go together."""
    result = {}
    for c in law.coefficients:
        log_factor = np.log(constants["L"]) if c.of_loss else 0.0
        for quantity, power in c.at.items():
            sign = -1.0 if power.startswith("-") else 1.0
            log_factor = log_factor - sign * scaled[power.lstrip("-")] * np.log(constants[quantity])
        result[c.name] = scaled[c.name] * np.exp(log_factor)
    return result
