"""The verdict on a sample: R-hat, bulk and tail ESS, divergences, E-BFMI, and what the runs left unidentified.

A verdict is never silent: what is not met is a note that says which quantity, how far off and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from m3bayes.errors import Note
from m3bayes.inference.diagnostics import bulk_ess, nested_r_hat, r_hat, tail_ess

LARGEST_R_HAT = 1.01
SMALLEST_ESS = 400.0
LARGEST_DIVERGENT_SHARE = 0.002
SMALLEST_E_BFMI = 0.2
# a coefficient whose posterior is this wide relative to its prior was not measured by the runs
UNIDENTIFIED_SD_RATIO = 0.9

CODES = ("R_HAT", "ESS_BULK", "ESS_TAIL", "DIVERGENCES", "E_BFMI")  # of notes on what a fit can miss

Draws = Mapping[str, Float[np.ndarray, "chain draw"]]


@dataclass(frozen=True)
class Gate:
    """Worst values over the quantities judged, and notes for what is not met; ``e_bfmi`` is NaN where a chain
    never moved."""

    r_hat: float
    ess_bulk: float
    ess_tail: float
    divergent_share: float
    e_bfmi: float
    notes: tuple[Note, ...]

    @property
    def passed(self) -> bool:
        return not self.notes


def judge(draws: Draws, statistics: Mapping[str, np.ndarray], superchains: int = 0) -> Gate:
    """Judge ``draws`` {quantity: (chain, draw)} with the sampler's ``statistics`` {name: (chain, draw)}.

    R-hat is rank-normalised and split (Vehtari et al. 2021), or nested where neighbouring chains make up
    ``superchains``; the tail ESS is the smaller of those of the 5 % and 95 % quantiles.
    """
    quantities = {**draws, "lp": statistics["lp"]}
    stacked = np.stack([np.asarray(v, float) for v in quantities.values()])
    names = list(quantities)
    r_hats = nested_r_hat(stacked, superchains) if superchains else r_hat(stacked)
    bulks, tails = bulk_ess(stacked), tail_ess(stacked)
    divergent = float(np.mean(statistics["diverging"]))
    energy = np.asarray(statistics["energy"])
    moves = (np.ptp(energy, axis=1) > 0) & (np.ptp(statistics["lp"], axis=1) > 0)
    e_bfmi = math.nan
    if moves.all():
        jumps, spread = np.mean(np.diff(energy, axis=1) ** 2, axis=1), np.var(energy, axis=1)
        if superchains:  # one short chain alone does not tell
            jumps, spread = (each.reshape(superchains, -1).mean(axis=1) for each in (jumps, spread))
        e_bfmi = float(np.min(jumps / spread))

    which = "nested R-hat" if superchains else "R-hat"
    notes = []
    if not r_hats.max() <= LARGEST_R_HAT:  # also where it is NaN
        bad = _worst(names, r_hats, r_hats > LARGEST_R_HAT, largest=True)
        notes.append(
            Note(
                "R_HAT",
                f"chains disagree: {which} is {_listed(bad, '.3f')}, at most {LARGEST_R_HAT} is wanted; "
                "run longer chains",
                tuple(bad),
            )
        )
    for kind, values in (("bulk", bulks), ("tail", tails)):
        if not values.min() >= SMALLEST_ESS:
            bad = _worst(names, values, values < SMALLEST_ESS, largest=False)
            notes.append(
                Note(
                    f"ESS_{kind.upper()}",
                    f"too few independent draws: {kind} ESS is {_listed(bad, '.0f')}, at least "
                    f"{SMALLEST_ESS:.0f} is wanted; ask for more draws",
                    tuple(bad),
                )
            )
    if divergent > LARGEST_DIVERGENT_SHARE:
        notes.append(
            Note(
                "DIVERGENCES",
                f"{int(np.sum(statistics['diverging']))} transitions diverged ({divergent:.2%} of the draws, at "
                f"most {LARGEST_DIVERGENT_SHARE:.1%} is tolerated): some region is not explored",
            )
        )
    if not moves.all():
        still = tuple(f"chain {chain}" for chain in np.flatnonzero(~moves))
        notes.append(
            Note(
                "E_BFMI",
                f"{', '.join(still)} never moved: all its draws are the same, and E-BFMI cannot be told; sample longer "
                "or with another seed, and if it stays so see whether the law's gradient is finite",
                still,
            )
        )
    elif not e_bfmi >= SMALLEST_E_BFMI:
        notes.append(
            Note(
                "E_BFMI",
                f"the energy is explored slowly: E-BFMI is {e_bfmi:.2f}, at least {SMALLEST_E_BFMI} is wanted",
            )
        )
    return Gate(float(r_hats.max()), float(bulks.min()), float(tails.min()), divergent, e_bfmi, tuple(notes))


def unidentified(
    posterior: Mapping[str, Float[np.ndarray, " draw"]], prior: Mapping[str, Float[np.ndarray, " prior_draw"]]
) -> tuple[Note, ...]:
    """Notes on coefficients that the runs say next to nothing about.

    Both map a coefficient to draws of it on an unbounded scale. The ratio of their standard deviations is
    1 where the posterior is the prior.
    """
    names = [n for n in posterior if np.std(posterior[n]) > UNIDENTIFIED_SD_RATIO * np.std(prior[n])]
    return tuple(
        Note(
            "UNIDENTIFIED",
            f"the runs say next to nothing about {name}: its posterior is as wide as its prior",
            (name,),
        )
        for name in names
    )


def _worst(names: list[str], values: np.ndarray, bad: np.ndarray, largest: bool) -> dict[str, float]:
    order = np.argsort(-values if largest else values)
    bad = bad | ~np.isfinite(values)
    return {names[i]: float(values[i]) for i in order if bad[i]}


def _listed(values: Mapping[str, float], form: str, most: int = 3) -> str:
    shown = ", ".join(f"{value:{form}} ({name})" for name, value in list(values.items())[:most])
    rest = len(values) - most
    return shown if rest <= 0 else f"{shown} and {rest} more"
