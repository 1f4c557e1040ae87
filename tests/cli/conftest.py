"""Posterior files made by hand, close to the truth of the embedded table: nothing is fitted for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from m3bayes import laws
from m3bayes.data import simulated_runs, simulated_truth
from m3bayes.errors import Note
from m3bayes.inference.noise import student_t
from m3bayes.inference.posterior import Posterior


def handmade(draws: int = 20, **changes) -> Posterior:
    random = np.random.default_rng(0)
    shape = (2, draws)
    coefficients = {
        name: value * np.exp(0.02 * random.normal(size=shape))
        for name, value in simulated_truth()["coefficients"].items()
    }
    post = Posterior(
        law=laws.m3(),
        noise=student_t(),
        runs=simulated_runs(),
        draws={
            **coefficients,
            "sigma": np.full(shape, 0.008) + 1e-4 * random.random(shape),
            "nu": 6 + random.random(shape),
        },
        settings={"seed": 0, "chains": 2, "draws": draws},
    )
    return dataclasses.replace(post, **changes)


@pytest.fixture(scope="session")
def passed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("posterior") / "passed.nc"
    handmade().save(path)
    return path


@pytest.fixture(scope="session")
def flagged(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("posterior") / "flagged.nc"
    handmade(verdict="flagged", notes=(Note("R_HAT", "chains disagree"),)).save(path)
    return path
