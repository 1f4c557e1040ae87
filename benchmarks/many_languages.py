"""P7: a pooled fit of 20 languages, 111 parameters: effective draws a second, and how time grows with languages.

    python -m benchmarks.many_languages [--languages 5,10,20,40] [--runs 40] [--repeats 3]

Languages of 40 runs each from Chinchilla's law, all five coefficients partially pooled, normal scatter. "fit" is
`fit(runs, law, pool=...)`, all of it: every language's mode, the expansion, warm-up, 4 x 1000 draws, the gate, log
likelihoods; compiled before. "numpyro" is `MCMC` on the centred model, dense mass, 1000 warm-up and
1000 draws in 4 chains one after the other, compiled before. Effective draws are the smaller of bulk and tail ESS,
of the worst of all quantities. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS

import m3bayes as m3
from benchmarks.report import spread_of
from m3bayes.inference.diagnostics import bulk_ess, tail_ess
from m3bayes.inference.model import log_surface
from m3bayes.inference.pooled_simulate import simulate_pooled
from m3bayes.inference.pooling import groups_of, padded_to, tables_of

LAW = m3.laws.chinchilla()
NOISE = m3.noise.normal()
POOLING = dict.fromkeys(LAW.names, "partial")


def table_of(languages: int, runs: int, seed: int) -> m3.Pooled:
    random = np.random.default_rng(seed)
    size = languages * runs
    design = pd.DataFrame(
        {
            "params": np.exp(random.uniform(np.log(1e7), np.log(3e9), size)),
            "target_tokens": np.exp(random.uniform(np.log(1e8), np.log(1e11), size)),
            "epochs": 1.0,
            "loss": 3.0,
            "language": [f"l{number // runs:02d}" for number in range(size)],
        }
    )
    return simulate_pooled(
        LAW, m3.runs_from_frame(design), "language", jax.random.key(seed), pooling=POOLING, noise=NOISE
    )


def smallest_ess(quantities: np.ndarray) -> float:
    return float(min(bulk_ess(quantities).min(), tail_ess(quantities).min()))


def ours(truth: m3.Pooled, seed: int) -> dict:
    begun, cpu = time.perf_counter(), time.process_time()
    found = m3.fit(
        truth.runs, LAW, pool="language", pooling=POOLING, noise=NOISE, seed=seed,
        constants=truth.constants, progress=False, allow="flagged",
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    columns = [*found.means.values(), *found.spreads.values(), found.draws["sigma"]]
    columns += [
        values[..., g]
        for name, values in found.draws.items()
        if name != "sigma"
        for g in range(values.shape[2])
    ]
    ess = smallest_ess(np.stack(columns))
    steps = float(found.sample_stats["n_steps"].mean())
    return {
        "seconds": seconds, "cpu_seconds": cpu, "ess": ess, "verdict": found.verdict,
        "attempts": found.settings["attempts"], "parameters": len(columns), "steps": steps,
    }  # fmt: skip


def numpyro_centred(truth: m3.Pooled):
    groups, rows = groups_of(truth.runs, "language")
    with jax.enable_x64(True):
        tables = tables_of(truth.runs, LAW, NOISE, rows, truth.constants)
        size = max(len(table.arrays["y"]) for table in tables)
        padded = [padded_to(table.arrays, size) for table in tables]
        table = jax.tree.map(lambda *parts: jnp.stack([jnp.asarray(part) for part in parts]), *padded)

    def model():
        sigma = numpyro.sample("sigma", dist.LogNormal(np.log(0.008), 1.0))
        sites = {}
        for name in LAW.names:
            bijection = biject_to(LAW[name].prior.support)
            m = bijection.inv(numpyro.sample(f"m_{name}", LAW[name].prior))
            s = numpyro.sample(f"s_{name}", dist.HalfNormal(truth.spread_priors[name]))
            sites[name] = bijection(numpyro.sample(f"theta_{name}", dist.Normal(m, s).expand((len(groups),))))
        surface = jax.vmap(lambda s, t: log_surface(LAW, s, t))(sites, table)
        with numpyro.handlers.mask(mask=table["weight"] > 0):
            numpyro.sample("y", dist.Normal(surface, sigma), obs=table["y"])

    mcmc = MCMC(
        NUTS(model, dense_mass=True), num_warmup=1000, num_samples=1000, num_chains=4, progress_bar=False,
        chain_method="sequential",
    )  # fmt: skip

    def run(seed: int) -> dict:
        with jax.enable_x64(True):
            begun = time.perf_counter()
            mcmc.run(jax.random.key(seed))
            draws = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
            seconds = time.perf_counter() - begun
        columns = []
        for values in draws.values():
            columns += [values] if values.ndim == 2 else [values[..., g] for g in range(values.shape[2])]
        return {"seconds": seconds, "ess": smallest_ess(np.stack(columns)), "parameters": len(columns)}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--languages", default="5,10,20,40")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for languages in map(int, arguments.languages.split(",")):
        tables = [table_of(languages, arguments.runs, seed) for seed in range(arguments.repeats + 1)]
        ours(tables[0], 0)  # compiles
        found = [ours(truth, seed) for seed, truth in enumerate(tables[1:])]
        seconds = [one["seconds"] for one in found]
        per_second = [one["ess"] / one["seconds"] for one in found]
        rows.append(
            {
                "languages": languages, "parameters": found[0]["parameters"], "seconds": float(np.median(seconds)),
                "range": spread_of(seconds), "cpu_seconds": float(np.median([one["cpu_seconds"] for one in found])),
                "ess_per_second": float(np.median(per_second)), "ess_range": spread_of(per_second),
                "steps": float(np.median([one["steps"] for one in found])),
                "verdicts": [one["verdict"] for one in found], "attempts": [one["attempts"] for one in found],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    run = numpyro_centred(table_of(20, arguments.runs, 1))
    run(0)
    peer = run(1)
    peer["ess_per_second"] = peer["ess"] / peer["seconds"]
    print("numpyro", peer, flush=True)
    print(json.dumps({"P7": {"rows": rows, "numpyro": peer}}))


if __name__ == "__main__":
    main()
