"""P8: what an accelerator does in ten minutes: calibration, many fits, predictions. For a machine that has one.

    python -m benchmarks.gpu [--simulations 10000 --tables 512 --recipes 1000000 --minutes 10]

Prints each figure as it is measured, then one line of JSON with the name of the device; that of an accelerator is also
kept in benchmarks/results/gpu.json. Figures that are not begun within the time are null. On a machine without an
accelerator the processor goes through it, and the name says so; give small numbers there. Needs jax, numpyro, optax and
pandas, with what they bring along, and this folder: run it from the root of the repository. jaxtyping, whose names
annotate arrays, may be missing.

- "calibration": `calibrate` of Chinchilla's law on 200 recipes, 4 x 1000 draws; target 10 000 data sets in 60 s on
  one H200.
- "many_fits": `fit_many` on the devices, in float64 and in float32, and a loop of `fit` on the processor.
- "short_chains": a few tables with 4 chains of 1000 draws each and with 128 of 32, which make a fifth of the
  transitions one after the other and six times as many in all.
- "prediction": mean, sd, 5 and 95 % of 10^6 recipes over 4000 draws; target 2 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import jax


class _Annotation:
    """Float[np.ndarray, "draw run"] is np.ndarray."""

    def __class_getitem__(cls, of: tuple[type, str]) -> type:
        return of[0]


if find_spec("jaxtyping") is None:
    stand_in = ModuleType("jaxtyping")
    stand_in.__getattr__ = lambda name: _Annotation  # type: ignore[method-assign]
    sys.modules["jaxtyping"] = stand_in

import m3bayes as m3  # noqa: E402
from benchmarks.many_fits import tables_of, timed  # noqa: E402
from benchmarks.posterior import data_set  # noqa: E402
from benchmarks.prediction import CI, hand_made_posterior, random_recipes  # noqa: E402
from benchmarks.report import keep  # noqa: E402
from m3bayes.inference import noise  # noqa: E402
from m3bayes.inference.jobs import on_processor  # noqa: E402
from m3bayes.inference.precision import Precision  # noqa: E402
from m3bayes.laws.law import Law  # noqa: E402

FEW = 20  # tables for the processor's loop
FEWEST = 8  # tables for short chains


def prediction(law: Law, recipes: int) -> dict:
    post, table = hand_made_posterior(law, 4000), random_recipes(recipes)
    first, _ = timed(m3.predict, post, table, ci=CI, new_run=False)
    seconds, _ = timed(m3.predict, post, table, ci=CI, new_run=False)
    return {"recipes": recipes, "draws": 4000, "seconds": seconds.wall, "first_call_seconds": first.wall}


def many_fits(law: Law, count: int) -> dict:
    tables, shared = tables_of(law, count), {"noise": noise.normal()}
    few = tables[:FEW]

    def loop() -> None:
        for table in few:
            m3.fit(table, law, **shared, allow="flagged", progress=False)

    with on_processor():
        loop()
        loop_seconds, _ = timed(loop)

    def fit_all(precision: Precision) -> m3.Fits:
        return m3.fit_many(
            tables, law, **shared, precision=precision, log_likelihood=False, devices=jax.local_devices()
        )

    first, _ = timed(fit_all, "float64")
    seconds, fits = timed(fit_all, "float64")
    timed(fit_all, "float32")
    narrow, narrow_fits = timed(fit_all, "float32")
    return {
        "tables": count,
        "seconds_a_table": seconds.wall / count,
        "first_call_seconds": first.wall,
        "float32_seconds_a_table": narrow.wall / count,
        "processor_seconds_a_table": loop_seconds.wall / len(few),
        "verdicts": fits.table["verdict"].value_counts().to_dict(),
        "float32_attempts": narrow_fits.table["attempts"].value_counts().to_dict(),
    }


def short_chains(law: Law) -> dict:
    tables, found = tables_of(law, FEWEST), {}
    for chains, draws in ((4, 1000), (128, 32)):
        settings = {"noise": noise.normal(), "chains": chains, "draws": draws, "log_likelihood": False}
        for _ in range(2):  # the first compiles
            seconds, fits = timed(m3.fit_many, tables, law, **settings, devices=jax.local_devices())
        verdicts = fits.table["verdict"].value_counts().to_dict()
        found[f"{chains} x {draws}"] = {"seconds": seconds.wall, "verdicts": verdicts}
    return {"tables": FEWEST, **found}


def calibration(law: Law, simulations: int) -> dict:
    seconds, found = timed(
        m3.calibrate,
        law,
        data_set(0),
        simulations=simulations,
        noise=noise.normal(),
        devices=jax.local_devices(),
    )
    return {
        "simulations": simulations,
        "seconds": seconds.wall,
        "verdict": found.verdict,
        "fits": found.fits["verdict"].value_counts().to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--tables", type=int, default=512)
    parser.add_argument("--recipes", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    chinchilla, law = m3.laws.chinchilla(), m3.laws.m3()
    figures: dict[str, Callable[[], dict]] = {
        "prediction, chinchilla": lambda: prediction(chinchilla, given.recipes),
        "prediction, m3": lambda: prediction(law, given.recipes),
        "many_fits, chinchilla": lambda: many_fits(chinchilla, given.tables),
        "calibration, chinchilla": lambda: calibration(chinchilla, given.simulations),
        "short_chains, chinchilla": lambda: short_chains(chinchilla),
        "many_fits, m3": lambda: many_fits(law, given.tables // 4),
    }
    devices = jax.local_devices()
    print(
        f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), jax {jax.__version__}",
        flush=True,
    )
    begun, result = time.perf_counter(), {}
    for name, measure in figures.items():
        late = time.perf_counter() - begun > 60 * given.minutes
        result[name] = None if late else measure()
        print(name, result[name], flush=True)
    device = {"name": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)}
    found = {"device": device, **result}
    if devices[0].platform != "cpu":  # for the table that `python -m benchmarks.report` writes
        keep("gpu", "P8", found, time.perf_counter() - begun)
    print(json.dumps({"P8": found}))


if __name__ == "__main__":
    main()
