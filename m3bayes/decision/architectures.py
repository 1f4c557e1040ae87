"""Recipes that can be built: N from a list of architectures, tokens or epochs in whole multiples of a step.

The best recipe without such limits is known first. Then every architecture within the bounds is held in turn and
the other variables are searched again for it: all of them, for over a law with overfitting the risk may have more
than one valley along N. Of a step's multiples the two beside the best value are tried in the same way, since a
step is small beside what it divides. What is tried is feasible, so what is chosen is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.choice import Choice, search, simplest
from m3bayes.decision.recommendation import recipe_row
from m3bayes.decision.risk import Risk
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import LETTERS, ROUNDING, Space
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.inference.posterior import Posterior

Number = float | int
Architectures = Sequence[Number] | Mapping[str, Number]
STEPPED = ("epochs", "tokens")


@dataclass(frozen=True)
class Grain:
    """``sizes`` {name: N} that can be built, none where any can; ``steps`` {epochs or tokens: step}."""

    sizes: Mapping[str, float]
    steps: Mapping[str, float]

    def __bool__(self) -> bool:
        return bool(self.sizes or self.steps)


def grain(architectures: Architectures | None, multiples: Mapping[str, Number] | None) -> Grain:
    """Read what the caller gave. Raises RecipeError for what is no size and no step."""
    if architectures is None:
        sizes = {}
    elif isinstance(architectures, Mapping):
        sizes = {str(name): float(N) for name, N in architectures.items()}
    else:
        sizes = {f"{N:.6g}": float(N) for N in architectures}
    if architectures is not None and not sizes:
        raise RecipeError(
            "architectures are none; expected at least one N, in the table's unit of parameters"
        )
    for name, N in sizes.items():
        if not 0 < N < math.inf:
            raise RecipeError(f"architecture {name} has params {N:g}; expected a number above 0")
    steps = {}
    for given, step in (multiples or {}).items():
        name = {LETTERS[name]: name for name in STEPPED}.get(given, given)
        if name not in STEPPED:
            raise RecipeError(f"multiples of {given!r}; expected some of {', '.join(STEPPED)} (k, D)")
        if not 0 < step < math.inf:
            raise RecipeError(f"multiples of {name} have step {step}; expected a number above 0")
        steps[name] = float(step)
    return Grain(sizes, steps)


def buildable(
    post: Posterior,
    space: Space,
    risk: Risk,
    least: Float[np.ndarray, " draw"],
    best: Choice,
    grain: Grain,
) -> tuple[Choice, Space, pd.DataFrame]:
    """The best recipe of a grain, the request with all held that the grain holds, and a table of what was tried.

    ``best`` is the best recipe without the grain. Raises InfeasibleError, with the reasons, where nothing of a
    grain is feasible.
    """
    rows: list[dict] = []
    if grain.sizes:
        best, space = _tried(post, space, risk, least, "params", grain.sizes, "architectures", rows)
    for name, step in grain.steps.items():
        whole = getattr(best.recipe, name) / step
        near = round(whole)
        counts = (
            [near] if math.isclose(whole, near, rel_tol=ROUNDING) else [math.floor(whole), math.ceil(whole)]
        )
        values = {f"{name} = {count} x {step:g}": count * step for count in counts if count > 0}
        best, space = _tried(post, space, risk, least, name, values, f"multiple of {step:g}", rows)
    return best, space, pd.DataFrame(rows).set_index("tried")


def _tried(
    post: Posterior,
    space: Space,
    risk: Risk,
    least: Float[np.ndarray, " draw"],
    variable: str,
    values: Mapping[str, float],
    why: str,
    rows: list[dict],
) -> tuple[Choice, Space]:
    """The best of some values of a variable, each held in turn; appends what came of each to ``rows``."""
    found: list[tuple[Choice, Space]] = []
    reasons: dict[str, str] = {}
    bound = space[variable]
    for name, value in values.items():
        row = {"tried": name, "variable": variable, "value": value}
        try:
            if value < bound.low * (1 - ROUNDING):
                raise InfeasibleError(bound.low_text)
            if value > bound.high * (1 + ROUNDING):
                raise InfeasibleError(bound.high_text)
            held = space.held(variable, value, why)
            choice = simplest(search(post, held, faces_within(held)[0], risk, least).values())
        except InfeasibleError as error:
            reasons[name] = str(error).removeprefix("no recipe is feasible: ").partition(";")[0]
            rows.append(row | {"why_not": reasons[name]})
            continue
        found.append((choice, held))
        rows.append(
            row
            | recipe_row(choice.recipe)
            | {"loss_mean": float(choice.loss.mean()), "risk": choice.risk, "why_not": ""}
        )
    if not found:
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        what = "architecture" if variable == "params" else f"multiple of {variable}"
        raise InfeasibleError(f"no {what} is feasible: {said}")
    return min(found, key=lambda each: each[0].risk)
