"""P1: the posterior of Chinchilla's law given 200 runs, beside the samplers one would otherwise use.

    python -m benchmarks.posterior [--repeats 7 --slow-repeats 3]

Prints a table, then one line of JSON. Runs are simulated with log-normal noise of .01. Every sampler draws
4 x 1000 from the same posterior (six parameters, m3bayes' priors) in a process of its own. It first meets one
data set, then is timed on a second one of the same size. Seconds are wall time from data to draws, medians;
whatever a sampler compiles or searches again for new data is part of them. ESS is the smallest over the six
parameters, bulk and tail.

- "m3bayes, fit": `fit`, all of it: checks, mode, sampling, gate, notes.
- "m3bayes, sampler": the sampler alone, from a mode that is given.
- "numpyro, default": raw coefficients, `MCMC(NUTS(model), num_warmup=1000, num_samples=1000, num_chains=4)`.
- "numpyro, best": logs scaled at the mean run, dense mass, started at the mode (which is given), 300 warm-up,
  data as arguments (`jit_model_args`), each chain method.
- "nutpie, low rank": the same parameters, PyMC model compiled by numba, data exchanged without compiling.
- "blackjax, best": the density of "numpyro, best", window adaptation of a dense mass matrix over 300 transitions,
  started at the mode (which is given), data as arguments, one chain a thread.
- "PyMC, default": raw coefficients, `pm.sample(1000, tune=1000, chains=4)`, which takes nutpie's sampler where that is
  installed, as here; compiling the model anew for every data set is part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from benchmarks.report import spread_of
from m3bayes.inference import noise
from m3bayes.inference.coordinates import coordinates
from m3bayes.inference.data import canonical, to_table_units, unscale
from m3bayes.inference.fit import fit
from m3bayes.inference.mode import find_mode
from m3bayes.inference.sampler import frame_at, sample
from m3bayes.inference.threads import one_a_thread
from m3bayes.laws import chinchilla, priors
from m3bayes.runs import Runs, runs_from_frame

RUNS, SIGMA = 200, 0.01
TRUTH = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
CHAINS, DRAWS, WARMUP = 4, 1000, 200
TARGET_SECONDS, TARGET_ESS = 0.15, 15_000
MEANS_WITHIN = 4.0  # Monte Carlo standard errors


class Drawn(NamedTuple):
    """``draws`` {coefficient in the table's units, sigma: (chain, draw)}, leapfrogs of every draw kept."""

    draws: dict[str, np.ndarray]
    leapfrogs: np.ndarray


# a sampler, once made ready, turns (runs, seed) into seconds and draws
Sampler = Callable[[Runs, int], tuple[float, Drawn]]


def data_set(number: int) -> Runs:
    """200 runs with known truth; every number has another design and other noise."""
    rng = np.random.default_rng(number)
    N = np.exp(rng.uniform(np.log(1e7), np.log(5e9), RUNS))
    D = np.exp(rng.uniform(np.log(2e8), np.log(1e11), RUNS))
    loss = TRUTH["E"] + TRUTH["A"] * N ** -TRUTH["alpha"] + TRUTH["B"] * D ** -TRUTH["beta"]
    columns = {"params": N, "target_tokens": D, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
    return runs_from_frame(pd.DataFrame(columns | {"loss": loss * np.exp(SIGMA * rng.standard_normal(RUNS))}))


# ---- m3bayes -----------------------------------------------------------------------------------


def m3bayes_fit() -> Sampler:
    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        begun = time.perf_counter()
        post = fit(runs, chinchilla(), noise=noise.normal(), seed=seed, progress=False)
        seconds = time.perf_counter() - begun
        return seconds, Drawn(dict(post.draws), post.sample_stats["n_steps"])

    return run


def m3bayes_sampler() -> Sampler:
    law, scatter = chinchilla(), noise.normal()

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        with jax.enable_x64(True):
            table = canonical(runs, law, scatter)
            mode = find_mode(law, scatter, 0, table.arrays, np.random.default_rng(seed))
            frame = frame_at(mode.q[0], mode.hessian)
            spread = np.random.default_rng(seed).standard_normal((CHAINS, mode.q.shape[1]))
            starts = mode.q[0] + spread @ np.asarray(frame.axes).T
            keys = list(jax.random.split(jax.random.key(seed), CHAINS))
            begun = time.perf_counter()
            chains = sample(
                coordinates(law, scatter, 0), table.arrays, frame, starts, keys,
                warmup=WARMUP, draws=DRAWS, target_accept=0.8,
            )  # fmt: skip
            seconds = time.perf_counter() - begun
            qs = jnp.asarray(np.stack([chain.q for chain in chains]))
            sites = jax.vmap(jax.vmap(coordinates(law, scatter, 0).to_sites, (0, None)), (0, None))(
                qs, dict(table.arrays)
            )
            c = unscale(law, sites, table.arrays["reference"])
            draws = to_table_units(law, {name: np.asarray(v) for name, v in c.items()}, table.scale)
            steps = np.stack([chain.statistics["n_steps"] for chain in chains])
            return seconds, Drawn(draws | {"sigma": np.asarray(sites["sigma"])}, steps)

    return run


# ---- numpyro -----------------------------------------------------------------------------------


class Scaled(NamedTuple):
    """Logs of N and D about their means, log loss about the log of the median loss, and those three."""

    n: np.ndarray
    d: np.ndarray
    y: np.ndarray
    n0: float
    d0: float
    loss0: float


def scaled(runs: Runs) -> Scaled:
    n, d = np.log(runs["params"]), np.log(runs["target_tokens"])
    loss0 = float(np.median(runs["loss"]))
    return Scaled(
        n - n.mean(), d - d.mean(), np.log(runs["loss"] / loss0), float(n.mean()), float(d.mean()), loss0
    )


def in_table_units(draws: dict[str, np.ndarray], data: Scaled) -> dict[str, np.ndarray]:
    """From E, A, B relative to the median loss at the mean run."""
    return draws | {
        "E": draws["E"] * data.loss0,
        "A": draws["A"] * data.loss0 * np.exp(draws["alpha"] * data.n0),
        "B": draws["B"] * data.loss0 * np.exp(draws["beta"] * data.d0),
    }


def raw_model(N, D, loss, n0, d0, loss0) -> None:
    """As one writes it down: coefficients in the table's units."""
    import numpyro
    import numpyro.distributions as dist

    alpha, beta = numpyro.sample("alpha", priors.exponent()), numpyro.sample("beta", priors.exponent())
    E = numpyro.sample(
        "E",
        dist.TransformedDistribution(
            dist.Beta(2.0, 2.0), dist.transforms.AffineTransform(0.0, loss0, dist.constraints.unit_interval)
        ),
    )
    A = numpyro.sample("A", dist.LogNormal(jnp.log(0.15 * loss0) + alpha * n0, 1.0))
    B = numpyro.sample("B", dist.LogNormal(jnp.log(0.15 * loss0) + beta * d0, 1.0))
    sigma = numpyro.sample("sigma", dist.LogNormal(np.log(0.008), 1.0))
    numpyro.sample("obs", dist.Normal(jnp.log(E + A * N**-alpha + B * D**-beta), sigma), obs=jnp.log(loss))


def scaled_model(n, d, y) -> None:
    """Terms at the mean run, relative to the median loss."""
    import numpyro
    import numpyro.distributions as dist

    alpha, beta = numpyro.sample("alpha", priors.exponent()), numpyro.sample("beta", priors.exponent())
    E = numpyro.sample("E", priors.floor())
    A, B = numpyro.sample("A", priors.term()), numpyro.sample("B", priors.term())
    sigma = numpyro.sample("sigma", dist.LogNormal(np.log(0.008), 1.0))
    surface = jnp.log(E + A * jnp.exp(-alpha * n) + B * jnp.exp(-beta * d))
    numpyro.sample("obs", dist.Normal(surface, sigma), obs=y)


def numpyro_default() -> Sampler:
    from numpyro.infer import MCMC, NUTS

    mcmc = MCMC(NUTS(raw_model), num_warmup=1000, num_samples=DRAWS, num_chains=CHAINS, progress_bar=False)

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        data = scaled(runs)
        with jax.enable_x64(True):
            begun = time.perf_counter()
            mcmc.run(
                jax.random.key(seed), runs["params"], runs["target_tokens"], runs["loss"],
                data.n0, data.d0, data.loss0, extra_fields=("num_steps",),
            )  # fmt: skip
            draws = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
            seconds = time.perf_counter() - begun
            return seconds, Drawn(draws, np.asarray(mcmc.get_extra_fields(True)["num_steps"]))

    return run


def numpyro_best(chain_method: str) -> Sampler:
    from numpyro.infer import MCMC, NUTS, init_to_value

    law, scatter = chinchilla(), noise.normal()
    values: dict[str, np.ndarray] = {}
    kernel = NUTS(scaled_model, dense_mass=True, init_strategy=init_to_value(values=values))
    mcmc = MCMC(
        kernel, num_warmup=300, num_samples=DRAWS, num_chains=CHAINS, progress_bar=False,
        chain_method=chain_method, jit_model_args=True,
    )  # fmt: skip

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        data = scaled(runs)
        with jax.enable_x64(True):
            table = canonical(runs, law, scatter)
            mode = find_mode(law, scatter, 0, table.arrays, np.random.default_rng(seed))
            space = coordinates(law, scatter, 0)
            sites = space.to_sites(jnp.asarray(mode.q[0]), table.arrays)
            values.update({name: np.asarray(value) for name, value in sites.items()})
            begun = time.perf_counter()
            mcmc.run(jax.random.key(seed), data.n, data.d, data.y, extra_fields=("num_steps",))
            draws = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
            seconds = time.perf_counter() - begun
            steps = np.asarray(mcmc.get_extra_fields(True)["num_steps"])
            return seconds, Drawn(in_table_units(draws, data), steps)

    return run


# ---- nutpie ------------------------------------------------------------------------------------


def nutpie_low_rank() -> Sampler:
    import nutpie
    import pymc as pm

    first = scaled(data_set(0))
    with pm.Model() as model:
        n, d, y = (pm.Data(name, getattr(first, name)) for name in ("n", "d", "y"))
        E = pm.Beta("E", 2.0, 2.0)
        A, B = pm.LogNormal("A", np.log(0.15), 1.0), pm.LogNormal("B", np.log(0.15), 1.0)
        exponent = pm.LogNormal.dist(np.log(0.35), 0.5)
        alpha = pm.Truncated("alpha", exponent, lower=0.03, upper=2.0)
        beta = pm.Truncated("beta", exponent, lower=0.03, upper=2.0)
        sigma = pm.LogNormal("sigma", np.log(0.008), 1.0)
        surface = pm.math.log(E + A * pm.math.exp(-alpha * n) + B * pm.math.exp(-beta * d))
        pm.Normal("obs", surface, sigma, observed=y)
    compiled = nutpie.compile_pymc_model(model)

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        data = scaled(runs)
        begun = time.perf_counter()
        tree = nutpie.sample(
            compiled.with_data(n=data.n, d=data.d, y=data.y),
            draws=DRAWS, tune=300, chains=CHAINS, cores=os.cpu_count(), seed=seed,
            adaptation="low_rank", progress_bar=False, save_warmup=False,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        names = (*chinchilla().names, "sigma")
        draws = {name: tree["posterior"][name].to_numpy() for name in names}
        return seconds, Drawn(in_table_units(draws, data), tree["sample_stats"]["n_steps"].to_numpy())

    return run


# ---- PyMC --------------------------------------------------------------------------------------


def pymc_default() -> Sampler:
    import pymc as pm

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        data = scaled(runs)
        begun = time.perf_counter()
        with pm.Model():
            exponent = pm.LogNormal.dist(np.log(0.35), 0.5)
            alpha = pm.Truncated("alpha", exponent, lower=0.03, upper=2.0)
            beta = pm.Truncated("beta", exponent, lower=0.03, upper=2.0)
            E = pm.Deterministic("E", data.loss0 * pm.Beta("share", 2.0, 2.0))
            A = pm.LogNormal("A", np.log(0.15 * data.loss0) + alpha * data.n0, 1.0)
            B = pm.LogNormal("B", np.log(0.15 * data.loss0) + beta * data.d0, 1.0)
            sigma = pm.LogNormal("sigma", np.log(0.008), 1.0)
            surface = pm.math.log(E + A * runs["params"] ** -alpha + B * runs["target_tokens"] ** -beta)
            pm.Normal("obs", surface, sigma, observed=np.log(runs["loss"]))
            tree = pm.sample(
                DRAWS, tune=1000, chains=CHAINS, cores=os.cpu_count(), random_seed=seed, progressbar=False,
                compute_convergence_checks=False,
            )  # fmt: skip
        seconds = time.perf_counter() - begun
        draws = {name: tree["posterior"][name].to_numpy() for name in (*chinchilla().names, "sigma")}
        return seconds, Drawn(draws, tree["sample_stats"]["n_steps"].to_numpy())

    return run


# ---- blackjax ----------------------------------------------------------------------------------


def blackjax_best() -> Sampler:
    import blackjax
    from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

    law, scatter = chinchilla(), noise.normal()

    @jax.jit
    def chain(key, start, arguments):
        def log_density(q):
            return -potential_energy(scaled_model, arguments, {}, q)

        for_warmup, for_draws = jax.random.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density, is_mass_matrix_diagonal=False)
        (state, parameters), _ = adaptation.run(for_warmup, start, num_steps=300)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state, key):
            state, told = kernel.step(key, state)
            return state, (state.position, told.num_integration_steps)

        _, (q, steps) = jax.lax.scan(step, state, jax.random.split(for_draws, DRAWS))
        return jax.vmap(lambda q: constrain_fn(scaled_model, arguments, {}, q))(q), steps

    def run(runs: Runs, seed: int) -> tuple[float, Drawn]:
        data = scaled(runs)
        arguments = (data.n, data.d, data.y)
        with jax.enable_x64(True):
            table = canonical(runs, law, scatter)
            mode = find_mode(law, scatter, 0, table.arrays, np.random.default_rng(seed))
            sites = coordinates(law, scatter, 0).to_sites(jnp.asarray(mode.q[0]), table.arrays)
            start = unconstrain_fn(scaled_model, arguments, {}, sites)
            keys = jax.random.split(jax.random.key(seed), CHAINS)
            if not chain._cache_size():  # tracing is for one thread at a time
                jax.block_until_ready(chain(keys[0], start, arguments))
            begun = time.perf_counter()
            found = one_a_thread(
                lambda key: jax.tree.map(np.asarray, chain(key, start, arguments)), list(keys)
            )
            draws, steps = jax.tree.map(lambda *parts: np.stack(parts), *found)
            seconds = time.perf_counter() - begun
            return seconds, Drawn(in_table_units(draws, data), steps)

    return run


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "m3bayes, fit": m3bayes_fit,
    "m3bayes, sampler": m3bayes_sampler,
    "nutpie, low rank": nutpie_low_rank,
    "numpyro, best (sequential)": lambda: numpyro_best("sequential"),
    "numpyro, best (parallel)": lambda: numpyro_best("parallel"),
    "numpyro, best (vectorized)": lambda: numpyro_best("vectorized"),
    "blackjax, best": blackjax_best,
    "numpyro, default": numpyro_default,
    "PyMC, default": pymc_default,
}
SLOW = ("numpyro, default", "PyMC, default")
OURS = ("m3bayes, fit", "m3bayes, sampler")


# ---- measuring ---------------------------------------------------------------------------------


def measure(name: str, repeats: int, out: Path) -> None:
    """Time one sampler in this process; draws and figures go to a file."""
    begun = time.perf_counter()
    run = SAMPLERS[name]()
    run(data_set(0), 0)
    first = time.perf_counter() - begun
    second = data_set(1)
    ran = [run(second, seed) for seed in range(1, repeats + 1)]
    seconds = [s for s, _ in ran]
    figures = [smallest_ess(drawn.draws) for _, drawn in ran]
    last = ran[-1][1]
    # all repeats of the second data set are draws of one posterior
    draws = {f"draws/{key}": np.concatenate([drawn.draws[key] for _, drawn in ran]) for key in last.draws}
    np.savez(
        out,
        seconds=seconds,
        ess_bulk=[bulk for bulk, _ in figures],
        ess_tail=[tail for _, tail in figures],
        leapfrogs=float(np.mean(last.leapfrogs)),
        first=first,
        **draws,
    )


def smallest_ess(draws: dict[str, np.ndarray]) -> tuple[float, float]:
    """(bulk, tail) over all parameters; the tail's is the smaller of the 5 and 95 % quantiles'."""
    from arviz_stats.base import array_stats

    stacked = np.stack(list(draws.values()))
    bulk = array_stats.ess(stacked, chain_axis=1, draw_axis=2, method="bulk")
    tail = array_stats.ess(stacked, chain_axis=1, draw_axis=2, method="tail", prob=(0.05, 0.95))
    return float(np.min(bulk)), float(np.min(tail))


def in_own_process(name: str, repeats: int) -> dict:
    """What :func:`measure` finds for a sampler, in a fresh process."""
    environment = dict(os.environ)
    if "parallel" in name:  # one device a chain, which must be said before jax starts
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={CHAINS}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.npz"
        command = [sys.executable, "-m", "benchmarks.posterior", "--only", name, "--out", str(out)]
        subprocess.run([*command, "--repeats", str(repeats)], check=True, env=environment)
        with np.load(out) as file:
            arrays = dict(file)
    bulk, tail, seconds = arrays["ess_bulk"], arrays["ess_tail"], arrays["seconds"]
    return {
        "sampler": name,
        "repeats": len(seconds),
        "seconds": float(np.median(seconds)),
        "seconds_spread": spread_of(seconds),
        "first_data_set_seconds": float(arrays["first"]),
        "ess_bulk": float(np.median(bulk)),
        "ess_tail": float(np.median(tail)),
        "ess_a_second": float(np.median(np.minimum(bulk, tail) / seconds)),
        "leapfrogs_a_draw": float(arrays["leapfrogs"]),
        "draws": {key[len("draws/") :]: values for key, values in arrays.items() if key.startswith("draws/")},
    }


def largest_disagreement(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Largest difference of posterior means and sds, in standard errors of the difference."""
    from arviz_stats.base import array_stats

    worst = 0.0
    for name, values in ours.items():
        for method, statistic in (("mean", np.mean), ("sd", np.std)):
            errors = [
                float(array_stats.mcse(v[None], chain_axis=1, draw_axis=2, method=method)[0])
                for v in (values, theirs[name])
            ]
            worst = max(worst, abs(statistic(values) - statistic(theirs[name])) / np.hypot(*errors))
    return float(worst)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.posterior", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slow-repeats", type=int, default=3)
    parser.add_argument("--only", choices=SAMPLERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.only:
        measure(given.only, given.repeats, given.out)
        return {}

    print(f"P1: {RUNS} runs, {CHAINS} x {DRAWS} draws, second data set of the same size")
    print(
        f"{'sampler':<28}{'s':>8}{'first':>8}{'ESS bulk':>10}{'tail':>7}{'ESS/s':>8}{'leapfrogs':>11}{'off by':>8}"
    )
    rows: list[dict] = []
    for name in SAMPLERS:
        row = in_own_process(name, given.slow_repeats if name in SLOW else given.repeats)
        rows.append(row)
        row["largest_disagreement"] = largest_disagreement(rows[0]["draws"], row["draws"])
        print(
            f"{name:<28}{row['seconds']:>8.3f}{row['first_data_set_seconds']:>8.1f}{row['ess_bulk']:>10.0f}"
            f"{row['ess_tail']:>7.0f}{row['ess_a_second']:>8.0f}{row['leapfrogs_a_draw']:>11.1f}"
            f"{row['largest_disagreement']:>8.1f}",
            flush=True,
        )
    for row in rows:
        del row["draws"]
    result = {
        "runs": RUNS,
        "chains": CHAINS,
        "draws": DRAWS,
        "samplers": rows,
        "target_seconds": TARGET_SECONDS,
        "target_ess_a_second": TARGET_ESS,
    }
    apart = [row["sampler"] for row in rows if row["largest_disagreement"] > MEANS_WITHIN]
    assert not apart, f"means or sds are more than {MEANS_WITHIN} standard errors apart: {', '.join(apart)}"
    print(json.dumps({"P1": result}))
    return result


if __name__ == "__main__":
    main()
