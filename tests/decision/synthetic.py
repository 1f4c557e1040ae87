"""Small tables of runs and posteriors made by hand, and a slow search over recipes that knows nothing of faces."""

from __future__ import annotations

from itertools import product

import jax
import numpy as np
import pandas as pd

from m3bayes.inference.noise import student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import Law, m3
from m3bayes.runs import Runs, runs_from_frame

TRUTH = {
    "E": 0.9, "A": 15.0, "B": 30.0, "P": 0.005, "alpha": 0.3, "beta": 0.32, "lambda": 0.08, "tau": 0.25,
    "eta": 0.85, "gamma": 0.1, "delta": 0.9, "kappa": 0.6, "omega": 1.0,
}  # fmt: skip
CHINCHILLA = {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}


def runs(unit_params: float = 1.0, unit_tokens: float = 1.0, only: str | None = None) -> Runs:
    """36 runs of small models with every kind of recipe; ``only`` keeps some (a pandas query)."""
    rows = []
    recipes = [
        (1.0, 1.0, None),
        (0.5, 0.5, None),
        (0.1, 0.1, None),
        (0.2, 1.0, 0.0),
        (0.3, 0.6, 0.0),
        (0.4, 1.0, 0.1),
    ]
    for i, (N, (r, r_f, r_1)) in enumerate(product((3e4, 1e6, 2e7), recipes)):
        for j, k in enumerate((0.7, 16.0)):
            U = (1e5, 1e6)[(i + j) % 2]
            rows.append(
                {"params": N / unit_params, "target_tokens": U / unit_tokens, "epochs": k, "target_ratio": r,
                 "final_ratio": r_f, "first_ratio": r_1, "loss": 2.0 - 0.01 * i}
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    if only:
        frame = frame.query(only).reset_index(drop=True)
    return runs_from_frame(frame, unit_params=unit_params, unit_tokens=unit_tokens)


def m3_draws(draws: int, seed: int, spread: float = 0.1) -> dict[str, np.ndarray]:
    """Coefficients scattered about TRUTH by a factor of exp(spread), the shares kept below 1."""
    rng = np.random.default_rng(seed)
    c = {name: value * np.exp(rng.normal(0, spread, draws)) for name, value in TRUTH.items()}
    return {name: np.minimum(v, 0.98) if name in ("tau", "eta") else v for name, v in c.items()}


def prior_draws(draws: int, seed: int) -> dict[str, np.ndarray]:
    """Coefficients as wide as M3's prior, scaled at N0 = 1e6, D0 = 1e7, 8 epochs and a loss of 1.5."""
    rng = np.random.default_rng(seed)
    log_normal = lambda median, sd: median * np.exp(rng.normal(0, sd, draws))  # noqa: E731
    alpha, beta = (np.clip(log_normal(0.35, 0.5), 0.03, 2) for _ in range(2))
    delta, kappa = np.clip(log_normal(0.9, 0.4), 0.2, 3), np.clip(log_normal(0.7, 0.5), 0.05, 2)
    return {
        "E": 1.5 * rng.beta(2, 2, draws),
        "A": 1.5 * log_normal(0.15, 1.0) * 1e6**alpha,
        "B": 1.5 * log_normal(0.15, 1.0) * 1e7**beta,
        "P": 1.5 * log_normal(0.02, 1.5) * 8.0**-delta * 2.0**-kappa,
        "alpha": alpha,
        "beta": beta,
        "lambda": log_normal(0.07, 1.0),
        "tau": 1 / (1 + np.exp(-rng.normal(-1.2, 1.2, draws))),
        "eta": rng.beta(3, 1, draws),
        "gamma": rng.normal(0.1, 0.2, draws),
        "delta": delta,
        "kappa": kappa,
        "omega": rng.normal(1, 1, draws),
    }


def posterior(c: dict[str, np.ndarray], table: Runs, law: Law | None = None) -> Posterior:
    draws = {name: values.reshape(2, -1) for name, values in c.items()}
    shape = next(iter(draws.values())).shape
    draws |= {"sigma": np.full(shape, 0.01), "nu": np.full(shape, 6.0)}
    return Posterior(law=m3() if law is None else law, noise=student_t(), runs=table, draws=draws)


def slow_search(law: Law, c: dict[str, float], space, zooms: int = 9, points: int = 13) -> tuple[float, dict]:
    """The smallest loss of one draw by grids that zoom in on their best points, constraints taken one by one.

    r, r_f given r, k given r, N given k and r run geometrically between what all constraints allow there
    (which has kinks), 6 N D the cost; k = 1 is added to every grid.
    """
    b = {name: (space[name].low, space[name].high) for name in space.bounds}
    U, C, r_1 = space.target_tokens, space.compute, space.first_ratio
    per_six = 6.0 * space.cost.unit_params * space.cost.unit_tokens

    def recipes(t: np.ndarray, regime: str, pin: bool) -> tuple[np.ndarray, dict]:
        tr, tf, tk, tn = t.T
        r_low, r_high = b["target_ratio"]
        if regime == "monolingual":
            r = np.ones(len(t))
        else:
            r = np.exp(np.log(r_low) * (1 - tr) + np.log(r_high) * tr)
        f_low, f_high = np.full(len(t), b["final_ratio"][0]), np.full(len(t), b["final_ratio"][1])
        if regime == "two-stage":
            s_low, s_high = b["last_stage_share"]
            f_low, f_high = (
                np.maximum(f_low, r_1 + (r - r_1) / s_high),
                np.minimum(f_high, r_1 + (r - r_1) / s_low),
            )
            ok = f_low <= f_high * (1 + 1e-12)
            with np.errstate(invalid="ignore", divide="ignore"):
                r_f = np.exp(np.log(f_low) * (1 - tf) + np.log(f_high) * tf)
        else:
            r_f, ok = r, (f_low <= r * (1 + 1e-12)) & (r <= f_high * (1 + 1e-12))
        ok &= (b["target_ratio"][0] <= r * (1 + 1e-12)) & (r <= b["target_ratio"][1] * (1 + 1e-12))
        with np.errstate(divide="ignore", invalid="ignore"):
            source = np.where(r < 1, r / (1 - r) / U, np.inf)
            low = np.maximum(b["epochs"][0], b["tokens"][0] * r / U)
            low = np.maximum(low, np.where(b["source_tokens"][0] > 0, b["source_tokens"][0] * source, 0.0))
            high = np.minimum(b["epochs"][1], b["tokens"][1] * r / U)
            high = np.minimum(high, np.where(r < 1, b["source_tokens"][1] * source, np.inf))
            high = np.minimum(high, C / per_six / b["params"][0] * r / U)
        ok &= low <= high * (1 + 1e-12)
        ok = np.asarray(ok)
        low = np.where(ok, low, 1.0)
        high = np.where(ok, high, 1.0)
        k = np.exp(np.log(low) * (1 - tk) + np.log(high) * tk)
        if pin:
            ok &= (low <= 1) & (1 <= high)
            k = np.ones(len(t))
        N_low = b["params"][0]
        N_high = np.maximum(np.minimum(b["params"][1], C / per_six / (k * U / r)), N_low)
        N = np.exp(np.log(N_low) * (1 - tn) + np.log(N_high) * tn)
        return ok, {
            "params": N,
            "target_tokens": np.full(len(t), U),
            "epochs": k,
            "target_ratio": r,
            "final_ratio": r_f,
        }

    loss = jax.jit(jax.vmap(lambda x: law.loss(c, x)))
    best = (np.inf, {})
    with jax.enable_x64(True):
        for regime, pin in product(("monolingual", "single-stage", "two-stage"), (False, True)):
            if regime == "two-stage" and not np.isfinite(b["last_stage_share"][0]):
                continue
            used = [regime != "monolingual", regime == "two-stage", not pin, True]
            centres = [np.full(4, 0.5)]
            width = 0.5
            for zoom in range(zooms):
                axes = np.linspace(-1, 1, points if zoom == 0 else 5)
                offsets = np.array(list(product(*[axes if u else [1.0] for u in used]))) * width
                t = np.concatenate([np.clip(centre + offsets, 0, 1) for centre in centres])
                ok, x = recipes(t, regime, pin)
                value = np.where(ok, np.asarray(loss(x)), np.inf)
                order = np.argsort(value)[:300]
                i = order[0]
                if value[i] < best[0]:
                    best = (float(value[i]), {name: float(v[i]) for name, v in x.items()})
                chosen: list[np.ndarray] = []
                for j in order:  # up to three centres, apart from one another
                    if all(
                        np.abs(t[j] - other).max() > width / points * 2 for other in chosen
                    ) and np.isfinite(value[j]):
                        chosen.append(t[j])
                centres = chosen[:3]
                if not centres:
                    break
                width = 2 * width / (points - 1) if zoom == 0 else width / 2 * 1.2
    return best
