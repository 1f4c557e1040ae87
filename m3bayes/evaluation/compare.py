"""compare(runs, laws) -> Comparison: which law predicts a run best that it was not fitted to.

    elpd = sum_i log p(L_i | all runs but i)        (leave-one-out), or all runs but those of i's fold

in the unit of the table's losses: a density of the loss, not of its log. Leave-one-out is done by importance
sampling from the posterior of all runs, Pareto-smoothed (Vehtari et al. 2024, JMLR 25:72; ArviZ's), and where
that is not to be trusted (k-hat too large) the law is fitted again without the run, under the same prior.

| symbol | meaning |
|---|---|
| w | stacking weights: the mixture of the laws' predictive distributions with the highest elpd (Yao et al. 2018) |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import special

from m3bayes.errors import M3BayesError, Note, RunTableError
from m3bayes.evaluation.candidates import check_feeds, counts, failed_note, flagged_note, named_apart
from m3bayes.evaluation.given import check_noise, check_runs
from m3bayes.evaluation.scores import predictive
from m3bayes.inference.data import canonical
from m3bayes.inference.diagnostics import mean_ess
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

GOOD_K = 0.7  # smoothed importance sampling is to be trusted up to here, with 2200 draws or more
MOST_REFITS = 20  # runs of large k-hat that are left out one by one; more of them in this many groups
TIE = 2.0  # standard errors
SPECK = 1e-9  # a weight that is 0 but for rounding

OfRuns = Float[np.ndarray, " run"]
Report = Callable[[int, int], None]
Sample = Callable[..., Posterior]  # fit, with everything given that fits share


@dataclass(frozen=True, eq=False)
class Comparison:
    """Laws by how well they predict runs that were left out.

    ``table``      a row a law, best first: ``law``, ``elpd`` and its ``elpd_se``, ``p_loo`` (effective number of
                   parameters; NaN with folds), ``coefficients`` (of the law), ``k_hat_over`` (runs of large k-hat),
                   ``refits``, ``difference`` (of elpd to the best) and ``difference_se``, ``weight`` (stacking),
                   ``verdict`` (passed, flagged, failed; with folds of the worst fit)
    ``pairwise``   a row a pair: ``law``, ``other``, ``difference`` (elpd of law - elpd of other), ``se``
    ``pointwise``  a row a law and run: ``law``, ``run``, ``elpd``, ``k_hat`` (NaN with folds), ``refitted``
    ``method``     how runs were left out
    ``notes``      HIGH_PARETO_K, FLAGGED, FAILED, TIE
    """

    table: pd.DataFrame
    pairwise: pd.DataFrame
    pointwise: pd.DataFrame
    method: str
    notes: tuple[Note, ...]


@dataclass(eq=False)
class _Judged:
    """What is found out about one law; arrays (run,)."""

    elpd: OfRuns
    k_hat: OfRuns
    refitted: Bool[np.ndarray, " run"]
    p_loo: float = np.nan
    k_hat_over: int = 0
    refits: int = 0
    verdict: str = "failed"
    notes: list[Note] = field(default_factory=list)


def compare(
    runs: Runs,
    laws: Law | Sequence[Law],
    *,
    noise: Noise | None = None,
    folds: int | str | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 1000,
    report: Report | None = None,
) -> Comparison:
    """Expected log predictive density of left-out runs, law by law.

    ``folds``   None leaves out one run at a time; a number that many random parts; a column the runs of each
                of its values ("language": how well is a language predicted from the others). Standard errors are
                then over the column's values
    ``noise``, ``chains``, ``warmup``, ``draws``, ``seed`` as for :func:`m3bayes.fit`
    ``report``  is called with laws done and laws in all

    The prior of every refit is that of the whole table. A run counts as its weight says, one of weight 0 not at
    all. Laws whose fit fails are in the table without numbers, with a note. Raises RunTableError for a table that
    a law cannot read or a column that cannot fold, M3BayesError where every law fails.
    """
    check_runs(runs)
    check_noise(noise)
    named, noise = named_apart(laws), student_t() if noise is None else noise
    check_feeds(runs, named, noise)
    runs = runs.select(counts(runs))
    fold = None if folds is None else _folds(runs, folds, seed)
    sample = partial(
        fit,
        noise=noise,
        seed=seed,
        chains=chains,
        warmup=warmup,
        draws=draws,
        allow="flagged",
        progress=False,
    )
    judged = {}
    for name, law in named.items():
        try:
            if fold is None:
                judged[name] = _leave_one_out(name, runs, law, sample)
            else:
                judged[name] = _leave_folds_out(name, runs, law, noise, sample, fold)
        except M3BayesError as error:
            nothing = np.full(len(runs), np.nan)
            judged[name] = _Judged(nothing, nothing, np.zeros(len(runs), bool))
            judged[name].notes.append(failed_note(name, "left out of the comparison", error))
        if report is not None:
            report(len(judged), len(named))
    return _comparison(runs, named, judged, folds, fold)


# --- one law ------------------------------------------------------------------------------------------------


def _leave_one_out(name: str, runs: Runs, law: Law, sample: Sample) -> _Judged:
    post = sample(runs, law)
    weight = _weight(runs)
    elpd, k_hat, lpd = pareto_smoothed(post, weight)
    n_draws = post.draws["sigma"].shape[0] * post.draws["sigma"].shape[1]
    over = k_hat > min(GOOD_K, 1 - 1 / np.log10(n_draws))
    found = _Judged(elpd, k_hat, over.copy(), k_hat_over=int(over.sum()), verdict=post.verdict)
    if post.verdict == "flagged":
        found.notes.append(flagged_note(name, "all runs", post))
    flagged = 0
    groups = _left_out_together(np.flatnonzero(over))
    for rows in groups:
        without = np.ones(len(runs), bool)
        without[rows] = False
        refit = sample(runs.select(without), law, constants=post.constants)
        flagged += refit.verdict == "flagged"
        held_out = runs.select(rows)
        found.elpd[rows] = weight[rows] * predictive(refit, held_out).log_density(held_out["loss"])
    found.refits = len(groups)
    found.p_loo = float(np.sum(lpd - found.elpd))
    if over.any():
        found.notes.append(_high_k(name, runs, over, k_hat.max(), len(groups), flagged))
    return found


def pareto_smoothed(post: Posterior, weight: OfRuns) -> tuple[OfRuns, OfRuns, OfRuns]:
    """Leave-one-out elpd of each run by smoothed importance sampling, its k-hat, and the log predictive density
    of the run when it is among those fitted; each times the run's weight, densities of the loss."""
    from arviz_stats.base.array import array_stats  # slow to import

    assert post.log_likelihood is not None
    likelihood = np.moveaxis(post.log_likelihood, -1, 0)  # (run, chain, draw)
    n_draws = likelihood[0].size
    # ArviZ's measure of how dependent the draws are, one number for all runs
    quantities = np.stack(list(post.quantities.values()))
    relative = float(np.mean(mean_ess(quantities))) / n_draws if likelihood.shape[1] > 1 else 1.0
    flat = likelihood.reshape(len(likelihood), -1)
    log_weights, k_hat = array_stats.psislw(weight[:, None] * flat, r_eff=relative)  # type: ignore[arg-type]
    jacobian = -np.log(post.runs["loss"])
    elpd = weight * (special.logsumexp(log_weights + flat, axis=1) + jacobian)
    lpd = weight * (special.logsumexp(flat, axis=1) - np.log(n_draws) + jacobian)
    return elpd, np.asarray(k_hat), lpd


def _left_out_together(rows: Int[np.ndarray, " over"]) -> list[np.ndarray]:
    """One by one, or in MOST_REFITS groups where that would be too many fits."""
    return [rows[i::MOST_REFITS] for i in range(min(len(rows), MOST_REFITS))]


def _leave_folds_out(
    name: str, runs: Runs, law: Law, noise: Noise, sample: Sample, fold: Int[np.ndarray, " run"]
) -> _Judged:
    nothing = np.full(len(runs), np.nan)
    found = _Judged(nothing.copy(), nothing, np.ones(len(runs), bool), verdict="passed")
    constants = _constants(runs, law, noise)
    for i in range(int(fold.max()) + 1):
        rows = fold == i
        post = sample(runs.select(~rows), law, constants=constants)
        held_out = runs.select(rows)
        found.elpd[rows] = predictive(post, held_out).log_density(held_out["loss"])
        found.refits += 1
        if post.verdict == "flagged":
            found.verdict = "flagged"
            found.notes.append(flagged_note(name, f"fit without fold {i + 1}", post))
    found.elpd = found.elpd * _weight(runs)
    return found


def _constants(runs: Runs, law: Law, noise: Noise) -> dict[str, float]:
    with jax.enable_x64(True):
        return canonical(runs, law, noise).constants(law)


def _weight(runs: Runs) -> OfRuns:
    return runs["weight"] if "weight" in runs.columns else np.ones(len(runs))


def _high_k(
    name: str, runs: Runs, over: Bool[np.ndarray, " run"], largest: float, refits: int, flagged: int
) -> Note:
    which = tuple(np.array(runs.names)[over])
    how = (
        "each was left out in a fit of its own"
        if refits == len(which)
        else f"they were left out in {refits} groups, so that their elpd is a little too low"
    )
    unsure = f"; {flagged} of these fits did not pass the gate" if flagged else ""
    message = (
        f"{name}: {len(which)} of {len(runs)} runs weigh too much for importance sampling (k-hat up to "
        f"{largest:.2g}); {how}{unsure}"
    )
    return Note("HIGH_PARETO_K", message, which)


# --- all laws -----------------------------------------------------------------------------------------------


def _comparison(
    runs: Runs,
    laws: Mapping[str, Law],
    judged: Mapping[str, _Judged],
    folds: int | str | None,
    fold: Int[np.ndarray, " run"] | None,
) -> Comparison:
    sound = [name for name, one in judged.items() if one.verdict != "failed"]
    notes = [note for one in judged.values() for note in one.notes]
    if not sound:
        raise M3BayesError(f"no law could be compared: {notes[0].message}")
    elpd = {name: judged[name].elpd for name in sound}
    # runs that were left out together vary together
    unit = fold if isinstance(folds, str) and fold is not None else np.arange(len(runs))
    best = max(sound, key=lambda name: elpd[name].sum())
    weights = dict(zip(sound, stacking_weights(np.stack(list(elpd.values()), axis=1)), strict=True))
    rows = []
    for name, one in judged.items():
        row = {
            "law": name,
            "elpd": one.elpd.sum(),
            "elpd_se": standard_error(one.elpd, unit),
            "p_loo": one.p_loo,
            "coefficients": len(laws[name].names),
            "k_hat_over": one.k_hat_over,
            "refits": one.refits,
            "difference": one.elpd.sum() - elpd[best].sum(),
            "difference_se": standard_error(one.elpd - elpd[best], unit),
            "weight": weights.get(name, np.nan),
            "verdict": one.verdict,
        }
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("elpd", ascending=False, kind="stable", ignore_index=True)
    tied = table[(table["law"] != best) & (table["difference"] >= -TIE * table["difference_se"])]
    if len(tied):
        message = f"{', '.join(tied['law'])} cannot be told from {best}: within {TIE:g} standard errors of it"
        notes.append(Note("TIE", message, (best, *tied["law"])))
    pairs = [
        {
            "law": one,
            "other": other,
            "difference": (elpd[one] - elpd[other]).sum(),
            "se": standard_error(elpd[one] - elpd[other], unit),
        }
        for i, one in enumerate(sound)
        for other in sound[i + 1 :]
    ]
    pointwise = [
        pd.DataFrame(
            {
                "law": name,
                "run": runs.names,
                "elpd": judged[name].elpd,
                "k_hat": judged[name].k_hat,
                "refitted": judged[name].refitted,
            }
        )
        for name in sound
    ]
    return Comparison(
        table=table,
        pairwise=pd.DataFrame(pairs, columns=["law", "other", "difference", "se"]),
        pointwise=pd.concat(pointwise, ignore_index=True),
        method=_method(folds, fold),
        notes=tuple(notes),
    )


def standard_error(values: OfRuns, unit: Int[np.ndarray, " run"]) -> float:
    """Of the sum of the values, of which those of one unit may depend on each other; NaN for a single unit."""
    sums = np.bincount(unit, weights=values)
    return float(np.sqrt(len(sums) * np.var(sums, ddof=1))) if len(sums) > 1 else np.nan


def stacking_weights(elpd: Float[np.ndarray, "run law"]) -> Float[np.ndarray, " law"]:
    """w on the simplex that maximises sum_i log sum_k w_k exp(elpd_ik), a concave function."""
    from scipy import optimize  # takes a fifth of a second

    laws = elpd.shape[1]
    density = np.exp(elpd - elpd.max(axis=1, keepdims=True))  # constants of a run move no weight

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixture = density @ w
        return -float(np.mean(np.log(mixture))), -(density / mixture[:, None]).mean(axis=0)

    found = optimize.minimize(
        loss,
        np.full(laws, 1 / laws),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * laws,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(laws)},
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    w = np.where(found.x > SPECK, found.x, 0.0)
    return w / w.sum()


def _folds(runs: Runs, folds: int | str, seed: int) -> Int[np.ndarray, " run"]:
    """The fold of each run, from 0."""
    if isinstance(folds, str):
        labels = np.array([str(value) for value in runs[folds]])
        found = np.unique(labels, return_inverse=True)[1].reshape(-1)
        if found.max() == 0:
            raise RunTableError(
                f"{runs.name}: all runs have one {folds}, expected several to fold by; name another column"
            )
        return found
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(runs):
        raise RunTableError(
            f"folds is {folds!r}, expected a number from 2 to {len(runs)} (runs) or a column's name"
        )
    return np.random.default_rng(seed).permutation(np.arange(len(runs)) % folds)


def _method(folds: int | str | None, fold: Int[np.ndarray, " run"] | None) -> str:
    if fold is None:
        return "leave-one-out, by smoothed importance sampling and refits"
    count = int(fold.max()) + 1
    return f"{count} folds by {folds}" if isinstance(folds, str) else f"{count} random folds"
