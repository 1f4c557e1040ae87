"""Which constraints hold a recipe, and how much room the others leave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import pandas as pd

from m3bayes.decision.space import RATIOS, Space
from m3bayes.errors import Note
from m3bayes.recipe import Recipe

# a constraint binds where its slack is less than this share of it
BINDING = 1e-6


class _Row(NamedTuple):
    constraint: str
    quantity: str
    sense: str
    limit: float
    value: float
    slack: float
    relative: float
    binding: bool


def residuals(space: Space, recipe: Recipe) -> pd.DataFrame:
    """One row a constraint that could bind: the ends of the bounds, what is held, and the budgets.

    ``quantity``, ``sense`` (<=, >= or =), ``limit`` and ``value``; ``slack``, the room left (at least 0 but for
    rounding), and ``relative``, as a share of the limit; ``binding``. Variables are in the table's units,
    budgets in their own.
    """
    rows = pd.DataFrame([*_of_bounds(space, recipe), *_of_budgets(space, recipe)], columns=_Row._fields)
    return rows.set_index("constraint")


def at_bounds(table: pd.DataFrame, space: Space) -> list[Note]:
    """AT_BOUND for what binds: not ``compute``, which is there to be spent, nor what is held."""
    count = len(table) - len(space.budgets)
    binds = table["binding"].to_numpy(bool) & (table["sense"] != "=").to_numpy()
    binds[count] = False
    return [
        Note("AT_BOUND", f"the recipe runs into {text}", (quantity,))
        for text, quantity in zip(table.index[binds], table["quantity"][binds], strict=True)
    ]


def unused(table: pd.DataFrame, space: Space) -> list[Note]:
    """COMPUTE_UNUSED, with the other budget that is used up where there is one."""
    budgets = table.tail(len(space.budgets))
    share = float(budgets["relative"].iloc[0])
    if share <= BINDING:
        return []
    used_up = [text for text, binds in zip(budgets.index[1:], budgets["binding"][1:], strict=True) if binds]
    most = table.index[table["binding"].to_numpy(bool) & (table["sense"] == "<=").to_numpy()]
    why = f"no more can be spent with {' and '.join(most)}" if len(most) else "spending more would overfit"
    why = f"{used_up[0]} is used up" if used_up else why
    return [Note("COMPUTE_UNUSED", f"{share:.3g} of the compute is left unused: {why}", ("compute",))]


def unspendable(space: Space) -> list[Note]:
    """COMPUTE_UNUSED where the largest recipe within the bounds costs less than the compute asked about."""
    N, D = space["params"], space["tokens"]
    if math.isinf(N.high) or math.isinf(D.high):
        return []
    with jax.enable_x64(True):
        most = float(space.budgets[0].cost.flops(N.high, D.high))
    if most >= space.compute:
        return []
    unit = space.budgets[0].cost.unit
    said = f"with {N.high_text} and {D.high_text} at most {most:.4g} of the {space.compute:.4g} {unit} can be spent"
    return [Note("COMPUTE_UNUSED", f"{said}: wider bounds may change the answer", ("compute",))]


def _of_bounds(space: Space, recipe: Recipe) -> Iterator[_Row]:
    for name, bound in space.bounds.items():
        value = getattr(recipe, name)
        if name == "last_stage_share" and recipe.first_ratio is None:
            continue
        if bound.low == bound.high:
            yield _Row(
                f"{name} = {bound.low:.4g} ({bound.low_from})", name, "=", bound.low, value, 0.0, 0.0, True
            )
            continue
        natural = 1.0 if name in RATIOS else math.inf
        if bound.low > 0:
            yield _row(bound.low_text, name, ">=", bound.low, value)
        if bound.high < natural:
            yield _row(bound.high_text, name, "<=", bound.high, value)


def _of_budgets(space: Space, recipe: Recipe) -> Iterator[_Row]:
    for budget in space.budgets:
        name = "compute" if budget is space.budgets[0] else budget.cost.unit
        text = f"{name} <= {budget.most:.4g} {budget.cost.unit} ({budget.cost.name})"
        yield _row(text, name, "<=", budget.most, budget.spent(recipe))


def _row(text: str, name: str, sense: str, limit: float, value: float) -> _Row:
    slack = limit - value if sense == "<=" else value - limit
    relative = slack / limit if limit else math.nan
    binding = math.isclose(value, limit, rel_tol=BINDING)
    return _Row(text, name, sense, limit, value, slack, relative, binding)
