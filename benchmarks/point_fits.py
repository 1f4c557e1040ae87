"""P3: the Huber point fit of Chinchilla's law, beside scipy's L-BFGS-B from many starts.

    python -m benchmarks.point_fits [--tables 1000 --starts-timed 100 --real ../shared/data]

Prints two tables, then one line of JSON.

Speed: one simulated table of 200 runs, whose compiled program another table of the same size has warmed. scipy
does what the field does: the 4500 starts of Hoffmann et al. 2022, in logs of E, A and B, with analytic gradients
and default tolerances. A random part of the starts is timed and scaled up.

Objectives: tables simulated from m3bayes' prior (Student-t noise) over four kinds of design, and public tables
where there are any. Here scipy gets all help: N and D centred, the objective scaled, tight tolerances, and the
most promising starts of the grid, one for every pair of exponents at most. Its exponents are held within +-20, as
ours are. Each objective is worked out from the coefficients by the same few lines of numpy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from scipy import optimize

from benchmarks.report import spread_of
from m3bayes.inference.noise import student_t
from m3bayes.inference.point_fit import point_fit
from m3bayes.inference.simulate import simulate
from m3bayes.laws import chinchilla
from m3bayes.runs import Runs, read_runs, runs_from_frame

DELTA = 1e-3
# the grid of Hoffmann et al. 2022, appendix D: logs of E, A, B, then alpha and beta
GRID = np.array(
    list(
        itertools.product(
            (-1.0, -0.5, 0.0, 0.5, 1.0), range(0, 30, 5), range(0, 30, 5),
            (0.0, 0.5, 1.0, 1.5, 2.0), (0.0, 0.5, 1.0, 1.5, 2.0),
        )
    ),
    float,
)  # fmt: skip
BOUNDS = [(-100.0, 100.0)] * 3 + [(-20.0, 20.0)] * 2
TIGHT = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 2000, "maxfun": 4000}
KINDS = ("wide", "grid", "proportional", "narrow")
REAL = ("size_and_tokens.csv", "data_constrained.csv", "two_phase_code_web.csv")
TARGET_SECONDS, TARGET_RATIO, TOLERANCE = 0.05, 500, 1e-6


class Objective:
    """Value and gradient of the sum of Huber losses over delta at (log E, log A, log B, alpha, beta)."""

    def __init__(self, n: np.ndarray, d: np.ndarray, y: np.ndarray, scale: float = 1.0):
        self.n, self.d, self.y, self.scale = n, d, y, scale

    def __call__(self, q: np.ndarray) -> tuple[float, np.ndarray]:
        e, a, b, alpha, beta = q
        terms = np.stack([np.full_like(self.n, e), a - alpha * self.n, b - beta * self.d])
        largest = terms.max(axis=0)
        shares = np.exp(terms - largest)
        total = shares.sum(axis=0)
        shares /= total
        residual = self.y - largest - np.log(total)
        size = np.abs(residual)
        value = np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2)).sum()
        psi = -np.clip(residual, -DELTA, DELTA)
        E, A, B = shares @ psi
        gradient = np.array([E, A, B, -(psi * shares[1]) @ self.n, -(psi * shares[2]) @ self.d])
        return value * self.scale, gradient * self.scale


def logs_of(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.log(runs["params"]), np.log(runs["target_tokens"] * runs["epochs"]), np.log(runs["loss"])


def objective_at(c: Mapping[str, float], runs: Runs) -> float:
    """The sum of Huber losses at coefficients in the table's units."""
    n, d, y = logs_of(runs)
    q = np.array([*(np.log(max(c[name], 1e-300)) for name in "EAB"), c["alpha"], c["beta"]])
    return float(Objective(n, d, y)(q)[0])


def scipy_from_grid(runs: Runs, starts: np.ndarray) -> tuple[float, float]:
    """Seconds and best objective, the field's way."""
    target = Objective(*logs_of(runs))
    best, begun = np.inf, time.perf_counter()
    for start in starts:
        with np.errstate(all="ignore"):
            found = optimize.minimize(target, start, jac=True, method="L-BFGS-B")
        best = min(best, found.fun) if np.isfinite(found.fun) else best
    return time.perf_counter() - begun, float(best)


def scipy_at_its_best(runs: Runs, starts: int) -> float:
    """The best objective that scipy finds with all help."""
    n, d, y = logs_of(runs)
    n0, d0, y0 = n.mean(), d.mean(), np.median(y)
    target = Objective(n - n0, d - d0, y - y0, 1 / DELTA)
    grid = GRID.copy()
    grid[:, 0] -= y0
    grid[:, 1] -= y0 + grid[:, 3] * n0
    grid[:, 2] -= y0 + grid[:, 4] * d0
    with np.errstate(all="ignore"):
        values = np.array([target(q)[0] for q in grid])
    # one start for every pair of exponents, then the best of those
    pairs = pd.DataFrame(grid).assign(value=values).sort_values("value").drop_duplicates([3, 4]).index
    best = np.inf
    for start in grid[pairs[:starts]]:
        with np.errstate(all="ignore"):
            found = optimize.minimize(
                target, start, jac=True, method="L-BFGS-B", bounds=BOUNDS, options=TIGHT
            )
        best = min(best, found.fun) if np.isfinite(found.fun) else best
    return float(best) * DELTA


def design(kind: str, rng: np.random.Generator) -> Runs:
    """Recipes of one epoch over target text alone."""
    rows = int(rng.choice([20, 30, 60, 100]))

    def within(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), rows))

    if kind == "grid":
        N, D = (a.ravel() for a in np.meshgrid(1e7 * 4.0 ** np.arange(5), 1e9 * 2.0 ** np.arange(6)))
    elif kind == "narrow":
        N, D = within(1e8, 1e9), within(3e9, 3e10)
    else:
        N, D = within(1e7, 5e9), within(2e8, 1e11)
        if kind == "proportional":
            D = 20 * N * np.exp(0.3 * rng.standard_normal(rows))
    columns = {"params": N, "target_tokens": D, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
    return runs_from_frame(pd.DataFrame(columns | {"loss": 3.0}))


def simulated(count: int, first: int = 0) -> Iterator[tuple[str, Runs]]:
    """Tables with coefficients and noise from the prior, the kinds of design in turn."""
    for number in range(first, first + count):
        kind = KINDS[number % len(KINDS)]
        recipes = design(kind, np.random.default_rng(number))
        yield kind, simulate(chinchilla(), recipes, jax.random.key(number), noise=student_t()).runs


def real(folder: Path) -> Iterator[tuple[str, Runs]]:
    for name in REAL:
        if (folder / name).exists():
            yield "public", read_runs(folder / name)
    if (folder / "data_constrained.csv").exists():
        yield "public", read_runs(folder / "data_constrained.csv", where="in_authors_fit == 1")


def measure_speed(starts_timed: int, repeats: int = 7) -> dict:
    """Both on a simulated table of 200 runs."""
    from benchmarks.posterior import data_set

    begun = time.perf_counter()
    point_fit(data_set(0), chinchilla())
    first = time.perf_counter() - begun
    runs, seconds = data_set(1), []
    for _ in range(repeats):
        begun = time.perf_counter()
        ours = point_fit(runs, chinchilla())
        seconds.append(time.perf_counter() - begun)
    some = np.random.default_rng(0).choice(len(GRID), starts_timed, replace=False)
    scipy_seconds, best = scipy_from_grid(runs, GRID[some])
    return {
        "runs": len(runs),
        "seconds": float(np.median(seconds)),
        "seconds_spread": spread_of(seconds),
        "first_seconds": first,
        "scipy_starts": len(GRID),
        "scipy_starts_timed": starts_timed,
        "scipy_seconds": scipy_seconds * len(GRID) / starts_timed,
        "excess_over_scipy": objective_at(ours.coefficients, runs) / best - 1,
        "target_seconds": TARGET_SECONDS,
        "target_ratio": TARGET_RATIO,
    }


def compare(kind: str, tables: Iterator[tuple[str, Runs]], starts: int) -> dict:
    """How often either side finds the better optimum."""
    excess, names = [], []
    for number, (name, runs) in enumerate(tables):
        ours = objective_at(point_fit(runs, chinchilla()).coefficients, runs)
        excess.append(ours / scipy_at_its_best(runs, starts) - 1)
        names.append(f"{number} ({name})")
        if excess[-1] > TOLERANCE:
            print(f"  worse: {kind} table {names[-1]}, {len(runs)} runs, by {excess[-1]:.1e}", flush=True)
    values = np.array(excess)
    return {
        "kind": kind,
        "tables": len(values),
        "worse": int((values > TOLERANCE).sum()),
        "better": int((values < -TOLERANCE).sum()),
        "largest_excess": float(max(values.max(), 0.0)),
        "worse_tables": [name for name, value in zip(names, values, strict=True) if value > TOLERANCE],
        "scipy": f"L-BFGS-B from the {starts} most promising starts of the grid, tight tolerances",
    }


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.point_fits", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--real-starts", type=int, default=25)
    parser.add_argument("--starts-timed", type=int, default=100)
    parser.add_argument("--real", type=Path, default=Path("../shared/data"))
    given = parser.parse_args(argv)
    speed = measure_speed(given.starts_timed)
    print(
        f"P3: {speed['seconds'] * 1e3:.1f} ms warm ({speed['first_seconds']:.1f} s with compilation), "
        f"scipy {speed['scipy_seconds']:.1f} s for {speed['scipy_starts']} starts "
        f"(scaled up from {speed['scipy_starts_timed']}): {speed['scipy_seconds'] / speed['seconds']:,.0f}x, "
        f"excess over the best of those {speed['excess_over_scipy']:.1e}",
        flush=True,
    )
    objectives = [compare("simulated", simulated(given.tables), given.starts)]
    if found := list(real(given.real)):
        objectives.append(compare("public", iter(found), given.real_starts))
    for row in objectives:
        print(
            f"{row['kind']:<10}{row['tables']:>6} tables: {row['worse']} worse than scipy by more than "
            f"{TOLERANCE:g}, {row['better']} better, largest excess {row['largest_excess']:.1e}"
        )
    result = {"speed": speed, "objectives": objectives}
    print(json.dumps({"P3": result}))
    return result


if __name__ == "__main__":
    main()
