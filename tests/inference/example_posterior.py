"""Posteriors made by hand: every field filled, no sampling."""

from __future__ import annotations

import numpy as np
import pandas as pd

from m3bayes.errors import Note
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import m3
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame


def example_runs(n: int = 12, seed: int = 0) -> Runs:
    """A table with text and numeric columns that have blanks, and a name that netCDF does not allow."""
    random = np.random.default_rng(seed)
    ratio = np.where(np.arange(n) % 3 == 0, 1.0, 0.25)
    frame = pd.DataFrame(
        {
            "run": [f"run-{i} é" for i in range(n)],
            "params": np.exp(random.uniform(17, 21, n)),
            "target_tokens": np.exp(random.uniform(19, 22, n)),
            "epochs": random.uniform(0.5, 6, n),
            "target_ratio": ratio,
            "final_ratio": np.where(np.arange(n) % 3 == 2, 0.5, ratio),
            "first_ratio": np.where(np.arange(n) % 3 == 2, 0.0, np.nan),
            "loss": random.uniform(2, 4, n),
            "language": ["de", "", "fi"] * (n // 3) + ["de"] * (n % 3),
            "warm/up steps": random.integers(1, 9, n).astype(float),
            "lr": np.where(np.arange(n) % 2 == 0, np.nan, 3e-4),
        }
    )
    return runs_from_frame(frame, unit_params=1e6, unit_tokens=3, name="example.csv")


def example_posterior(
    seed: int = 0,
    *,
    law: Law | None = None,
    runs: Runs | None = None,
    noise: Noise | None = None,
    chains: int = 2,
    draws: int = 30,
) -> Posterior:
    """Draws are independent normals in every coefficient; nothing was fitted."""
    random = np.random.default_rng(seed)
    law = m3() if law is None else law
    runs = example_runs() if runs is None else runs
    noise = student_t() if noise is None else noise
    groups = () if noise.by is None else tuple(dict.fromkeys(str(v) for v in runs[noise.by]))
    shape = (chains, draws)
    return Posterior(
        law=law,
        noise=noise,
        runs=runs,
        draws={name: random.normal(1 + i, 0.1, shape) for i, name in enumerate(law.names)}
        | {"sigma": np.exp(random.normal(-4, 0.1, shape + ((len(groups),) if groups else ())))}
        | ({"nu": 2 + random.gamma(2, 10, shape)} if noise.kind == "student-t" else {}),
        sample_stats={
            "lp": random.normal(size=shape),
            "diverging": random.random(shape) < 0.1,
            "n_steps": random.integers(1, 63, shape),
            "acceptance_rate": random.random(shape),
        },
        log_likelihood=random.normal(2, 0.3, (*shape, len(runs))),
        constants={"N": float(np.exp(19.1)), "L": 2.875, "k": float("nan")},
        groups=groups,
        verdict="flagged",
        notes=(
            Note("UNIDENTIFIED", "omega stays at its prior", ("omega", "a/b")),
            Note("SEED", f"is {seed}"),
        ),
        settings={"seed": seed, "chains": chains, "draws": draws, "target_accept": 0.9, "sampler": "NUTS"},
        versions={"m3bayes": "0.1.0", "jax": "0.12.0"},
    )


def assert_same(one: Posterior, other: Posterior) -> None:
    """Bit for bit the same posterior, all fields."""
    assert one.law.name == other.law.name and one.law.names == other.law.names
    assert dict(one.law.options) == dict(other.law.options)
    assert one.noise == other.noise
    assert_same_arrays(one.draws, other.draws)
    assert list(one.draws) == list(other.draws)
    assert_same_arrays(one.sample_stats, other.sample_stats)
    assert (one.log_likelihood is None) == (other.log_likelihood is None)
    if one.log_likelihood is not None and other.log_likelihood is not None:
        assert_same_arrays({"": one.log_likelihood}, {"": other.log_likelihood})
    assert repr(dict(one.constants)) == repr(dict(other.constants))
    assert one.groups == other.groups
    assert one.verdict == other.verdict
    assert one.notes == other.notes
    assert dict(one.settings) == dict(other.settings)
    assert {name: type(value) for name, value in one.settings.items()} == {
        name: type(value) for name, value in other.settings.items()
    }
    assert dict(one.versions) == dict(other.versions)
    assert list(one.runs.columns) == list(other.runs.columns)
    assert_same_arrays(one.runs.columns, other.runs.columns)
    assert one.runs.unit_params == other.runs.unit_params
    assert one.runs.unit_tokens == other.runs.unit_tokens
    assert one.runs.notes == other.runs.notes
    assert one.runs.name == other.runs.name
    assert one.runs.fingerprint() == other.runs.fingerprint()


def assert_same_arrays(one, other) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype, name
        assert values.shape == other[name].shape, name
        if values.dtype == object:
            assert values.tolist() == other[name].tolist(), name
        else:
            assert values.tobytes() == other[name].tobytes(), name
