"""P6: the best recipe of each of 4000 draws at 8 budgets, beside a loop over scipy.optimize.

    python -m benchmarks.optima [--draws 4000 --peer-optima 200 --repeats 7]

Prints a table, then one line of JSON. Chinchilla: N and k of monolingual training, any N and D. M3: all four
variables and all three regimes within the range of the embedded table. Budgets run from a tenth of the table's
largest run to 30 times it. Draws are made by hand about the table's true coefficients, since only their number
matters. Times are warm, the median of the repeats; the first call, which compiles, is given too.

Peers, on a random part of the same optima, scaled to all: `minimize` (SLSQP, log N and log D, the budget as a
constraint), which is what the general problem asks for; and for Chinchilla `minimize_scalar` (bounded) over log D
after putting N = C / 6D in by hand. The excess is that of the loss over the best of a refined grid, as a share.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from scipy import optimize

from benchmarks.prediction import hand_made_posterior, numpy_m3
from m3bayes.data import simulated_runs
from m3bayes.decision import risk
from m3bayes.decision.cost import six_nd
from m3bayes.decision.faces import Face, Regime, faces
from m3bayes.decision.optimize import Optima, Surface, best, each_regime, optima_by_regime
from m3bayes.decision.risk import Risk
from m3bayes.decision.space import space
from m3bayes.laws import chinchilla, m3
from m3bayes.laws.law import Law

U = 4e5
TARGET = {"chinchilla": {"seconds": 1.0, "times_scipy": 100.0, "excess": 1e-9}}
OPEN = {"params": (0.0, math.inf), "tokens": (0.0, math.inf), "epochs": (0.0, math.inf)}


def budgets() -> np.ndarray:
    return np.geomspace(0.1, 30.0, 8) * simulated_runs().compute.max()


def problem(law: Law, compute: float) -> tuple[Surface, Mapping[str, Sequence[Face]]]:
    only_target = law.name == "chinchilla"
    with jax.enable_x64(True):
        asked = space(
            simulated_runs(),
            law,
            compute=compute,
            target_tokens=U,
            cost=six_nd(),
            bounds=OPEN if only_target else {},
            freeze={"target_ratio": 1.0} if only_target else {},
        )
        return Surface(law, asked.cost), faces(asked)[0]


def least(found: Mapping[str, Optima]) -> np.ndarray:
    """(draw,) smallest losses of all regimes."""
    return np.min([optimum.loss for optimum in found.values()], axis=0)


def ours(law: Law, c: Mapping[str, np.ndarray]) -> np.ndarray:
    """(budget, draw) smallest losses, from the request on."""
    losses = []
    for compute in budgets():
        surface, parts = problem(law, float(compute))
        losses.append(least(optima_by_regime(surface, c, {}, parts)))
    return np.array(losses)


def risks(limit: float) -> tuple[Risk, ...]:
    """Every shipped risk; ``limit`` is the loss that one of them asks to stay below."""
    tails = (risk.quantile, risk.cvar, risk.regret_quantile, risk.regret_cvar)
    return (risk.mean(), *(tail(0.9) for tail in tails), risk.probability_of(limit))


def of_smallest_risk(law: Law, c: Mapping[str, np.ndarray], asked: Risk) -> np.ndarray:
    """(budget,) the smallest risk of one recipe for all draws, from the request on."""
    smallest = []
    for compute in budgets():
        surface, parts = problem(law, float(compute))
        found = optima_by_regime(surface, c, {}, parts)

        def solve(regime: Regime, surface=surface, parts=parts, found=found) -> float:
            starts = [np.median(points, axis=0) for points in found[regime].points]
            return best(surface, asked, c, {}, regime, parts[regime], starts, least(found)).risk

        smallest.append(min(each_regime(parts, solve).values()))
    return np.array(smallest)


def scipy_slsqp(c: Mapping[str, float], compute: float) -> float:
    def loss(x: np.ndarray) -> float:
        N, D = np.exp(x)
        return c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D ** -c["beta"]

    start = np.full(2, 0.5 * math.log(compute / 6))
    within = {"type": "ineq", "fun": lambda x: math.log(compute / 6) - x[0] - x[1]}
    return float(
        optimize.minimize(loss, start, method="SLSQP", constraints=[within], options={"ftol": 1e-12}).fun
    )


def scipy_bounded(c: Mapping[str, float], compute: float) -> float:
    E, A, B, alpha, beta = (c[name] for name in ("E", "A", "B", "alpha", "beta"))

    def loss(log_D: float) -> float:
        return E + A * (compute / 6) ** -alpha * math.exp(alpha * log_D) + B * math.exp(-beta * log_D)

    ends = (0.0, math.log(compute / 6))
    return float(optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).fun)


def scipy_m3(c: Mapping[str, float], compute: float) -> float:
    """SLSQP over log N, log k, log r and log r_f from one start a regime: no corners, no second optimum."""
    runs = simulated_runs()
    shares = runs.last_stage_share[runs["final_ratio"] > runs["target_ratio"]]
    columns = ("params", "epochs", "target_ratio", "final_ratio")
    bounds = [tuple(np.log([runs[name].min(), runs[name].max()])) for name in columns]

    def loss(x: np.ndarray) -> float:
        N, k, r, r_f = np.exp(x)
        recipe = {"params": N, "target_tokens": U, "epochs": k, "target_ratio": r, "final_ratio": r_f}
        return float(numpy_m3(c, recipe))

    def D(x: np.ndarray) -> float:
        return x[1] - x[2] + math.log(U)

    budget = [
        lambda x: math.log(compute / 6) - x[0] - D(x),
        lambda x: math.log(runs.tokens.max()) - D(x),
        lambda x: 1 - math.exp(D(x)) * (1 - math.exp(x[2])) / runs.source_tokens.max(),
    ]
    two_stages = [
        lambda x: x[2] - x[3] - math.log(shares.min()),
        lambda x: math.log(shares.max()) - x[2] + x[3],
    ]
    least = math.inf
    for r_ends, further in (((0.0, 0.0), []), (bounds[2], [lambda x: x[2] - x[3]]), (bounds[2], two_stages)):
        ends = [*bounds[:2], r_ends, bounds[3] if r_ends != (0.0, 0.0) else r_ends]
        kind = "eq" if len(further) == 1 else "ineq"
        constraints = [{"type": "ineq", "fun": f} for f in budget] + [
            {"type": kind, "fun": f} for f in further
        ]
        start = np.array([sum(pair) / 2 for pair in ends])
        found = optimize.minimize(loss, start, method="SLSQP", bounds=ends, constraints=constraints)
        if found.success:
            least = min(least, float(found.fun))
    return least


def refined_grid(c: Mapping[str, np.ndarray], compute: float) -> np.ndarray:
    """(draw,) Chinchilla's smallest loss over grids of log D, each ten times finer about the last one's best."""
    low, high = np.zeros(len(c["E"])), np.full(len(c["E"]), math.log(compute / 6))
    steps = np.linspace(0, 1, 41)[:, None]
    best = np.full(len(c["E"]), np.inf)
    for _ in range(9):
        log_D = low + steps * (high - low)
        N = compute / 6 / np.exp(log_D)
        loss = c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * np.exp(-c["beta"] * log_D)
        best = np.minimum(best, loss.min(axis=0))
        centre, half = log_D[loss.argmin(axis=0), np.arange(len(best))], (high - low) / 20
        low, high = centre - half, centre + half
    return best


def refined_risk_grid(c: Mapping[str, np.ndarray], compute: float, asked: Risk, low: np.ndarray) -> float:
    """Chinchilla's smallest risk of one recipe, over grids as in :func:`refined_grid`, the first one of 401 points.
    ``low`` (draw,) are the draws' own smallest losses."""
    ends, smallest = (0.0, math.log(compute / 6)), math.inf
    of_all = jax.jit(jax.vmap(asked))
    for points in (401, *(41,) * 8):
        log_D = np.linspace(*ends, points)[:, None]
        N = compute / 6 / np.exp(log_D)
        loss = c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * np.exp(-c["beta"] * log_D)
        with jax.enable_x64(True):
            values = np.asarray(of_all(loss - (low if asked.of_regret else 0.0)))
        smallest = min(smallest, float(values.min()))
        centre, half = float(log_D[values.argmin(), 0]), (ends[1] - ends[0]) / (points - 1) * 2
        ends = (max(0.0, centre - half), min(math.log(compute / 6), centre + half))
    return smallest


def timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def measure_risks(law: Law, draws: int, repeats: int) -> list[dict]:
    c = hand_made_posterior(law, draws).coefficients
    low = ours(law, c)
    rows = []
    # about half of the draws can stay below this limit at the middle budget
    for asked in risks(float(np.median(low[len(low) // 2]))):
        first, smallest = timed(lambda asked=asked: of_smallest_risk(law, c, asked))
        seconds = [timed(lambda asked=asked: of_smallest_risk(law, c, asked))[0] for _ in range(repeats)]
        row = {
            "law": law.name,
            "risk": asked.name,
            "seconds": statistics.median(seconds),
            "first_call_seconds": first,
        }
        if law.name == "chinchilla":
            grids = [
                refined_risk_grid(c, float(compute), asked, of_draws)
                for compute, of_draws in zip(budgets(), low, strict=True)
            ]
            # in the loss's unit: a regret or a probability may be 0
            row["excess_over_refined_grid"] = float(np.max(smallest - grids))
            row["target"] = {
                "seconds": TARGET["chinchilla"]["seconds"],
                "excess": TARGET["chinchilla"]["excess"],
            }
        rows.append(row)
    return rows


def measure(law: Law, draws: int, repeats: int, peer_optima: int) -> dict:
    c = hand_made_posterior(law, draws).coefficients
    total = draws * len(budgets())

    first, loss = timed(lambda: ours(law, c))
    seconds = statistics.median(timed(lambda: ours(law, c))[0] for _ in range(repeats))
    some = np.random.default_rng(0).integers([len(budgets()), draws], size=(peer_optima, 2))
    result = {"law": law.name, "optima": total, "seconds": seconds, "first_call_seconds": first}
    peers = {"m3": {"scipy_slsqp": scipy_m3}}
    peers["chinchilla"] = {"scipy_slsqp": scipy_slsqp, "scipy_minimize_scalar": scipy_bounded}
    for name, peer in peers[law.name].items():
        jobs = [({key: float(v[d]) for key, v in c.items()}, float(budgets()[b])) for b, d in some]
        taken, theirs = timed(lambda peer=peer, jobs=jobs: np.array([peer(*job) for job in jobs]))
        above = theirs / loss[some[:, 0], some[:, 1]] - 1
        result[f"{name}_seconds"] = taken / peer_optima * total
        result[f"{name}_over_ours"] = taken / peer_optima * total / seconds
        result[f"{name}_excess"] = float(np.max(above[np.isfinite(above)]))
        result[f"{name}_worse_by_1e-6"] = float(np.mean(~(above < 1e-6)))
    if law.name == "chinchilla":
        grids = np.array([refined_grid(c, float(compute)) for compute in budgets()])
        result["excess_over_refined_grid"] = float(np.max(loss / grids - 1))
        result["target"] = TARGET["chinchilla"]
    return result


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optima", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--peer-optima", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args(argv)
    print(f"P6: optima of {given.draws} draws at {len(budgets())} budgets, {os.cpu_count()} cores")
    print(f"{'law':<12}{'s':>8}{'first s':>9}{'excess':>10}  peers: s (ratio), share worse by > 1e-6")
    results = []
    for law in (chinchilla(), m3()):
        r = measure(law, given.draws, given.repeats, given.peer_optima)
        results.append(r)
        peers = "; ".join(
            f"{name} {r[f'{name}_seconds']:.1f} ({r[f'{name}_over_ours']:.0f}x), {r[f'{name}_worse_by_1e-6']:.0%}"
            for name in ("scipy_slsqp", "scipy_minimize_scalar")
            if f"{name}_seconds" in r
        )
        excess = f"{r['excess_over_refined_grid']:.1e}" if "excess_over_refined_grid" in r else "-"
        print(
            f"{r['law']:<12}{r['seconds']:>8.2f}{r['first_call_seconds']:>9.1f}{excess:>10}  {peers}",
            flush=True,
        )
    print(f"{'law':<12}{'risk':<22}{'s':>8}{'first s':>9}{'excess':>10}")
    of_risks = []
    for law, repeats in ((chinchilla(), given.repeats), (m3(), 1)):
        for r in measure_risks(law, given.draws, repeats):
            of_risks.append(r)
            excess = f"{r['excess_over_refined_grid']:.1e}" if "excess_over_refined_grid" in r else "-"
            print(
                f"{r['law']:<12}{r['risk']:<22}{r['seconds']:>8.2f}{r['first_call_seconds']:>9.1f}{excess:>10}",
                flush=True,
            )
    result = {"laws": results, "risks": of_risks}
    print(json.dumps({"P6": result}))
    return result


if __name__ == "__main__":
    main()
