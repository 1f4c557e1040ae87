"""What the tests of the laws share: naive formulas, plausible coefficients and recipes, fast evaluation."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import jax
import pytest
from hypothesis import strategies as st

from m3bayes.laws.law import Law

DATA = Path(__file__).parents[3] / "shared" / "data"


def table(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in {DATA}")
    return DATA / name


@lru_cache
def compiled(law: Law):
    return jax.jit(law.loss)


def loss(law: Law, c, x) -> float:
    return float(compiled(law)(c, x))


def recipe(
    params=3e8,
    target_tokens=2e9,
    epochs=1.0,
    target_ratio=1.0,
    final_ratio=1.0,
    languages=4.0,
    continued=1.0,
    en_tokens=1e9,
    en_unique_tokens=4e8,
    fr_tokens=2e8,
    fr_unique_tokens=3e8,
) -> dict[str, float]:
    return {
        "params": params,
        "target_tokens": target_tokens,
        "epochs": epochs,
        "target_ratio": target_ratio,
        "final_ratio": final_ratio,
        "languages": languages,
        "continued": continued,
        "en_tokens": en_tokens,
        "en_unique_tokens": en_unique_tokens,
        "fr_tokens": fr_tokens,
        "fr_unique_tokens": fr_unique_tokens,
    }


# One plausible set of coefficients a law, for N in parameters and U in tokens.
MAIN = {"E": 1.7, "A": 400.0, "B": 900.0, "alpha": 0.34, "beta": 0.31}
PENALTY = {"P": 0.05, "delta": 0.9, "kappa": 0.7}
FARSEER = {
    "s": -0.062465473, "q": 0.13, "S": 0.1284880679, "B": 230.73437076, "b": -0.1729, "Q": -1.544209554,
    "A": -1.665630816, "a": 0.0459, "E": 3.1333471988,
}  # fmt: skip
PLAUSIBLE = {
    "m3": {
        **MAIN,
        **PENALTY,
        "lambda": 0.07,
        "tau": 0.23,
        "eta": 0.7,
        "gamma": 0.1,
        "omega": 1.0,
        "eps": 0.03,
    },
    "chinchilla": MAIN,
    "data_constrained": {**MAIN, "R_D": 15.0, "R_N": 5.0},
    "target_ratio": {**MAIN, "gamma": 0.1, "lambda": 0.07},
    "atlas": {**MAIN, "lambda": 0.07, "tau": 0.23, "tau_en": 0.3, "tau_fr": -0.15, "tau_other": 0.1},
    "prescriptive": {**MAIN, **PENALTY},
    "practical": {
        "E": 1.7,
        "L0": 10.8,
        "a": 50.0,
        "b": 100.0,
        "c": 0.02,
        "alpha": 0.34,
        "beta": 0.31,
        "gamma": 0.3,
        "delta": 0.25,
    },
    "farseer": FARSEER,
    "staged": {
        **MAIN,
        **PENALTY,
        "lambda": 0.07,
        "tau": 0.23,
        "eta": 0.7,
        "gamma": 0.1,
        "omega": 1.0,
        "xi": 0.15,
        "chi": 0.4,
    },
    "dcpt": {**MAIN, "C": 0.4, "eta": 0.3, "gamma": 0.4, "eps": 0.1},
    "multilingual": {**MAIN, "phi": 0.11, "psi": -0.04},
    # a head start of 1.4e9 tokens at N = 3e8
    "continued": {**MAIN, "G": 0.073, "zeta": 0.2, "rho": 0.6},
}


def plausible(law: Law, **changed: float) -> dict[str, float]:
    return {**{name: PLAUSIBLE[law.name][name] for name in law.names}, **changed}


def recipes(most_epochs: float = 40.0, least_ratio: float = 0.02) -> st.SearchStrategy[dict[str, float]]:
    """Any recipe: N 1e7 to 1e10, U 1e8 to 1e11, k from .05, r and r_f in any order, 1 to 400 languages."""
    ratio = st.one_of(st.just(1.0), st.floats(least_ratio, 1.0))
    return st.builds(
        recipe,
        params=_log_uniform(1e7, 1e10),
        target_tokens=_log_uniform(1e8, 1e11),
        epochs=st.one_of(st.just(1.0), _log_uniform(0.05, most_epochs)),
        target_ratio=ratio,
        final_ratio=ratio,
        languages=_log_uniform(1.0, 400.0),
        continued=st.sampled_from([0.0, 1.0]),
        **{
            name: _log_uniform(1e7, 1e11)
            for name in ("en_tokens", "en_unique_tokens", "fr_tokens", "fr_unique_tokens")
        },
    )


def coefficients(law: Law, **fixed: float) -> st.SearchStrategy[dict[str, float]]:
    """The plausible coefficients, each changed by a factor within .8 to 1.3."""
    # Farseer's are exponents of exponents
    factor = st.floats(0.97, 1.03) if law.name == "farseer" else st.floats(0.8, 1.3)
    free = {name: factor.map(lambda f, v=value: f * v) for name, value in plausible(law).items()}
    return st.fixed_dictionaries({**free, **{name: st.just(value) for name, value in fixed.items()}})


def _log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


# The formulas of laws.md, written as plainly as they can be.


def naive(law: Law, c, x) -> float:
    N, U, k, r, r_f = (x[n] for n in ("params", "target_tokens", "epochs", "target_ratio", "final_ratio"))
    T, D, S = k * U, k * U / r, k * U / r - k * U
    all_tokens = law.options.get("tokens") == "all"
    seen = D if all_tokens else T
    if law.name == "m3":
        extended = law.options.get("penalty_tokens") == "target+source"
        last = r_f + c["eps"] if law.options.get("floor") else r_f
        Q = U * worth(k, c["lambda"])
        D_eff = last ** c["gamma"] * Q * (1 + c["tau"] * S / (c["eta"] * Q)) ** c["eta"]
        unique = U + c["tau"] * S if extended else U
        return main(c, N, D_eff) + penalty(c, N, unique, k) * r_f ** c["omega"]
    if law.name == "staged":
        r_1 = x.get("first_ratio", 0.0)
        s = 1.0 if r == r_f else (r - r_1) / (r_f - r_1)
        Q = U * worth(k, c["lambda"])
        early = s * 1 + (1 - s) * r_1 / r
        D_eff = early ** c["chi"] * r_f ** c["gamma"] * Q * (1 + c["tau"] * S / (c["eta"] * Q)) ** c["eta"]
        return main(c, N, D_eff) / r_f ** c["xi"] + penalty(c, N, U, k) * r_f ** c["omega"]
    if law.name == "chinchilla":
        return main(c, N, seen)
    if law.name == "data_constrained":
        unique = min(k, 1) * U + (S if all_tokens else 0)
        G = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
        N_opt = (unique * G) ** (c["beta"] / c["alpha"]) * G
        U_N = min(N, N_opt)
        R_D, R_N = max(seen / unique - 1, 0), max(N / U_N - 1, 0)
        N_eff = U_N + U_N * c["R_N"] * (1 - math.exp(-R_N / c["R_N"]))
        D_eff = unique + unique * c["R_D"] * (1 - math.exp(-R_D / c["R_D"]))
        return main(c, N_eff, D_eff)
    if law.name == "target_ratio":
        return main(c, N, U * worth(k, c["lambda"]) + S if "lambda" in c else D) * r ** -c["gamma"]
    if law.name == "atlas":
        Q = U * worth(k, c["lambda"])
        gain = c.get("tau", 0.0) * S
        named = law.options.get("sources", ())
        for s in named:
            D_s, U_s = x[f"{s}_tokens"], x[f"{s}_unique_tokens"]
            gain += c[f"tau_{s}"] * U_s * worth(D_s / U_s, c["lambda"])
        gain += c.get("tau_other", 0.0) * max(S - sum(x[f"{s}_tokens"] for s in named), 0.0)
        z = 1 + gain / Q
        return main(c, N, Q + gain if z >= 0.5 else Q / (4 * (1 - z)))
    if law.name == "prescriptive":
        return main(c, N, seen) + penalty(c, N, U, k)
    if law.name == "practical":
        unique = min(k, 1) * U
        h = (
            c["a"] / N ** c["alpha"]
            + c["b"] / seen ** c["beta"]
            + c["c"] * N ** c["gamma"] / unique ** c["delta"]
        )
        return c["E"] + (c["L0"] - c["E"]) * h / (1 + h)
    if law.name == "farseer":
        floor = math.exp(c["s"] * N ** c["q"] + c["S"])
        exponent = math.exp(c["A"] * N ** c["a"] + c["E"])
        return floor + math.exp(c["B"] * N ** c["b"] + c["Q"]) * seen**-exponent
    if law.name == "dcpt":
        share = c["C"] / (r + c["eps"]) ** c["gamma"]
        return c["E"] + c["A"] / N ** c["alpha"] + c["B"] * r ** c["eta"] / D ** c["beta"] + share
    if law.name == "multilingual":
        K = x["languages"]
        return c["E"] + c["A"] * K ** c["phi"] / N ** c["alpha"] + c["B"] * K ** c["psi"] / T ** c["beta"]
    if law.name == "continued":
        head_start = (c["G"] / N ** c["zeta"]) ** (-1 / c["beta"])
        return main(c, N, c["rho"] * T + head_start if x["continued"] else T)
    raise AssertionError(law.name)


def main(c, N: float, D: float) -> float:
    return c["E"] + c["A"] / N ** c["alpha"] + c["B"] / D ** c["beta"]


def penalty(c, N: float, U: float, k: float) -> float:
    return c["P"] * (k - 1) ** c["delta"] * (N / U) ** c["kappa"] if k > 1 else 0.0


def worth(k: float, repetition: float) -> float:
    if k <= 1 or repetition == 0:
        return k
    return 1 + (1 - math.exp(-repetition * (k - 1))) / repetition
