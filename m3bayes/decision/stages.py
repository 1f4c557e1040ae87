"""The stages that may follow a checkpoint, and the best of them: by draw, and one for all.

With the first stage given, the tokens D_2 of the next one and its target tokens T_2 = r_f D_2 settle the recipe of the
whole run,

    D = D_1 + D_2,   k = (r_1 D_1 + T_2) / U,   r = k U / D,   share of the last stage D_2 / D,

and every bound is a straight line in (D_2, T_2), so that what is feasible is a polygon. It is cut into cells, in
each of which two lines bound T_2 and k stays on one side of 1, where the loss has a kink. A cell is a box in
(log D_2, log T_2 between its lines), over which a grid zooms in on its best point; corners are exact. To go on at
r_f = r_1 is one stage, which has cells of its own: bounds on the last stage's share say nothing of it.

| symbol | meaning | unit |
|---|---|---|
| N, U | parameters of the checkpoint, unique target tokens | table's |
| D_1, r_1 | tokens it has seen, and their target ratio | table's, - |
| D_2, T_2, r_f | tokens of the new stage, target tokens of them, T_2 / D_2 | table's, table's, - |
| k, r, D, S | as in :mod:`m3bayes.recipe`, of both stages together | |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.decision.space import Space
from m3bayes.errors import InfeasibleError
from m3bayes.laws.law import Law

# points along each axis of the first grid and of the later ones, by how much these narrow down, to which half width,
# and how many there are at most
FIRST, LATER, NARROWER, LAST, ZOOMS = 33, 7, 0.4, 1e-10, 200
TIE = 1e-12

Columns = dict[str, Array]


class Run(NamedTuple):
    """A checkpoint, and the U of the run that goes on from it."""

    N: float
    U: float
    D_1: float
    r_1: float


class Cell(NamedTuple):
    """``log_tokens`` the ends of log D_2; ``low`` and ``high`` lines of T_2, (intercept, slope) in D_2; ``epochs``
    the ends of k: rounding must not cross k = 1."""

    log_tokens: Float[np.ndarray, " 2"] | Array
    low: Float[np.ndarray, " 2"] | Array
    high: Float[np.ndarray, " 2"] | Array
    epochs: Float[np.ndarray, " 2"] | Array


class _Line(NamedTuple):
    """A bound T_2 = intercept + slope D_2, and the constraint it comes from."""

    intercept: float
    slope: float
    text: str

    def at(self, D_2: float) -> float:
        return self.intercept + self.slope * D_2


class _Limit(NamedTuple):
    value: float
    text: str


class _Empty(Exception):
    """No stage of a kind is feasible; the message names the constraints."""


def cells(space: Space, run: Run) -> list[Cell]:
    """The cells of what is feasible, those of the same mixture first. Raises InfeasibleError if there is none."""
    result: list[Cell] = []
    reasons = []
    for kind, same in (("the same mixture", True), ("another mixture", False)):
        try:
            lows, highs = _limits(space, run, same)
            lower, upper = _lines(space, run)
            if same:
                own = _Line(0.0, run.r_1, f"the checkpoint's target_ratio {run.r_1:.4g}")
                lower, upper = [*lower, own], [*upper, own]
            _window(lows, highs, lower, upper)
        except _Empty as reason:
            reasons.append(f"{kind}: {reason}")
            continue
        once = _Line(run.U - run.r_1 * run.D_1, 0.0, "k = 1")
        for side in ((0.0, 1.0), (1.0, math.inf)):
            sides = ([*lower, once], upper) if side[0] else (lower, [*upper, once])
            try:
                result += _cut(_window(lows, highs, *sides), *sides, side)
            except _Empty:
                continue
    if not result:
        said = "; ".join(reasons)
        hint = "; (runs) marks the range of the runs, which bounds of your own may widen"
        raise InfeasibleError(f"no further stage is feasible: {said}{hint if '(runs)' in said else ''}")
    return result


def most_tokens(space: Space, run: Run, r_f: float) -> float:
    """The most D_2 that is feasible at a target ratio; what the budgets pay for where none is."""
    lower, upper = _lines(space, run)
    line = _Line(0.0, r_f, "")
    try:
        lows, highs = _limits(space, run, r_f == run.r_1)
        return _window(lows, highs, [*lower, line], [*upper, line])[1]
    except _Empty:
        return min(_paid(space, run)).value


def _paid(space: Space, run: Run) -> list[_Limit]:
    found = [(budget, budget.cost.tokens(budget.most, run.N) - run.D_1) for budget in space.budgets]
    return [
        _Limit(D_2, f"{budget.most:.4g} {budget.cost.unit}, which pay for {max(D_2, 0.0):.4g} tokens more,")
        for budget, D_2 in found
    ]


def _limits(space: Space, run: Run, same: bool) -> tuple[list[_Limit], list[_Limit]]:
    """What D_2 lies above and below, whatever T_2 is."""
    D, share = space["tokens"], space["last_stage_share"]
    lows = [_Limit(1 / space.cost.unit_tokens, "one more token"), _Limit(D.low - run.D_1, D.low_text)]
    highs = [*_paid(space, run), _Limit(D.high - run.D_1, _seen(D.high_text, run.D_1))]
    if same:
        if run.r_1 == 0:
            raise _Empty("the checkpoint has seen no target text")
        if space.two_stages:
            raise _Empty(f"last_stage_share is frozen at {share.low:g}")
        return lows, highs
    if space.two_stages is False:
        raise _Empty(f"last_stage_share is frozen at {share.low:g}")
    if math.isnan(share.low):
        raise _Empty("no run had two stages (last_stage_share (runs))")
    least, most = (run.D_1 * s / (1 - s) if s < 1 else math.inf for s in (share.low, share.high))
    return [*lows, _Limit(least, share.low_text)], [*highs, _Limit(most, share.high_text)]


def _seen(limit: str, before: float) -> str:
    return f"{limit}, of which {before:.4g} are seen," if before else limit


def _lines(space: Space, run: Run) -> tuple[list[_Line], list[_Line]]:
    """What T_2 lies above and below."""
    _, U, D_1, r_1 = run
    k, r, r_f, S = (space[name] for name in ("epochs", "target_ratio", "final_ratio", "source_tokens"))
    lower = [
        _Line(k.low * U - r_1 * D_1, 0.0, k.low_text),
        _Line((r.low - r_1) * D_1, r.low, r.low_text),
        _Line(0.0, r_f.low, r_f.low_text),
        _Line((1 - r_1) * D_1 - S.high, 1.0, _seen(S.high_text, (1 - r_1) * D_1)),
    ]
    upper = [
        _Line(k.high * U - r_1 * D_1, 0.0, _seen(k.high_text, r_1 * D_1 / U)),
        _Line((r.high - r_1) * D_1, r.high, r.high_text),
        _Line(0.0, r_f.high, r_f.high_text),
        _Line((1 - r_1) * D_1 - S.low, 1.0, S.low_text),
    ]
    finite = math.isfinite
    return [line for line in lower if finite(line.intercept)], [
        line for line in upper if finite(line.intercept)
    ]


def _window(
    lows: Sequence[_Limit], highs: Sequence[_Limit], lower: Sequence[_Line], upper: Sequence[_Line]
) -> tuple[float, float]:
    """The range of D_2 in which every lower line is below every upper one."""
    lows, highs = list(lows), list(highs)
    for low in lower:
        for high in upper:
            gap, slope = low.intercept - high.intercept, low.slope - high.slope
            said = f"{low.text} with {high.text}"
            # what rounding leaves of lines through the same point is no gap
            if abs(gap) <= TIE * max(abs(low.intercept), abs(high.intercept)):
                gap = 0.0
            if slope > 0:
                highs.append(_Limit(-gap / slope, said))
            elif slope < 0:
                lows.append(_Limit(-gap / slope, said))
            elif gap > 0:
                raise _Empty(f"{low.text} and {high.text} exclude each other")
    low, high = max(lows), min(highs)
    if low.value > high.value * (1 + TIE):
        raise _Empty(f"{low.text} and {high.text} exclude each other")
    return min(low.value, high.value), high.value


def _cut(
    ends: tuple[float, float], lower: Sequence[_Line], upper: Sequence[_Line], side: tuple[float, float]
) -> list[Cell]:
    """Cells of a range of D_2, cut where another line takes over."""
    cuts = [
        (one.intercept - other.intercept) / (other.slope - one.slope)
        for lines in (lower, upper)
        for one, other in combinations(lines, 2)
        if one.slope != other.slope
    ]
    inside = sorted(cut for cut in cuts if ends[0] < cut < ends[1])
    result = []
    for low, high in pairwise([ends[0], *inside, ends[1]]):
        middle = math.sqrt(low * high)
        below = max(lower, key=lambda line: line.at(middle))
        above = min(upper, key=lambda line: line.at(middle))
        result.append(
            Cell(np.log([low, high]), np.array(below[:2]), np.array(above[:2]), np.array(side, float))
        )
    return result


# --- the search ----------------------------------------------------------------------------------------------


def columns_at(run: Run, cell: Cell, t: Array) -> Columns:
    """The recipe at a point t = (D_2, T_2) of a cell's box [0, 1]^2, with ``stage_tokens`` D_2."""
    D_2 = jnp.exp(cell.log_tokens[0] + t[0] * (cell.log_tokens[1] - cell.log_tokens[0]))
    low, high = (line[0] + line[1] * D_2 for line in (cell.low, cell.high))
    low = jnp.minimum(low, high)  # by rounding, where they meet
    T_2 = low * (high / low) ** t[1]
    k = (run.r_1 * run.D_1 + T_2) / run.U
    k = jnp.where(k > cell.epochs[1], cell.epochs[1], jnp.where(k < cell.epochs[0], cell.epochs[0], k))
    return {
        "params": jnp.asarray(run.N),
        "target_tokens": jnp.asarray(run.U),
        "epochs": k,
        "target_ratio": jnp.minimum(k * run.U / (run.D_1 + D_2), 1.0),
        "final_ratio": jnp.minimum(T_2 / D_2, 1.0),
        "stage_tokens": D_2,
    }


@partial(jax.jit, static_argnums=0)
def stage_optima(
    law: Law, c: Mapping[str, Array], extra, run: Run, cell: Cell
) -> tuple[Float[Array, " draw"], Columns]:
    """The best stage of each draw in a cell: its loss and its columns (draw,)."""
    draws = next(iter(c.values())).shape[0]

    def losses(t: Float[Array, "point draw 2"]) -> Float[Array, "point draw"]:
        over_draws = jax.vmap(partial(_loss, law, extra, run, cell))
        return jax.vmap(over_draws, in_axes=(None, 0))(c, t)

    loss, t = _zoomed(losses, draws)
    return loss, jax.vmap(partial(columns_at, run, cell))(t)


@partial(jax.jit, static_argnums=(0, 1))
def least_risk(
    law: Law, risk: Callable[..., Array], at: tuple[ArrayLike, ...], c: Mapping[str, Array], extra, run: Run,
    cell: Cell, base: Float[Array, " draw"],
) -> Columns:  # fmt: skip
    """The columns of the stage in a cell whose losses, less ``base``, have the smallest ``risk(values, *at)``."""

    def of_one(t: Float[Array, " 2"]) -> Array:
        losses = jax.vmap(lambda c: _loss(law, extra, run, cell, c, t))(c)
        return risk(losses - base, *at)

    _, t = _zoomed(jax.vmap(jax.vmap(of_one)), 1)
    return columns_at(run, cell, t[0])


def _loss(law: Law, extra, run: Run, cell: Cell, c: Mapping[str, Array], t: Array) -> Array:
    loss = jnp.asarray(law.loss(c, {**columns_at(run, cell, t), **extra}))
    return jnp.where(jnp.isnan(loss), jnp.inf, loss)


def _zoomed(
    values: Callable[[Float[Array, "point problem 2"]], Float[Array, "point problem"]], problems: int
) -> tuple[Float[Array, " problem"], Float[Array, "problem 2"]]:
    """The least value of each problem over [0, 1]^2, and where it is: a grid, then finer ones about its best point.

    They narrow down once their middle is the best, and so go along a valley that lies across the axes. No slopes are
    used, so that kinks (of a quantile, of the worst draw) do not matter.
    """

    def lowest(t: Float[Array, "point problem 2"]) -> tuple[Array, Array]:
        found = values(t)
        found = jnp.where(jnp.isnan(found), jnp.inf, found)
        best = jnp.argmin(found, axis=0)
        at = jnp.take_along_axis(t, best[None, :, None], axis=0)[0]
        return jnp.take_along_axis(found, best[None], axis=0)[0], at

    def finer(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        count, least, t, width = state
        # the middle of the grid is the best point so far: no value rises
        found, to = lowest(jnp.clip(t + width[:, None] * _square(-1.0, LATER)[:, None], 0.0, 1.0))
        return count + 1, found, to, jnp.where(found < least, width, NARROWER * width)

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[0] < ZOOMS) & jnp.any(state[3] > LAST)

    first = jnp.broadcast_to(_square(0.0, FIRST)[:, None], (FIRST**2, problems, 2))
    start = (jnp.zeros((), int), *lowest(first), jnp.full(problems, 1.5 / (FIRST - 1)))
    _, least, t, _ = lax.while_loop(unfinished, finer, start)
    return least, t


def _square(low: float, count: int) -> Float[Array, "point 2"]:
    axis = jnp.linspace(low, 1.0, count)
    return jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
