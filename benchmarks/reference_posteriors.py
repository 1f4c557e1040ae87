"""Reference posteriors: long runs of plain `numpyro.infer.MCMC`, for tests to compare `fit` with.

    python -m benchmarks.reference_posteriors [NAME ...]

NUTS samples the sites of the same NumPyro model, each on the real line as NumPyro itself puts it there, from starts
drawn from the prior. With `fit` it shares the model alone: not the coordinates, the mode, the frame, the sampler or
the way back to the table's units. Writes NAME.json into data/reference/, beside the table NAME.csv of its runs, and
only where every R-hat is at most 1.01.

Compared are the coefficients as the priors have them (see `m3bayes/laws/law.py`: in the table's units the tails of A
and B are too long for a mean), sigma, nu, and `log loss beyond`: the surface at ten times the largest N and U, which
needs them all together to be right.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import m3bayes as m3
from benchmarks.posterior import data_set
from m3bayes.files import write_text
from m3bayes.inference.data import canonical
from m3bayes.inference.diagnostics import bulk_ess, r_hat, tail_ess
from m3bayes.inference.model import model
from m3bayes.inference.noise import Noise, normal, student_t
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, read_runs

FOLDER = Path(__file__).parent.parent / "data" / "reference"
LARGEST_R_HAT = 1.01
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
COLUMNS = ["params", "target_tokens", "epochs", "target_ratio", "final_ratio", "loss"]
PACKAGES = ("m3bayes", "jax", "numpyro", "numpy", "arviz-stats")

Draws = Mapping[str, np.ndarray]  # {quantity: (chain, draw)}


class Reference(NamedTuple):
    """A posterior and how long it is sampled; chains of ``draws`` draws."""

    law: Law
    noise: Noise
    runs: Callable[[], Runs]
    target_accept: float
    warmup: int
    draws: int
    chains: int = 4
    seed: int = 0


def one_language() -> Runs:
    return m3.demo_runs().where("target_ratio == 1")


REFERENCES = {
    "chinchilla": Reference(m3.laws.chinchilla(), normal(), lambda: data_set(0), 0.9, 1000, 5000),
    "data_constrained": Reference(m3.laws.data_constrained(), student_t(), one_language, 0.98, 2000, 8000),
    "m3": Reference(m3.laws.m3(), student_t(), m3.demo_runs, 0.98, 2000, 6000),
}


def table(name: str) -> Runs:
    """The runs of a reference, as they were when it was made."""
    return read_runs(FOLDER / f"{name}.csv")


def as_priors_have_them(law: Law, draws: Draws, constants: Mapping[str, float]) -> Draws:
    """Reference-scaled coefficients from those in the table's units."""
    return {name: values / _unit(law, name, draws, constants) for name, values in draws.items()}


def in_table_units(law: Law, sites: Draws, constants: Mapping[str, float]) -> Draws:
    return {name: values * _unit(law, name, sites, constants) for name, values in sites.items()}


def _unit(law: Law, name: str, draws: Draws, constants: Mapping[str, float]) -> np.ndarray | float:
    """What one unit of a reference-scaled coefficient is in the table's units; exponents are the same in both."""
    if name not in law.names:
        return 1.0
    unit = constants["L"] if law[name].of_loss else 1.0
    for quantity, power in law[name].at.items():
        exponent = draws[power.lstrip("-")]
        unit = unit * constants[quantity] ** (exponent if power.startswith("-") else -exponent)
    return unit


def log_loss_beyond(law: Law, draws: Draws, runs: Runs) -> np.ndarray:
    """(chain, draw) log loss of the surface at ten times the largest N and U of the runs, their medians otherwise."""
    recipe = {name: float(np.median(runs[name])) for name in law.columns if name in runs.columns}
    recipe |= {name: 10 * float(runs[name].max()) for name in ("params", "target_tokens")}
    over_draws = jax.vmap(jax.vmap(law.log_loss, (0, None)), (0, None))
    with jax.enable_x64(True):
        return np.asarray(jax.jit(over_draws)({name: draws[name] for name in law.names}, recipe))


def compared(law: Law, draws: Draws, constants: Mapping[str, float], runs: Runs) -> Draws:
    """The quantities that are compared, from draws in the table's units."""
    beyond = log_loss_beyond(law, draws, runs)
    return {**as_priors_have_them(law, draws, constants), "log loss beyond": beyond}


def statistics(draws: Draws) -> dict[str, dict[str, tuple[float, float]]]:
    """{quantity: {"mean", "sd", "q05", "q50", "q95": (value, its Monte Carlo standard error)}}"""
    from arviz_stats.base.array import array_stats  # slow to import

    found = {}
    for name, values in draws.items():
        found[name] = {
            "mean": (values.mean(), array_stats.mcse(values, method="mean")),
            "sd": (values.std(ddof=1), array_stats.mcse(values, method="sd")),
        }
        for which, prob in QUANTILES.items():
            error = array_stats.mcse(values, method="quantile", prob=prob)
            found[name][which] = (np.quantile(values, prob), error)
    return {
        name: {key: (float(value), float(error)) for key, (value, error) in row.items()}
        for name, row in found.items()
    }


def sampled(reference: Reference, runs: Runs) -> tuple[Draws, Mapping[str, float], dict[str, float]]:
    """Draws in the table's units, the constants of the prior, and what the sampler did."""
    from numpyro.infer import MCMC, NUTS, init_to_sample

    law, noise = reference.law, reference.noise
    with jax.enable_x64(True):
        found = canonical(runs, law, noise)
        kernel = NUTS(
            partial(model, law, noise, 0, found.arrays),
            dense_mass=True,
            target_accept_prob=reference.target_accept,
            init_strategy=init_to_sample,
        )
        mcmc = MCMC(
            kernel,
            num_warmup=reference.warmup,
            num_samples=reference.draws,
            num_chains=reference.chains,
            chain_method="sequential",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(reference.seed), extra_fields=("num_steps", "diverging"))
        sites = {name: np.asarray(values) for name, values in mcmc.get_samples(group_by_chain=True).items()}
        extra = {name: np.asarray(values) for name, values in mcmc.get_extra_fields().items()}
    did = {
        "divergent_share": float(extra["diverging"].mean()),
        "leapfrogs_a_draw": float(extra["num_steps"].mean()),
    }
    constants = found.constants(law)
    return in_table_units(law, sites, constants), constants, did


def make(name: str) -> None:
    """Sample one reference and keep it, with the table of its runs."""
    reference = REFERENCES[name]
    frame = reference.runs().frame()
    text = frame[COLUMNS].to_csv(index=False, lineterminator="\n")
    write_text(FOLDER / f"{name}.csv", text)
    runs = table(name)
    begun = time.perf_counter()
    draws, constants, did = sampled(reference, runs)
    seconds = time.perf_counter() - begun
    quantities = compared(reference.law, draws, constants, runs)
    stacked = np.stack(list(quantities.values()))
    figures = zip(r_hat(stacked), bulk_ess(stacked), tail_ess(stacked), strict=True)
    posterior = {
        quantity: {
            **row,
            "r_hat": round(float(worst), 5),
            "ess_bulk": round(float(bulk)),
            "ess_tail": round(float(tail)),
        }
        for (quantity, row), (worst, bulk, tail) in zip(statistics(quantities).items(), figures, strict=True)
    }
    largest = max(row["r_hat"] for row in posterior.values())
    smallest = min(min(row["ess_bulk"], row["ess_tail"]) for row in posterior.values())
    print(f"{name}: {seconds:.0f} s, R-hat {largest}, ESS {smallest}, {did}", flush=True)
    if largest > LARGEST_R_HAT:
        raise SystemExit(f"{name}: R-hat {largest}, expected at most {LARGEST_R_HAT}; give it more draws")
    settings = ("target_accept", "warmup", "draws", "chains", "seed")
    content = {
        "law": reference.law.name,
        "noise": reference.noise.kind,
        "runs": {"file": f"{name}.csv", "rows": len(runs), "fingerprint": runs.fingerprint()},
        "command": f"python -m benchmarks.reference_posteriors {name}",
        "sampler": {
            "what": "numpyro.infer.MCMC, NUTS, dense mass matrix, starts from the prior",
            **{key: getattr(reference, key) for key in settings},
            **did,
            "seconds": round(seconds),
        },
        "date": date.today().isoformat(),
        "versions": {package: version(package) for package in PACKAGES},
        "posterior": posterior,
    }
    write_text(FOLDER / f"{name}.json", json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(REFERENCES))
    names = parser.parse_args().names or list(REFERENCES)
    if unknown := [name for name in names if name not in REFERENCES]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(REFERENCES)}")
    for name in names:
        make(name)


if __name__ == "__main__":
    main()
