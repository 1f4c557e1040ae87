"""Faces: all of their points are feasible, all feasible recipes lie on them, and reasons where there are none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.faces import REGIMES, arrays, faces, recipe_at
from m3bayes.decision.space import Space, space
from m3bayes.errors import InfeasibleError
from m3bayes.laws import m3
from m3bayes.recipe import Recipe
from tests.decision import synthetic


def request(compute: float = 1e14, U: float = 3e5, only: str | None = None, cost: Cost | None = None, **given) -> Space:
    runs = synthetic.runs(only=only)
    given = {"bounds": {}, "freeze": {}} | given
    with jax.enable_x64(True):
        return space(runs, m3(), compute=compute, target_tokens=U, cost=cost or six_nd(), **given)


def recipes_on(found, face, t: np.ndarray) -> dict[str, np.ndarray]:
    columns = jax.vmap(lambda t: recipe_at(arrays(face), t, found.cost))(jnp.asarray(t))
    return {name: np.asarray(values) for name, values in columns.items()}


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


@settings(max_examples=60, deadline=None)
@given(given=REQUESTS, seed=st.integers(0, 2**31))
def test_faces_hold_feasible_recipes_and_all_of_them(given, seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        try:
            found = request(**given)
            parts, excluded = faces(found)
        except InfeasibleError as error:
            assert "\n" not in str(error)
            assert not any(found.why_not(recipe) is None for recipe in some_recipes(found, rng, 200))
            return
        assert set(parts) | set(excluded) == set(REGIMES)
        t = np.concatenate([rng.uniform(size=(20, 4)), rng.integers(0, 2, (12, 4)).astype(float)])
        for regime, several in parts.items():
            for face in several:
                columns = recipes_on(found, face, t)
                for i in range(len(t)):
                    r, r_f = float(columns["target_ratio"][i]), float(columns["final_ratio"][i])
                    first = found.first_ratio if r_f > r * (1 + 1e-9) else None
                    recipe = Recipe(float(columns["params"][i]), found.target_tokens, float(columns["epochs"][i]), r,
                                    r_f, first)  # fmt: skip
                    if recipe.first_ratio is not None or regime != "two-stage":
                        assert found.why_not(recipe) is None
        for recipe in some_recipes(found, rng, 60):
            if found.why_not(recipe) is None:
                assert any(holds(found, face, recipe) for several in parts.values() for face in several)


def some_recipes(found: Space, rng: np.random.Generator, count: int) -> list[Recipe]:
    """Recipes of the three regimes, many of them at bounds."""
    result = []
    for regime in rng.choice(REGIMES, count):
        ends = {name: (found[name].low, found[name].high) for name in found.bounds}
        N, k, r, r_f = (
            float(rng.choice([low, high, np.exp(rng.uniform(np.log(low), np.log(max(high, low))))]))
            for low, high in (ends[name] for name in ("params", "epochs", "target_ratio", "final_ratio"))
        )
        k = float(rng.choice([k, 1.0]))
        r = 1.0 if regime == "monolingual" else r
        r_f = r_f if regime == "two-stage" and r_f > r > found.first_ratio else r
        N = min(N, found.compute / 6 / (k * found.target_tokens / r) * 0.999)
        result.append(Recipe(N, found.target_tokens, k, r, r_f, found.first_ratio if r_f > r else None))
    return result


def holds(found: Space, face, recipe: Recipe) -> bool:
    """Whether a recipe lies between the bounds of a face, which run r, r_f, k, N."""
    slack, r = 1 + 1e-9, recipe.target_ratio
    last = face.last[:, 0] + face.last[:, 1] * r
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(face.epochs[:, 2] > 0, -np.log1p(-np.float64(r)), 0.0)
    k = np.exp(face.epochs[:, 0] + face.epochs[:, 1] * np.log(r) + growth)
    N = np.exp(face.log_N)
    N_high = found.cost.params(found.compute, recipe.tokens) if face.spend else N[1]
    return all(
        low <= value * slack and value <= high * slack
        for value, low, high in (
            (r, *face.r),
            (recipe.final_ratio, *last),
            (recipe.epochs, *k),
            (recipe.epochs, *face.side),
            (recipe.params, N[0], N_high),
        )
    )


def test_corners_are_exact():
    with jax.enable_x64(True):
        found = request()
        parts, _ = faces(found)
        corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
        everywhere = [recipes_on(found, face, corners) for several in parts.values() for face in several]
        at = {name: np.concatenate([columns[name] for columns in everywhere]) for name in everywhere[0]}
        assert (at["epochs"] == 1.0).any() and (at["target_ratio"] == 1.0).any() and (at["final_ratio"] == 1.0).any()
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
        ({"compute": 1e10, "bounds": {"tokens": (1e6, None), "epochs": (0, None)}}, ["params >= 3e+04", "tokens >= 1e+06"]),
        ({"freeze": {"epochs": 4.0, "tokens": 1e5}}, ["epochs >= 4", "tokens <= 1e+05", "target_ratio"]),
        ({"freeze": {"r": 1.0}, "bounds": {"S": (1e3, None)}}, ["source_tokens >= 1000", "target_ratio >= 1"]),
        ({"freeze": {"share": 0.9, "r": 1.0}}, ["last_stage_share"]),
        ({"U": 1e9}, ["tokens <= ", "(runs)", "bounds={...}"]),
        ({"freeze": {"first_ratio": 0.9, "share": 0.3, "r": 0.1}}, ["target_ratio <= 0.1"]),
        ({"bounds": {"r": (0.2, 0.3), "r_f": (0.9, 1.0)}, "freeze": {"share": 0.6}}, ["target_ratio <= 0.3", "share"]),
    ],
)
def test_infeasible_requests_name_what_excludes_them_in_one_line(given, named):
    with jax.enable_x64(True), pytest.raises(InfeasibleError) as caught:
        faces(request(**given))
    said = str(caught.value)
    assert "\n" not in said
    for text in named:
        assert text in said
