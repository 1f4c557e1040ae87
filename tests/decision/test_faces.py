"""Faces: all of their points are feasible, all feasible recipes lie on them, and reasons where there are none."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.faces import REGIMES, arrays, faces, recipe_at
from m3bayes.decision.space import Space, space
from m3bayes.errors import InfeasibleError
from m3bayes.laws import m3
from tests.decision import synthetic


def request(
    compute: float = 1e14, U: float = 3e5, only: str | None = None, cost: Cost | None = None, **given
) -> Space:
    runs = synthetic.runs(only=only)
    given = {"bounds": {}, "freeze": {}} | given
    with jax.enable_x64(True):
        return space(runs, m3(), compute=compute, target_tokens=U, cost=cost or six_nd(), **given)


@partial(jax.jit, static_argnums=0)
def _recipes_on(cost: Cost, face, t):
    return jax.vmap(lambda t: recipe_at(face, t, cost))(t)


def recipes_on(found: Space, face, t: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in _recipes_on(found.cost, arrays(face), t).items()}


REQUESTS = st.fixed_dictionaries(
    {
        "compute": st.floats(10.5, 16).map(lambda x: 10**x),
        "U": st.floats(4, 7).map(lambda x: 10**x),
        "bounds": st.fixed_dictionaries(
            {},
            optional={
                "params": st.sampled_from([(None, 1e6), (1e3, 1e9), (1e6, 1e6)]),
                "epochs": st.sampled_from([(0.1, 40.0), (1.0, 1.0), (0.9, 3.0), (2.0, None)]),
                "target_ratio": st.sampled_from([(0.02, 1.0), (0.3, 0.3), (0.2, 0.7)]),
                "final_ratio": st.sampled_from([(0.5, 1.0), (0.4, 0.8)]),
                "tokens": st.sampled_from([(1e3, 1e9), (1e6, None)]),
                "source_tokens": st.sampled_from([(0.0, 1e9), (0.0, 1e6), (1e5, None), (0.0, 0.0)]),
                "last_stage_share": st.sampled_from([(0.01, 1.0), (0.4, 0.4)]),
            },
        ),
        "freeze": st.sampled_from([{}, {"first_ratio": 0.05}]),
    }
)


# a failing example is not shrunk: that would take minutes
@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(given=REQUESTS, seed=st.integers(0, 2**31))
def test_faces_hold_feasible_recipes_and_all_of_them(given, seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        try:
            found = request(**given)
        except InfeasibleError:  # two bounds on one variable
            return
        try:
            parts, excluded = faces(found)
        except InfeasibleError as error:
            assert "\n" not in str(error)
            parts, excluded = {}, dict.fromkeys(REGIMES, "")
        assert set(parts) | set(excluded) == set(REGIMES)
        t = np.concatenate([rng.uniform(size=(24, 4)), rng.integers(0, 2, (8, 4)).astype(float)])
        for regime in REGIMES:
            several = parts.get(regime, ())
            for face in several:
                assert feasible(found, regime, recipes_on(found, face, t)).all()
            columns = some_recipes(found, regime, rng)
            held = [holds(found, face, columns) for face in several]
            assert np.all(
                np.any([*held, np.zeros(len(columns["params"]), bool)], axis=0)
                | ~feasible(found, regime, columns)
            )


def feasible(found: Space, regime: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    """(recipe,) whether recipes of a regime meet every bound, up to rounding."""
    N, k, r, r_f = (columns[name] for name in ("params", "epochs", "target_ratio", "final_ratio"))
    D = k * found.target_tokens / r
    values = {**columns, "tokens": D, "source_tokens": D * (1 - r)}
    cost = 6 * N * D
    fine = cost <= found.compute * (1 + 1e-9)
    if regime == "two-stage":
        with np.errstate(all="ignore"):
            values["last_stage_share"] = (r - found.first_ratio) / (r_f - found.first_ratio)
        fine &= r > found.first_ratio
    else:
        fine &= np.isclose(r, r_f, rtol=1e-12)
    if regime == "monolingual":
        fine &= r == 1
    for name, bound in found.bounds.items():
        if name in values:
            # S and the share are differences: rounding of r and D weighs more
            slack = 1e-9 * np.maximum(np.abs(values[name]), D if name == "source_tokens" else 0)
            fine &= (values[name] >= bound.low - slack) & (values[name] <= bound.high + slack)
    return fine


def some_recipes(
    found: Space, regime: str, rng: np.random.Generator, count: int = 300
) -> dict[str, np.ndarray]:
    """Recipes of a regime, many of them at bounds."""
    columns = {}
    for name in ("params", "epochs", "target_ratio", "final_ratio"):
        low, high = found[name].low, found[name].high
        inside = np.exp(rng.uniform(np.log(low), np.log(high), count))
        columns[name] = np.choose(
            rng.integers(0, 4, count), [np.full(count, low), np.full(count, high), inside, inside]
        )
    columns["epochs"] = np.where(rng.uniform(size=count) < 0.2, 1.0, columns["epochs"])
    if regime == "monolingual":
        columns["target_ratio"] = np.ones(count)
    if regime != "two-stage":
        columns["final_ratio"] = columns["target_ratio"]
    D = columns["epochs"] * found.target_tokens / columns["target_ratio"]
    spent = np.minimum(columns["params"], found.compute / 6 / D)
    columns["params"] = np.where(rng.uniform(size=count) < 0.8, spent, columns["params"])
    return columns


def holds(found: Space, face, columns: dict[str, np.ndarray]) -> np.ndarray:
    """(recipe,) whether recipes lie between the bounds of a face, which run r, r_f, k, N."""
    N, k, r, r_f = (columns[name] for name in ("params", "epochs", "target_ratio", "final_ratio"))
    with np.errstate(all="ignore"):
        growth = np.where(face.epochs[:, 2:] > 0, -np.log1p(-r), 0.0)
        k_ends = np.exp(face.epochs[:, :1] + face.epochs[:, 1:2] * np.log(r) + growth)
    N_ends = np.exp(face.log_N)
    N_high = found.compute / 6 / (k * found.target_tokens / r) if face.spend else N_ends[1]
    last = face.last[:, :1] + face.last[:, 1:] * r
    fine = np.ones(len(r), bool)
    for value, low, high in (
        (r, *face.r),
        (r_f, *last),
        (k, *k_ends),
        (k, *face.side),
        (N, N_ends[0], N_high),
    ):
        fine &= (low <= value * (1 + 1e-8)) & (value <= high * (1 + 1e-8))
    return fine


def test_corners_are_exact():
    with jax.enable_x64(True):
        found = request()
        parts, _ = faces(found)
        corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
        everywhere = [recipes_on(found, face, corners) for several in parts.values() for face in several]
        at = {name: np.concatenate([columns[name] for columns in everywhere]) for name in everywhere[0]}
        assert (
            (at["epochs"] == 1.0).any()
            and (at["target_ratio"] == 1.0).any()
            and (at["final_ratio"] == 1.0).any()
        )
        # rounding must not take k across 1, where overfitting starts with infinite slope
        assert not np.any((at["epochs"] != 1.0) & (np.abs(at["epochs"] - 1) < 1e-9))


def test_regimes_that_no_run_had_are_excluded():
    with jax.enable_x64(True):
        parts, excluded = faces(request(only="target_ratio == 1"))
        assert (set(parts) == {"monolingual"} and set(excluded) == {"single-stage", "two-stage"}) or (
            set(parts) == {"monolingual", "single-stage"}
        )
        _, excluded = faces(request(only="target_ratio == final_ratio"))
        assert "no run had two stages" in excluded["two-stage"]
        _, excluded = faces(request(only="target_ratio < 1"))
        assert "target_ratio" in excluded["monolingual"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"compute": 1e10}, ["params >= 3e+04 (runs)", "epochs >= 0.7 (runs)", "more than compute=1e+10"]),
        (
            {"compute": 1e10, "bounds": {"tokens": (1e6, None), "epochs": (0, None)}},
            ["params >= 3e+04", "tokens >= 1e+06"],
        ),
        ({"freeze": {"epochs": 4.0, "tokens": 1e5}}, ["epochs >= 4", "and tokens <= 1e+05", "exclude"]),
        (
            {"freeze": {"r": 1.0}, "bounds": {"S": (1e3, None)}},
            ["source_tokens >= 1000", "target_ratio >= 1"],
        ),
        ({"freeze": {"share": 0.9, "r": 1.0}}, ["last_stage_share"]),
        ({"U": 1e9, "compute": 1e20}, ["tokens <= ", "(runs)", "bounds of your own"]),
        ({"freeze": {"first_ratio": 0.9, "share": 0.3, "r": 0.1}}, ["target_ratio <= 0.1"]),
        (
            {"bounds": {"r": (0.2, 0.3), "r_f": (0.9, 1.0)}, "freeze": {"share": 0.6}},
            ["target_ratio <= 0.3", "share"],
        ),
    ],
)
def test_infeasible_requests_name_what_excludes_them_in_one_line(given, named):
    with jax.enable_x64(True), pytest.raises(InfeasibleError) as caught:
        faces(request(**given))
    said = str(caught.value)
    assert "\n" not in said
    for text in named:
        assert text in said
