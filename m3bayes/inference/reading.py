"""What chains are read as: coefficients, log likelihoods and statistics of every draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from m3bayes.inference.coordinates import coordinates, real_line
from m3bayes.inference.data import Canonical, to_table_units, unscale
from m3bayes.inference.evaluation import PLAIN_SUMS
from m3bayes.inference.model import observation
from m3bayes.inference.noise import Noise
from m3bayes.inference.sampler import Chain
from m3bayes.inference.threads import one_a_thread
from m3bayes.laws.law import Law


@dataclass(frozen=True)
class Drawn:
    """The draws of all chains, in canonical units and in the canonical order of the runs.

    ``sites``           {coefficient, sigma, nu: (chain, draw) or (chain, draw, group)}
    ``real``            {coefficient: (chain, draw)} reference-scaled, on the real line
    ``log_likelihood``  (chain, draw, padded run) of log loss
    ``statistics``      {statistic: (chain, draw)}
    """

    sites: Mapping[str, np.ndarray]
    real: Mapping[str, Float[np.ndarray, "chain draw"]]
    log_likelihood: Float[np.ndarray, "chain draw padded"]
    statistics: Mapping[str, np.ndarray]

    @property
    def quantities(self) -> dict[str, Float[np.ndarray, "chain draw"]]:
        """The sites, one at a time."""
        result = {}
        for name, values in self.sites.items():
            flat = values.reshape(*values.shape[:2], -1)
            one = flat.shape[2] == 1
            result |= {name if one else f"{name}[{i}]": flat[..., i] for i in range(flat.shape[2])}
        return result

    def on_real_line(self) -> dict[str, Float[np.ndarray, " draw"]]:
        """``real``, all chains one after the other."""
        return {name: values.ravel() for name, values in self.real.items()}

    def in_table_units(self, law: Law, table: Canonical) -> dict[str, np.ndarray]:
        """The sites with the coefficients in the table's units."""
        draws = to_table_units(law, self.sites, table.scale)
        return draws | {name: values for name, values in self.sites.items() if name not in draws}

    def likelihood_by_row(self, table: Canonical) -> Float[np.ndarray, "chain draw run"]:
        """The log likelihood of the table's rows, in their order."""
        runs = len(table.order)
        result = np.empty((*self.log_likelihood.shape[:2], runs))
        result[..., table.order] = self.log_likelihood[..., :runs]
        return result


def read_chains(law: Law, noise: Noise, table: Canonical, chains: Sequence[Chain]) -> Drawn:
    """Everything that the chains' positions say, one chain a thread."""
    read = _reader(law, noise, len(table.groups))

    def one(chain: Chain):
        return jax.tree.map(np.asarray, read(jnp.asarray(chain.q), dict(table.arrays)))

    parts = jax.tree.map(lambda *parts: np.stack(parts), *one_a_thread(one, chains))
    statistics = {name: np.stack([c.statistics[name] for c in chains]) for name in chains[0].statistics}
    kinds = {"diverging": bool, "n_steps": int}
    sites, real, log_likelihood = parts
    statistics = {name: values.astype(kinds.get(name, float)) for name, values in statistics.items()}
    return Drawn(sites, real, log_likelihood, statistics)


@lru_cache(maxsize=32)
def _reader(law: Law, noise: Noise, n_groups: int):
    """(q (draw, dim), arrays) -> sites, real and log likelihood of one chain."""
    space = coordinates(law, noise, n_groups)

    @partial(jax.jit, compiler_options=PLAIN_SUMS)
    def read(qs, arrays):
        def one(q):
            sites, surface = space.surface(q, arrays)
            likelihood = observation(noise, surface, sites, arrays).log_prob(arrays["y"])
            c = unscale(law, sites, arrays["reference"])
            return c | {n: v for n, v in sites.items() if n not in c}, real_line(law, sites), likelihood

        return jax.lax.map(one, qs)

    return read
