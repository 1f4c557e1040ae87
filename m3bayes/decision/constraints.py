"""Constraints on a request: limits that only ever narrow it, and second budgets.

Bounds (``bounds=``) say where to look and may go beyond the runs; a constraint says what there is, and what lies
beyond the runs stays out: ``at_most("source_tokens", 1e9)`` leaves a bound of 1e8 as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from m3bayes.decision.cost import Cost, as_cost
from m3bayes.errors import RecipeError

Number = float | int


@dataclass(frozen=True)
class Constraint:
    """``of`` between ``low`` and ``high``. ``of`` is a variable of :func:`m3bayes.recommend`'s bounds, by name or
    letter, in the table's units; or a Cost, which may only have a ``high``, in its own unit."""

    of: str | Cost
    low: Number = 0.0
    high: Number = math.inf

    def __post_init__(self) -> None:
        name = f"cost {self.of.name}" if isinstance(self.of, Cost) else repr(self.of)
        if math.isnan(self.low) or not 0 <= self.low <= self.high:
            raise RecipeError(
                f"constraint on {name}: from {self.low} to {self.high}; expected numbers from 0 that rise"
            )
        if isinstance(self.of, Cost) and not 0 < self.high < math.inf:
            raise RecipeError(
                f"constraint on {name}: at most {self.high} {self.of.unit}; expected a budget above 0"
            )


def at_most(of: str | Cost, value: Number) -> Constraint:
    """A variable, or a cost (hours, money) besides the one that ``compute`` is the budget of, at most ``value``."""
    return Constraint(as_cost(of) if isinstance(of, Cost) else of, high=value)


def at_least(of: str, value: Number) -> Constraint:
    return Constraint(of, low=value)


def equal(of: str, value: Number) -> Constraint:
    """A variable held; unlike ``freeze=`` infeasible where the bounds do not hold the value."""
    return Constraint(of, low=value, high=value)
