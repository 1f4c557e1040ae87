"""Small tables of runs, posteriors made by hand, and a slow search over recipes that knows nothing of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from m3bayes.decision.space import Space
from m3bayes.inference.noise import student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import Law, m3
from m3bayes.runs import Runs, runs_from_frame

TRUTH = {
    "E": 0.9, "A": 15.0, "B": 30.0, "P": 0.005, "alpha": 0.3, "beta": 0.32, "lambda": 0.08, "tau": 0.25,
    "eta": 0.85, "gamma": 0.1, "delta": 0.9, "kappa": 0.6, "omega": 1.0,
}  # fmt: skip
CHINCHILLA = {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}
DRAWS = 64  # one number everywhere: what is compiled for one test serves the others

RECIPES = (
    (1.0, 1.0, None),
    (0.5, 0.5, None),
    (0.1, 0.1, None),
    (0.2, 1.0, 0.0),
    (0.3, 0.6, 0.0),
    (0.4, 1.0, 0.1),
)


def runs(unit_params: float = 1.0, unit_tokens: float = 1.0, only: str | None = None) -> Runs:
    """36 runs of small models with every kind of recipe; ``only`` keeps some (a pandas query)."""
    rows = []
    for i, (N, (r, r_f, r_1)) in enumerate(product((3e4, 1e6, 2e7), RECIPES)):
        for j, k in enumerate((0.7, 16.0)):
            U = (1e5, 1e6)[(i + j) % 2]
            rows.append(
                {"params": N / unit_params, "target_tokens": U / unit_tokens, "epochs": k, "target_ratio": r,
                 "final_ratio": r_f, "first_ratio": r_1, "loss": 2.0 - 0.01 * i}
            )  # fmt: skip
    frame = pd.DataFrame(rows).astype({"first_ratio": float})
    if only:
        frame = frame.query(only).reset_index(drop=True)
    return runs_from_frame(frame, unit_params=unit_params, unit_tokens=unit_tokens)


def scattered(centre: Mapping[str, float], seed: int, spread: float = 0.1) -> dict[str, np.ndarray]:
    """DRAWS coefficients scattered about ``centre`` by a factor of exp(spread), shares kept below 1."""
    rng = np.random.default_rng(seed)
    c = {name: value * np.exp(rng.normal(0, spread, DRAWS)) for name, value in centre.items()}
    return {name: np.minimum(v, 0.98) if name in ("tau", "eta") else v for name, v in c.items()}


def wide(seed: int) -> dict[str, np.ndarray]:
    """DRAWS coefficients as wide as M3's prior, at N0 = 1e6, D0 = 1e7, 8 extra epochs and a loss of 1.5."""
    rng = np.random.default_rng(seed)

    def log_normal(median: float, sd: float) -> np.ndarray:
        return median * np.exp(rng.normal(0, sd, DRAWS))

    alpha, beta = (np.clip(log_normal(0.35, 0.5), 0.03, 2) for _ in range(2))
    delta, kappa = np.clip(log_normal(0.9, 0.4), 0.2, 3), np.clip(log_normal(0.7, 0.5), 0.05, 2)
    return {
        "E": 1.5 * rng.beta(2, 2, DRAWS),
        "A": 1.5 * log_normal(0.15, 1.0) * 1e6**alpha,
        "B": 1.5 * log_normal(0.15, 1.0) * 1e7**beta,
        "P": 1.5 * log_normal(0.02, 1.5) * 8.0**-delta * 2.0**-kappa,
        "alpha": alpha,
        "beta": beta,
        "lambda": log_normal(0.07, 1.0),
        "tau": 1 / (1 + np.exp(-rng.normal(-1.2, 1.2, DRAWS))),
        "eta": rng.beta(3, 1, DRAWS),
        "gamma": rng.normal(0.1, 0.2, DRAWS),
        "delta": delta,
        "kappa": kappa,
        "omega": rng.normal(1, 1, DRAWS),
    }


def draw(c: Mapping[str, np.ndarray], index: int) -> dict[str, float]:
    return {name: float(values[index]) for name, values in c.items()}


def posterior(c: Mapping[str, np.ndarray], table: Runs, law: Law | None = None) -> Posterior:
    draws = {name: values.reshape(2, -1) for name, values in c.items()}
    shape = next(iter(draws.values())).shape
    draws |= {"sigma": np.full(shape, 0.01), "nu": np.full(shape, 6.0)}
    return Posterior(law=m3() if law is None else law, noise=student_t(), runs=table, draws=draws)


def m3_loss(c: Mapping[str, float], N, U, k, r, r_f) -> np.ndarray:
    """M3 again, from its formula."""
    extra = np.maximum(k - 1, 0)
    R = np.where(k <= 1, k, 1 + (1 - np.exp(-c["lambda"] * extra)) / c["lambda"])
    S, Q = k * U * (1 - r) / r, U * R
    D = r_f ** c["gamma"] * Q * (1 + c["tau"] * S / (c["eta"] * Q)) ** c["eta"]
    penalty = c["P"] * extra ** c["delta"] * (N / U) ** c["kappa"] * r_f ** c["omega"]
    return c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D ** -c["beta"] + penalty


# losses (point,) of recipes N, k, r, r_f (point,) each
Losses = Callable[..., np.ndarray]


def slow_search(c: Mapping[str, float], space: Space) -> float:
    """M3's smallest loss in one draw, see :func:`slowly`."""
    _, least = slowly(lambda N, k, r, r_f: m3_loss(c, N, space.target_tokens, k, r, r_f), space)
    return least


def slowly(losses: Losses, space: Space) -> tuple[float, float]:
    """The smallest loss on a grid of 13 points along each variable, and by grids that zoom in on its best points.

    r, then r_f, then k, then N run geometrically between what all constraints together allow there, which has
    kinks. 6 N D is the cost. Every search is repeated with k = 1.
    """
    kinds = product(("monolingual", "single-stage", "two-stage"), (False, True))
    found = [_slowly(losses, space, regime, pinned) for regime, pinned in kinds]
    return min(first for first, _ in found), min(least for _, least in found)


def _slowly(losses: Losses, space: Space, regime: str, pinned: bool) -> tuple[float, float]:
    moves = np.array([True, not pinned, regime != "monolingual", regime == "two-stage"])
    centres, width, best, first = [np.full(4, 0.5)], 0.5, np.inf, np.inf
    for zoom in range(100):
        steps = np.linspace(-1, 1, 13 if zoom == 0 else 3)
        offsets = np.array(list(product(*[steps if moving else [0.0] for moving in moves]))) * width
        t = np.unique(np.clip(np.concatenate([centre + offsets for centre in centres]), 0, 1), axis=0)
        loss = _loss_at(losses, space, regime, pinned, t)
        order = np.argsort(loss)[:200]
        least = float(loss[order[0]])
        better = least < best * (1 - 1e-9)
        best = min(best, least)
        first = best if zoom == 0 else first
        centres = []
        for i in order:  # up to four, apart from one another
            apart = all(np.abs(t[i] - other).max() > 1.5 * width / (len(steps) - 1) for other in centres)
            if apart and np.isfinite(loss[i]) and len(centres) < 4:
                centres.append(t[i])
        if not centres or width < 1e-6:
            break
        # while it gets better, along a kink too, it is not near yet
        width *= 2 / 12 if zoom == 0 else 1.0 if better else 0.6
    return first, best


def _loss_at(losses: Losses, space: Space, regime: str, pinned: bool, t: np.ndarray) -> np.ndarray:
    bound = {name: (space[name].low, space[name].high) for name in space.bounds}
    U, r_1 = space.target_tokens, space.first_ratio
    paid = space.compute / (6.0 * space.cost.unit_params * space.cost.unit_tokens)  # N D
    tN, tk, tr, tf = t.T
    with np.errstate(all="ignore"):
        r = np.ones(len(t)) if regime == "monolingual" else _between(*bound["target_ratio"], tr)
        f_low, f_high = bound["final_ratio"]
        if regime == "two-stage":
            s_low, s_high = bound["last_stage_share"]
            f_low, f_high = (
                np.maximum(f_low, r_1 + (r - r_1) / s_high),
                np.minimum(f_high, r_1 + (r - r_1) / s_low),
            )
            r_f = _between(f_low, f_high, tf)
        else:
            r_f = r
        source = np.where(r < 1, r / (1 - r) / U, np.inf)  # epochs a source token
        k_low, k_high = bound["epochs"]
        k_low = np.maximum(
            np.maximum(k_low, bound["tokens"][0] * r / U), np.nan_to_num(bound["source_tokens"][0] * source)
        )
        k_high = np.minimum(k_high, np.where(r < 1, bound["source_tokens"][1] * source, np.inf))
        k_high = np.minimum(k_high, np.minimum(bound["tokens"][1], paid / bound["params"][0]) * r / U)
        k = np.ones(len(t)) if pinned else _between(k_low, k_high, tk)
        N = _between(bound["params"][0], np.minimum(bound["params"][1], paid * r / (k * U)), tN)
        slack = 1 + 1e-12
        feasible = (
            (f_low <= r_f * slack) & (r_f <= f_high * slack) & (k_low <= k * slack) & (k <= k_high * slack)
        )
        feasible &= (bound["target_ratio"][0] <= r * slack) & (r <= bound["target_ratio"][1] * slack)
        return np.where(feasible, losses(N, k, r, r_f), np.inf)


def _between(low, high, t: np.ndarray) -> np.ndarray:
    return np.exp((1 - t) * np.log(low) + t * np.log(high))
