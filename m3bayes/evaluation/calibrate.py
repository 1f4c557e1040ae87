"""Are posteriors right? Simulation-based calibration: truths from the prior, fitted back, ranked.

A truth is drawn from the prior, losses are simulated for the recipes of a design, and the law is fitted to them
with the same prior (the same ``constants``). Whatever quantity is looked at, the rank of its true value among
independent posterior draws is then uniform, and an interval of level p holds it with probability p (Talts et al.
2018, arXiv 1804.06788; with the joint log likelihood as a quantity more bugs show: Modrák et al. 2023, arXiv
2211.02383). No simulation is left out: flagged fits are ranked like others, a fit that raises is a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.errors import M3BayesError, Note
from m3bayes.evaluation.given import check_functions, check_noise, check_runs, check_whole
from m3bayes.evaluation.observed import Quantities, log_likelihood, values_of
from m3bayes.evaluation.uniformity import CELLS, binomial_quantile, p_value
from m3bayes.files import append_line, write_bytes, write_text
from m3bayes.inference import checkpoint
from m3bayes.inference.jobs import Device, Job, Outcome, Settings, each_fit, on_processor
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.inference.simulate import Simulation, simulate
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

RANKED = CELLS - 1  # draws that a truth is ranked among
LEVELS = (0.5, 0.9, 0.95)
ALPHA = 0.05
FEW = 50  # simulations, below which a note says what could go unseen
BEYOND = 10.0  # times the largest compute, where the loss is extrapolated to
COLUMNS = ["p", "adjusted", "uniform", "mean_rank", *(f"coverage_{100 * p:.0f}" for p in LEVELS), "covered"]
LOG_LIKELIHOOD, EXTRAPOLATED = "log likelihood", f"loss at {BEYOND:g} x compute"

Fit = Callable[..., Posterior]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What simulations said of a law's posteriors.

    ``verdict``   "passed", or "doubtful" where ranks or coverage are off or a fit failed
    ``table``     one row a quantity: ``p``, ``adjusted`` (Bonferroni over quantities) that its ranks are uniform,
                  ``uniform`` (adjusted at least .05), ``mean_rank`` (.5 is right; above, truths lie above the
                  draws), ``coverage_50``, ``coverage_90``, ``coverage_95``, ``covered``: all three in their range
    ``coverage_range``  {level: (lowest, highest)} share of intervals that may hold the truth: central 95 % of the
                  binomial, Bonferroni over quantities and levels
    ``ranks``     (simulation, quantity) rank of the truth among 99 draws, 0 to 99, ties at random
    ``fits``      one row a simulation: ``verdict`` (passed, flagged, failed), ``attempts``, ``seconds``,
                  ``divergences``, ``notes`` (codes joined by ``;``), ``error``
    ``notes``     RANKS_NOT_UNIFORM, COVERAGE_WRONG, FITS_FAILED, which make it doubtful; FITS_FLAGGED, FEW_SIMULATIONS
    """

    verdict: Literal["passed", "doubtful"]
    table: pd.DataFrame
    coverage_range: Mapping[float, tuple[float, float]]
    ranks: pd.DataFrame
    fits: pd.DataFrame
    notes: tuple[Note, ...]


def calibrate(
    law: Law,
    design: Runs,
    *,
    simulations: int = 1000,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    draws: int = 1000,
    quantities: Quantities | None = None,
    folder: Path | str | None = None,
    fit: Fit | None = None,
    devices: Sequence[Device] = (),
    report: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Calibrate a law's posteriors on tables simulated for the recipes of ``design``.

    Ranked are all coefficients, sigma and nu, the joint log likelihood, and the loss of the design's largest run
    at ten times its compute (N and U times the root of ten).

    ``quantities``  more of them, {name: f}: f takes {coefficient: (draw,)} in the table's units and gives (draw,)
    ``folder``      keeps each simulation once it is finished: the same call goes on after a kill, and gives the
                    same ranks; more ``simulations`` go on from fewer
    ``fit``         called as ``fit(runs, law, noise=, seed=, constants=)`` in place of :func:`m3bayes.fit` with
                    ``chains``, ``draws`` and allow="flagged"
    ``devices``     accelerators to fit batches of simulations on, as for :func:`m3bayes.fit_many`
    ``report``      called with (simulations done, all)

    Raises FitError where the folder is that of another calibration, M3BayesError for a fit of less than 99 draws.
    """
    noise = student_t() if noise is None else noise
    quantities = {} if quantities is None else quantities
    check_runs(design)
    check_noise(noise)
    check_whole("simulations", simulations, 1)
    check_whole("seed", seed, 0)
    check_functions(quantities)
    if taken := {*law.names, "sigma", "nu", LOG_LIKELIHOOD, EXTRAPOLATED} & set(quantities):
        raise M3BayesError(f"quantities has {min(taken)!r}, which is ranked anyway; give another name")
    identity = {
        "law": law.name,
        "law_options": {key: str(value) for key, value in law.options.items()},
        "coefficients": list(law.names),
        "noise": {"kind": noise.kind, "by": noise.by, "known": noise.known},
        "design": design.fingerprint(),
        "settings": {"seed": seed, "chains": chains, "draws": draws, "own_fit": fit is not None},
        "quantities": list(quantities),
    }
    rows = {} if folder is None else _kept(Path(folder), identity)
    rows = {number: row for number, row in rows.items() if number < simulations}
    simulated: dict[str, Simulation] = {}  # those that are being fitted

    def jobs() -> Iterator[Job]:
        for number in range(simulations):
            if number not in rows:
                key = jax.random.fold_in(jax.random.key(seed), number)
                try:
                    with on_processor():
                        simulated[str(number)] = simulation = simulate(law, design, key, noise=noise)
                except M3BayesError as error:
                    keep({"number": number, "verdict": "failed", "seconds": 0.0, "error": str(error)})
                else:
                    yield Job(str(number), simulation.runs, number, simulation.constants)

    def keep(row: dict[str, Any]) -> None:
        rows[row["number"]] = row
        if folder is not None:
            _keep(Path(folder), row)
        if report is not None:
            report(len(rows), simulations)

    def rank(outcome: Outcome) -> dict[str, Any]:
        return _row_of_fit(outcome, simulated.pop(outcome.job.name), seed, quantities)

    for row in each_fit(jobs(), Settings(law, noise, chains, None, draws), rank, devices=devices, fit=fit):
        keep(row)
    return summary([rows[number] for number in range(simulations)])


# --- one simulation -------------------------------------------------------------------------------------


def _row_of_fit(outcome: Outcome, simulated: Simulation, seed: int, quantities: Quantities) -> dict[str, Any]:
    """What came of the fit of a simulation, and the rank of the truth; as JSON has it."""
    number, post = int(outcome.job.name), outcome.posterior
    told = {"number": number, "verdict": outcome.verdict, "seconds": outcome.seconds}
    if post is None:
        return told | {"error": outcome.error or "the fit gave no posterior"}
    try:
        followed = partial(_quantities, more=quantities)
        truth, found = followed(_truth(post, simulated)), followed(post)
    except M3BayesError as error:
        return told | {"verdict": "failed", "error": str(error)}
    random = np.random.default_rng([seed, number])
    of_draws = {name: ranked(values, float(truth[name][0]), random) for name, values in found.items()}
    return told | {
        "attempts": int(post.settings.get("attempts", 1)),
        "divergences": int(np.sum(post.sample_stats.get("diverging", 0))),
        "notes": ";".join(sorted({note.code for note in post.notes})),
        "ranks": {name: rank for name, (rank, _) in of_draws.items()},
        "places": {name: place for name, (_, place) in of_draws.items()},
    }


def _truth(post: Posterior, simulated: Simulation) -> Posterior:
    """The truth as a posterior of one draw."""
    draws = {name: np.asarray(value)[None, None] for name, value in simulated.truth.items()}
    return Posterior(post.law, post.noise, simulated.runs, draws, groups=post.groups)


def _quantities(post: Posterior, more: Quantities) -> dict[str, Float[np.ndarray, " draw"]]:
    result = {name: values.reshape(-1) for name, values in post.quantities.items()}
    largest = post.runs.frame().iloc[[int(np.argmax(post.runs.compute))]]
    sizes = {name: largest[name] * np.sqrt(BEYOND) for name in ("params", "target_tokens")}
    result[LOG_LIKELIHOOD] = log_likelihood(post)
    result[EXTRAPOLATED] = loss_draws(post, largest.assign(**sizes))[:, 0]
    return result | values_of(more, post)


def ranked(draws: np.ndarray, truth: float, random: np.random.Generator) -> tuple[int, float]:
    """Rank of the truth among 99 evenly spaced draws, and its place among all of them, in (0, 1)."""
    if len(draws) < RANKED:
        raise M3BayesError(
            f"the fit has {len(draws)} draws, at least {RANKED} are needed: ask for more draws"
        )
    kept = draws[np.linspace(0, len(draws) - 1, RANKED).astype(int)]
    rank = int(np.sum(kept < truth) + random.integers(np.sum(kept == truth) + 1))
    place = np.sum(draws < truth) + random.uniform() * (np.sum(draws == truth) + 1)
    return rank, float(place / (len(draws) + 1))


# --- what is kept ---------------------------------------------------------------------------------------


def _kept(folder: Path, identity: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The finished simulations in a folder, which is made where it is missing."""
    rows = _rows(folder)
    if not checkpoint.check_header(folder, identity):
        if rows.exists():  # of another calibration, and gone before a header can vouch for them
            write_text(rows, "")
        checkpoint.write_header(folder, identity)
    if rows.exists() and not rows.is_file():
        raise M3BayesError(f"{rows} is not a file; remove it, or give another folder")
    lines = rows.read_bytes().split(b"\n") if rows.exists() else []
    # a line cut off by a kill, or damaged, counts for nothing: its simulation is made again
    kept = [(line, row) for line in lines if (row := _row_of(line)) is not None]
    write_bytes(rows, b"".join(line + b"\n" for line, _ in kept))
    return {row["number"]: row for _, row in kept}


def _row_of(line: bytes) -> dict[str, Any] | None:
    """What :func:`_row_of_fit` gave; None for a line that cannot be that."""
    try:
        row = json.loads(line)
        if row["verdict"] == "failed":
            whole = isinstance(row["error"], str)
        else:
            ranks, places = row["ranks"], row["places"]
            whole = row["verdict"] in ("passed", "flagged") and ranks.keys() == places.keys()
            whole &= all(isinstance(rank, int) and 0 <= rank <= RANKED for rank in ranks.values())
            whole &= all(0 <= place <= 1 for place in places.values())
            whole &= all(
                isinstance(row[count], int) and row[count] >= 0 for count in ("attempts", "divergences")
            )
            whole &= isinstance(row["notes"], str)
        whole &= isinstance(row["number"], int) and 0 <= row["seconds"] < math.inf
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return row if whole else None


def _keep(folder: Path, row: Mapping[str, Any]) -> None:
    append_line(_rows(folder), json.dumps(row))


def _rows(folder: Path) -> Path:
    return folder / "simulations.jsonl"


# --- what it says ---------------------------------------------------------------------------------------


def summary(rows: Iterable[Mapping[str, Any]]) -> Calibration:
    """The tests over all simulations, rows as they are kept."""
    rows = list(rows)
    fits = pd.DataFrame([{k: v for k, v in row.items() if k not in ("ranks", "places")} for row in rows])
    fits = fits.reindex(columns=["number", "verdict", "attempts", "seconds", "divergences", "notes", "error"])
    verdicts = list(fits["verdict"])
    notes = []
    if flagged := verdicts.count("flagged"):
        notes.append(Note("FITS_FLAGGED", f"{flagged} of {len(rows)} fits did not pass the gate and say so"))
    if failed := verdicts.count("failed"):
        first = fits.loc[fits["verdict"] == "failed"].iloc[0]
        missing = f"{failed} of {len(rows)} simulations have no posterior"
        notes.append(Note("FITS_FAILED", f"{missing}, the first of them {first['number']}: {first['error']}"))
    ranks = pd.DataFrame([row.get("ranks", {}) for row in rows])
    places = pd.DataFrame([row.get("places", {}) for row in rows])
    fitted = len(rows) - failed
    coverage_range = _coverage_range(fitted, len(ranks.columns)) if fitted else {}
    table = pd.DataFrame(
        [
            _row(ranks[name].to_numpy(), places[name].to_numpy(), len(ranks.columns), coverage_range)
            for name in ranks
        ],
        index=pd.Index(ranks.columns, name="quantity"),
        columns=COLUMNS,
    )
    notes += [*_rank_notes(table), *_coverage_notes(table, coverage_range)]
    doubtful = [note for note in notes if note.code != "FITS_FLAGGED"]
    if fitted and fitted < FEW:
        low, high = coverage_range[0.9]
        said = f"{fitted} fits show little: 90% intervals that hold {low:.0%} to {high:.0%} of the truths would pass"
        notes.append(Note("FEW_SIMULATIONS", f"{said}; hundreds tell more"))
    return Calibration("doubtful" if doubtful else "passed", table, coverage_range, ranks, fits, tuple(notes))


def _row(ranks: np.ndarray, places: np.ndarray, quantities: int, allowed: Mapping) -> dict[str, object]:
    ranks, places = ranks[~np.isnan(ranks)], places[~np.isnan(places)]
    p = p_value((ranks + 0.5) / CELLS)
    held = {level: float(np.mean(np.abs(places - 0.5) <= level / 2)) for level in LEVELS}
    return {
        "p": p,
        "adjusted": min(1.0, p * quantities),
        "uniform": p * quantities >= ALPHA,
        "mean_rank": float(ranks.mean() / RANKED),
        **{f"coverage_{100 * level:.0f}": share for level, share in held.items()},
        "covered": all(allowed[level][0] <= share <= allowed[level][1] for level, share in held.items()),
    }


def _coverage_range(fitted: int, quantities: int) -> dict[float, tuple[float, float]]:
    tail = ALPHA / (2 * quantities * len(LEVELS))
    counts = {level: binomial_quantile(np.array([tail, 1 - tail]), fitted, level) for level in LEVELS}
    return {level: (float(low) / fitted, float(high) / fitted) for level, (low, high) in counts.items()}


def _rank_notes(table: pd.DataFrame) -> list[Note]:
    return [
        Note(
            "RANKS_NOT_UNIFORM",
            f"the truth of {name} does not rank uniformly among posterior draws: p {row['adjusted']:.2g} after "
            f"{len(table)} quantities, mean rank {row['mean_rank']:.3f}, where .5 is right",
            (str(name),),
        )
        for name, row in table.to_dict("index").items()
        if not row["uniform"]
    ]


def _coverage_notes(table: pd.DataFrame, allowed: Mapping[float, tuple[float, float]]) -> list[Note]:
    notes = []
    for name, row in table.to_dict("index").items():
        if row["covered"]:
            continue
        held = {level: row[f"coverage_{100 * level:.0f}"] for level in allowed}
        off = [
            f"{level:.0%} intervals hold {held[level]:.1%} ({low:.1%} to {high:.1%})"
            for level, (low, high) in allowed.items()
            if not low <= held[level] <= high
        ]
        notes.append(Note("COVERAGE_WRONG", f"of {name}, {', '.join(off)}", (str(name),)))
    return notes
