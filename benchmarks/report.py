"""What is common to the benchmarks: the machine, and one table of all results.

    python -m benchmarks.report

writes benchmarks/results/README.md from the JSON files beside it and prints it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m3bayes.files import write_text

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("m3bayes", "jax", "numpyro", "numpy", "scipy", "nutpie", "pymc", "numba")


class Row(NamedTuple):
    """A line of the table; ``met`` is None where there is no target."""

    figure: str
    what: str
    target: str
    measured: str
    beside: str
    met: bool | None


def spread_of(seconds: Sequence[float] | np.ndarray) -> list[float]:
    """Smallest and largest."""
    return [float(np.min(seconds)), float(np.max(seconds))]


def machine() -> dict[str, str]:
    """Where and with what the figures were made."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": date.today().isoformat(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def keep(name: str, figure: str, result: object, seconds: float) -> None:
    """Write the result of benchmark module ``name`` with the machine it was made on."""
    RESULTS.mkdir(exist_ok=True)
    record = {"figure": figure, "machine": machine(), "benchmark_seconds": seconds, "result": result}
    write_text(RESULTS / f"{name}.json", json.dumps(record, indent=1) + "\n")


def write() -> str:
    """The table of all kept results, also written to benchmarks/results/README.md."""
    kept = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and record.get("figure") in ROWS:
            kept[record["figure"]] = record
    rows = [row for figure in sorted(kept) for row in ROWS[figure](kept[figure]["result"])]
    if "P8" not in kept:
        rows += _accelerator_rows({})
    text = "\n".join(
        [
            "# Speed, beside the tools one would otherwise use",
            "",
            "Written by `make bench`. Both sides of a ratio were timed one after the other in one run; how is in the",
            "text of each module of `benchmarks/`. Times are wall time; medians where a figure was repeated.",
            "",
            "| | what | target | measured | beside it | met |",
            "|---|---|---|---|---|---|",
            *(f"| {' | '.join((*row[:5], {True: 'yes', False: 'no', None: ''}[row.met]))} |" for row in rows),
            "",
            *_where(kept),
        ]
    )
    write_text(RESULTS / "README.md", text + "\n")
    return text


def _where(kept: dict) -> list[str]:
    """One paragraph for every machine and day."""
    by_place: dict[str, list[str]] = {}
    for figure, record in sorted(kept.items()):
        place = ", ".join(
            f"{value}" if name in ("date", "processor", "system") else f"{name} {value}"
            for name, value in record["machine"].items()
        )
        by_place.setdefault(place, []).append(figure)
    return [f"{', '.join(figures)}: {place}." for place, figures in by_place.items()]


def _processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


# ---- one function a figure ---------------------------------------------------------------------


def _posterior_rows(result: dict) -> list[Row]:
    by_name = {row["sampler"]: row for row in result["samplers"]}
    ours = by_name["m3bayes, fit"]
    alone = by_name["m3bayes, sampler"]
    default = by_name["numpyro, default"]
    nutpie, blackjax, pymc = (
        by_name[name] for name in ("nutpie, low rank", "blackjax, best", "PyMC, default")
    )
    best = min((r for n, r in by_name.items() if n.startswith("numpyro, best")), key=lambda r: r["seconds"])

    def beside(row: dict) -> str:
        return (
            f"{row['seconds']:.2f} s, {row['ess_a_second']:,.0f} ESS/s, "
            f"{row['leapfrogs_a_draw']:.1f} leapfrogs a draw"
        )

    size = f"posterior, {result['runs']} runs, {result['chains']} x {result['draws']} draws"
    seconds, ess = result["target_seconds"], result["target_ess_a_second"]
    rows = []
    for label, row in (("whole fit()", ours), ("sampler alone", alone)):
        met = row["seconds"] <= seconds and row["ess_a_second"] >= ess
        rows.append(Row("P1", f"{size}: {label}", f"<= {seconds} s, >= {ess:,} ESS/s", beside(row), "", met))
    for label, row, least in (
        (best["sampler"], best, 10.0),
        ("numpyro, default", default, 100.0),
        ("nutpie, low rank", nutpie, 1.0),
        ("blackjax, best", blackjax, None),
        ("PyMC, default", pymc, None),
    ):
        of_fit = ours["ess_a_second"] / row["ess_a_second"]
        of_sampler = alone["ess_a_second"] / row["ess_a_second"]
        rows.append(
            Row(
                "P1",
                f"ESS/s over that of {label}",
                "" if least is None else f">= {least:g}x",
                f"{of_fit:.1f}x whole fit(), {of_sampler:.1f}x sampler alone",
                f"{beside(row)}, median of {row['repeats']}",
                None if least is None else of_fit >= least,
            )
        )
    return rows


def _cold_rows(result: list[dict]) -> list[Row]:
    return [
        Row(
            "P2",
            f"process start to {row['draws']} draws, {row['law']}, {row['cache']} cache",
            f"<= {row['target_seconds']:g} s",
            f"{row['seconds']:.1f} s ({row['import']:.1f} import, {row['fit']:.1f} fit)",
            f"{row['attempts']} attempt(s), {row['verdict']}",
            row["seconds"] <= row["target_seconds"],
        )
        for row in result
    ]


def _point_fit_rows(result: dict) -> list[Row]:
    speed, worse = result["speed"], result["objectives"]
    return [
        Row(
            "P3",
            f"point fit, {speed['runs']} runs, warm",
            f"<= {speed['target_seconds'] * 1e3:.0f} ms, >= {speed['target_ratio']}x",
            f"{speed['seconds'] * 1e3:.0f} ms, {speed['scipy_seconds'] / speed['seconds']:,.0f}x",
            f"scipy, {speed['scipy_starts']} starts: {speed['scipy_seconds']:.0f} s, scaled up from "
            f"{speed['scipy_starts_timed']}",
            speed["seconds"] <= speed["target_seconds"]
            and speed["scipy_seconds"] / speed["seconds"] >= speed["target_ratio"],
        ),
        *(
            Row(
                "P3",
                f"objective never worse than scipy's by more than 1e-6, {row['tables']} {row['kind']} tables",
                "0 worse",
                f"{row['worse']} worse (by {row['largest_excess']:.1e} at most), {row['better']} better",
                row["scipy"],
                row["worse"] == 0,
            )
            for row in worse
        ),
    ]


def _prediction_rows(result: list[dict]) -> list[Row]:
    return [
        Row(
            "P5",
            f"{row['recipes']:,} recipes x {row['draws']} draws: mean, sd, 5 and 95 %, {row['law']}",
            f"<= {row['target_seconds']:g} s, <= {row['target_GiB']:g} GiB",
            f"{row['seconds']:.1f} s, {row['peak_GiB']:.2f} GiB",
            f"numpy {row['numpy_us_a_recipe']:.0f} us a recipe, {row['numpy_over_ours']:.1f}x ours",
            row["seconds"] <= row["target_seconds"] and row["peak_GiB"] <= row["target_GiB"],
        )
        for row in result
    ]


def _optimum_rows(result: dict) -> list[Row]:
    rows = []
    for row in result["laws"]:
        target, slsqp = row.get("target"), row["scipy_slsqp_over_ours"]
        measured = f"{row['seconds']:.2f} s, {slsqp:,.0f}x"
        worse = row["scipy_slsqp_worse_by_1e-6"]
        beside = f"scipy SLSQP {row['scipy_slsqp_seconds']:,.0f} s ({worse:.0%} worse by > 1e-6)"
        met = None
        if target:
            excess = row["excess_over_refined_grid"]
            measured += f", excess {excess:.1e}"
            beside += f"; one-dimensional minimize_scalar {row['scipy_minimize_scalar_seconds']:.1f} s"
            met = (
                row["seconds"] <= target["seconds"]
                and slsqp >= target["times_scipy"]
                and excess <= target["excess"]
            )
        wanted = f"<= {target['seconds']:g} s, >= {target['times_scipy']:g}x" if target else ""
        rows.append(
            Row("P6", f"{row['optima']:,} recipe optima, {row['law']}", wanted, measured, beside, met)
        )
    return rows + [_risk_row(row) for row in result["risks"]]


def _risk_row(row: dict) -> Row:
    what = f"the same and the recipe of the smallest risk at each budget, {row['law']}, {row['risk']}"
    measured, target = f"{row['seconds']:.2f} s", row.get("target")
    if not target:
        return Row("P6", what, "", measured, "", None)
    excess = row["excess_over_refined_grid"]
    met = row["seconds"] <= target["seconds"] and excess <= target["excess"]
    return Row("P6", what, f"<= {target['seconds']:g} s", f"{measured}, excess {max(excess, 0):.1e}", "", met)


def _map_rows(row: dict) -> list[Row]:
    return [
        Row(
            "map",
            f"regimes and threshold, {row['cells']} cells x {row['draws']} draws x 3 regimes, M3",
            f"<= {row['target_seconds']:g} s",
            f"{row['seconds']:.1f} s ({row['first_call_seconds']:.1f} s with compiling), "
            f"{row['moved']:.1%} of the draws have another regime than at the cell",
            f"every cell by itself: {row['seconds_a_cell'] * row['cells']:,.0f} s, scaled up from "
            f"{row['cells_searched']}",
            row["seconds"] <= row["target_seconds"],
        )
    ]


def _language_rows(result: dict) -> list[Row]:
    row = next(row for row in result["rows"] if row["languages"] == 20)
    low, high = row["ess_range"]
    peer = result["numpyro"]
    times = ", ".join(f"{each['languages']} languages {each['seconds']:.1f} s" for each in result["rows"])
    return [
        Row(
            "P7",
            f"pooled fit of 20 languages, {row['parameters']} parameters, all of it ({times})",
            ">= 110 ESS/s",
            f"{row['ess_per_second']:,.0f} ESS/s ({low:,.0f}-{high:,.0f})",
            f"numpyro, centred, dense: {peer['ess_per_second']:.1f} ESS/s",
            row["ess_per_second"] >= 110,
        )
    ]


def _many_rows(result: dict) -> list[Row]:
    rows = []
    for law in dict.fromkeys(row["law"] for row in result["many"]):
        of_law = [row for row in result["many"] if row["law"] == law]
        count = max(row["tables"] for row in of_law)
        most = {row["method"]: row["seconds"] for row in of_law if row["tables"] == count}
        few = {row["method"]: row["seconds"] for row in of_law if row["tables"] < count}
        beside = [
            f"loop of fit {most['loop of fit']:.2f} s",
            f"in batches {few['fit_many in batches']:.2f} s",
        ]
        if "numpyro" in few:
            beside.append(f"numpyro at its best {few['numpyro']:.2f} s")
        rows.append(
            Row(
                "many",
                f"fit_many of {count} tables, {law}, a table",
                "",
                f"{most['fit_many']:.2f} s; {most['fit_many, float32']:.2f} s with chains in float32; "
                f"{most['fit_many, folder']:.2f} s with each written to its file",
                ", ".join(beside),
                None,
            )
        )
    times = ", ".join(f"{row['runs']:,} runs {row['wall']:.1f} s" for row in result["growth"])
    rows.append(Row("many", "one fit against its runs, Chinchilla, 4 x 250 draws", "", times, "", None))
    times = ", ".join(
        f"{row['chains']} x {row['draws']} {row['wall']:.2f} s ({row['r_hat']})" for row in result["chains"]
    )
    rows.append(Row("many", "one fit against its chains, Chinchilla, 200 runs", "", times, "", None))
    return rows


def _calibration_rows(result: list[dict]) -> list[Row]:
    return [
        Row(
            "P4",
            f"SBC of 1000 simulations, chinchilla, {row['design']} (scaled up from {row['simulations']})",
            f"<= {row['target_seconds']:.0f} s",
            f"{row['seconds_for_1000']:.0f} s, none left out",
            ", ".join(f"{count} {verdict}" for verdict, count in row["fits"].items()),
            row["seconds_for_1000"] <= row["target_seconds"],
        )
        for row in result
    ]


def _package_rows(result: dict) -> list[Row]:
    one = result["point"]
    found = {row["method"]: row for row in result["intervals"]}

    def said(row: dict) -> str:
        return (
            f"{row['seconds']:.2f} s a table; {row['held']} of {row['tables']} hold the truth, median width "
            f"{row['width']:.4f}"
        )

    return [
        Row(
            "packages",
            "point fit, 200 runs, from 4500 starts",
            "",
            f"{one['seconds'] * 1e3:.0f} ms",
            f"chinchilla {one['chinchilla_seconds']:.0f} s, {one['ratio']:,.0f}x; its objective is "
            f"{one['chinchilla_excess']:+.1e} of ours",
            None,
        ),
        Row(
            "packages",
            "90 % interval of log loss at 10 x N and 10 x D, 4000 draws",
            "",
            said(found["m3bayes"]),
            f"simple-scaling-laws {said(found['simple-scaling-laws'])}",
            None,
        ),
    ]


def _accelerator_rows(result: dict) -> list[Row]:
    """Empty where no accelerator was measured."""
    device = result.get("device", {}).get("name", "one H200")
    figures = (
        ("calibration, chinchilla", "SBC of 10,000 data sets", 60),
        ("prediction, chinchilla", "1,000,000 recipes x 4000 draws", 2),
    )
    rows = []
    for name, what, most in figures:
        found = result.get(name)  # None where it was not begun in time
        measured = "" if found is None else f"{found['seconds']:.1f} s"
        beside = "" if result else "not measured: no accelerator was available"
        met = None if found is None else found["seconds"] <= most
        rows.append(Row("P8", f"{what} on {device}", f"<= {most} s", measured, beside, met))
    return rows


def _limit_rows(result: dict) -> list[Row]:
    rows = []
    for row in result["fits"]:
        rest = row["fit_seconds"] - row["mode_seconds"] - row["chains_seconds"]
        rows.append(
            Row(
                "limits",
                f"a fit of {row['law']}, {row['runs']} runs, 4 x 1000 draws: where the time goes",
                "",
                f"{row['fit_seconds']:.2f} s: mode {row['mode_seconds']:.2f}, "
                f"chains {row['chains_seconds']:.2f}, rest {rest:.2f}",
                f"chains are {row['chains_over_floor']:.1f} times the gradients of the draws kept, "
                f"{row['leapfrogs_a_draw']:.1f} a draw at {row['gradient_us']:.1f} us; a gradient is "
                f"{row['gradient_over_its_functions']:.1f} times its {row['functions_a_gradient']:,.0f} exponentials "
                "and logarithms",
                None,
            )
        )
    for row in result["predictions"]:
        what = f"a loss of one recipe and draw, {row['law']}, with mean, sd, 5 and 95 %"
        measured = f"{row['ns_a_loss']:.1f} ns"
        rows.append(
            Row(
                "limits",
                what,
                "",
                measured,
                f"{row['exponentials_a_loss']:.0f} exponentials on all cores",
                None,
            )
        )
    return rows


ROWS: dict[str, Callable[..., list[Row]]] = {
    "P1": _posterior_rows,
    "P2": _cold_rows,
    "P3": _point_fit_rows,
    "P4": _calibration_rows,
    "P5": _prediction_rows,
    "P6": _optimum_rows,
    "P7": _language_rows,
    "map": _map_rows,
    "many_fits": _many_rows,
    "limits": _limit_rows,
    "packages": _package_rows,
    "P8": _accelerator_rows,
}


if __name__ == "__main__":
    print(write())
