"""The feasible recipes of a request, cut into faces on which everything is smooth.

A face is a box [0, 1]^4 and a map of its points onto recipes: log N, log k, log r and log r_f run between
bounds that may depend on the variables before them, in the order r, r_f, k, N. Every point of the box is a
feasible recipe, and every feasible recipe of the face is such a point, so that corners are exact.

What one bound depends on changes where two bounds cross. Kinks are kept out of the faces by cutting there:
at k = 1 (overfitting starts, with infinite slope where delta < 1), at the D from which on the budget and not
the bound on N limits N, and at every r where another bound on k or on r_f takes over.

Three regimes, each in the closure of the next: monolingual (r = r_f = 1), single-stage (r = r_f), two-stage
(r <= r_f, and before the last stage a ratio r_1, 0 unless stated, so that its share of the tokens is
(r - r_1) / (r_f - r_1)).

| symbol | meaning | unit |
|---|---|---|
| N | parameters | table's |
| U, k | unique target tokens, epochs over them | table's, - |
| r, r_f, r_1 | target ratio: on average, in the last stage, before it | - |
| T = k U, D = T / r, S = D - T | target tokens, all tokens, source tokens | table's |
| C | compute | FLOP |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.space import Space
from m3bayes.errors import InfeasibleError

Regime = Literal["monolingual", "single-stage", "two-stage"]
REGIMES: tuple[Regime, ...] = ("monolingual", "single-stage", "two-stage")
TIE = 1e-12


class Face(NamedTuple):
    """One face, all leaves numbers (or stacked: arrays with a leading axis).

    ``r``        low and high of the target ratio
    ``last``     low and high of r_f, each as (intercept, slope) in r
    ``epochs``   low and high of log k, each as (c, a, b): c + a log r - b log(1 - r)
    ``side``     low and high of k as numbers: rounding must not cross k = 1
    ``log_N``    low and high
    ``spend``    1 where the budget, not log_N[1], is the upper end of log N
    """

    log_C: float | Array
    U: float | Array
    r: np.ndarray | Array
    last: np.ndarray | Array
    epochs: np.ndarray | Array
    side: np.ndarray | Array
    log_N: np.ndarray | Array
    spend: float | Array


SHAPES = ((), (), (2,), (2, 2), (2, 3), (2,), (2,), ())


def arrays(face: Face) -> Face:
    """The face with arrays as leaves, so that one compilation serves all faces."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), face)


def packed(face: Face) -> Float[np.ndarray, " number"]:
    """The numbers of a face in a row: many faces are then one array, which is cheap to pick from and to pass."""
    return np.concatenate([np.ravel(leaf) for leaf in face]).astype(np.float64)


def unpacked(row: Float[Array | np.ndarray, " number"]) -> Face:
    leaves = []
    for shape in SHAPES:
        size = math.prod(shape)
        leaves.append(row[:size].reshape(shape))
        row = row[size:]
    return Face(*leaves)


def free_coordinates(faces: Sequence[Face]) -> int:
    """How many coordinates, in the order N, k, r, r_f, a search of faces needs: 2 where no r has room (nor then
    r_f, unless there are two stages), else all 4. Two numbers, for each is compiled."""
    fixed = all(face.r[0] == face.r[1] and np.array_equal(face.last[0], face.last[1]) for face in faces)
    return 2 if fixed else 4


def recipe_at(face: Face, t: Array | Sequence[ArrayLike], cost: Cost) -> dict[str, Array]:
    """The recipe at a point t = (N, k, r, r_f) of a face's box; a coordinate without room has no effect."""
    r = _between(jnp.log(face.r[0]), jnp.log(face.r[1]), t[2])
    last = jnp.log(face.last[:, 0] + face.last[:, 1] * r)
    r_f = _between(last[0], last[1], t[3])
    r_f = jnp.where(r_f > 1, 1.0, r_f)  # by rounding
    ends = _log_epochs(face.epochs, r)
    k = _between(ends[0], ends[1], t[1])
    # not jnp.clip: it halves the gradient at a tie
    k = jnp.where(k > face.side[1], face.side[1], jnp.where(k < face.side[0], face.side[0], k))
    log_D = jnp.log(k) + jnp.log(face.U) - jnp.log(r)
    affordable = cost.log_params(face.log_C, log_D, face.log_N[0], face.log_N[1])
    N_high = jnp.where(face.spend > 0, affordable, face.log_N[1])
    N = _between(face.log_N[0], N_high, t[0])
    return {
        "params": N,
        "target_tokens": jnp.asarray(face.U),
        "epochs": k,
        "target_ratio": r,
        "final_ratio": r_f,
    }


def _between(low: Array, high: Array, t: ArrayLike) -> Array:
    """Geometric interpolation between logs: exactly 1 at an end that is 1."""
    return jnp.exp(low + t * (high - low))


def _log_epochs(bounds: np.ndarray | Array, r: Array) -> Array:
    source = bounds[:, 2] > 0  # these never apply at r = 1, where there is no source text
    inside = jnp.where(source, r, 0.5)
    return jnp.asarray(bounds[:, 0]) + bounds[:, 1] * jnp.log(r) - jnp.where(source, jnp.log1p(-inside), 0.0)


class _Empty(Exception):
    """A regime without a feasible recipe; the message names the constraints."""


class _Form(NamedTuple):
    """A bound on log k as c + a log r - b log(1 - r), and the constraint it comes from."""

    c: float
    a: int
    b: int
    text: str

    @property
    def order(self) -> int:
        """As r rises, the bound on S grows faster than that on D, and that on k not at all."""
        return self.a + self.b

    def at(self, r: float) -> float:
        return self.c + self.a * math.log(r) - (self.b * math.log1p(-r) if self.b else 0.0)


class _Limit(NamedTuple):
    value: float
    text: str


def faces(space: Space) -> tuple[dict[Regime, tuple[Face, ...]], dict[Regime, str]]:
    """Faces of each regime that has any, and why others have none. Raises InfeasibleError if none has."""
    found: dict[Regime, tuple[Face, ...]] = {}
    excluded: dict[Regime, str] = {}
    for regime in REGIMES:
        try:
            found[regime] = _faces_of(space, regime)
        except _Empty as reason:
            excluded[regime] = str(reason)
    if not found:
        reasons = dict.fromkeys(excluded.values())
        said = "; ".join(f"{', '.join(r for r in REGIMES if excluded[r] == why)}: {why}" for why in reasons)
        ranges = "; (runs) marks the range of the runs, which bounds of your own may widen"
        hint = ranges if "(runs)" in said else ""
        raise InfeasibleError(
            f"no recipe is feasible: {said if len(reasons) > 1 else next(iter(reasons))}{hint}"
        )
    return found, excluded


def _faces_of(space: Space, regime: Regime) -> tuple[Face, ...]:
    lows, highs = _ratio_limits(space, regime)
    _window(lows, highs)
    N, D, k, C = space["params"], space["tokens"], space["epochs"], space.compute
    lower = [_form(space, name, "low") for name in ("epochs", "tokens", "source_tokens")]
    upper = [_form(space, name, "high") for name in ("epochs", "tokens", "source_tokens")]
    _check_cost(space, lower, max(lows).value, min(highs).value)
    paid = space.cost.tokens(C, N.low)
    upper.append(_Form(_log(paid / space.target_tokens), 1, 0, f"compute={C:.4g} with {N.low_text}"))
    _window(*_with_forms(lows, highs, lower, upper))

    N_high = min(N.high, 1e30 / space.cost.unit_params)
    D_split = space.cost.tokens(C, N_high)  # below it the bound on N limits N, above it the budget
    tokens = [(D.low, min(D.high, D_split), 0.0)]
    if N.low < N_high:
        tokens.append((max(D.low, D_split), min(D.high, paid), 1.0))
    sides = [(k.low, min(k.high, 1.0))] if k.low <= 1 else []
    if k.high > 1:
        sides.append((max(k.low, 1.0), k.high))
    result = []
    for D_low, D_high, spend in tokens:
        for side in sides:
            low = [
                _Form(_log(side[0]), 0, 0, ""),
                _Form(_log(D_low / space.target_tokens), 1, 0, ""),
                lower[2],
            ]
            high = [
                _Form(_log(side[1]), 0, 0, ""),
                _Form(_log(D_high / space.target_tokens), 1, 0, ""),
                upper[2],
            ]
            try:
                r = _window(*_with_forms(lows, highs, low, high))
            except _Empty:
                continue
            for cell, (k_low, k_high), last in _cells(space, regime, r, low, high):
                result.append(
                    Face(
                        log_C=math.log(C),
                        U=space.target_tokens,
                        r=np.array(cell),
                        last=np.array(last),
                        epochs=np.array([k_low[:3], k_high[:3]], dtype=np.float64),
                        side=np.array(side),
                        log_N=np.log([N.low, N_high]),
                        spend=spend,
                    )
                )
    return tuple(result)


def _ratio_limits(space: Space, regime: Regime) -> tuple[list[_Limit], list[_Limit]]:
    """What the ratios' own bounds leave of r in a regime."""
    r, r_f, share, r_1 = (
        space["target_ratio"],
        space["final_ratio"],
        space["last_stage_share"],
        space.first_ratio,
    )
    lows, highs = [_Limit(r.low, r.low_text)], [_Limit(r.high, r.high_text)]
    if regime == "two-stage":
        if space.two_stages is False:
            raise _Empty(f"last_stage_share is frozen at {share.low:g}")
        if math.isnan(share.low):
            raise _Empty("no run had two stages (last_stage_share (runs))")
        if r_f.high <= r_1:
            raise _Empty(f"{r_f.high_text} is not above first_ratio {r_1:g}")
        least = max(r_f.low - r_1, 1e-6)
        lows.append(_Limit(r_1 + share.low * least, f"{share.low_text} and {r_f.low_text}"))
        highs.append(_Limit(r_1 + share.high * (r_f.high - r_1), f"{share.high_text} and {r_f.high_text}"))
        return lows, highs
    if space.two_stages:
        raise _Empty(f"last_stage_share is frozen at {share.low:g}")
    lows.append(_Limit(r_f.low, r_f.low_text))
    highs.append(_Limit(r_f.high, r_f.high_text))
    if regime == "monolingual":
        lows.append(_Limit(1.0, "target_ratio = 1"))
    return lows, highs


def _form(space: Space, name: str, end: Literal["low", "high"]) -> _Form:
    bound = space[name]
    value, text = (bound.low, bound.low_text) if end == "low" else (bound.high, bound.high_text)
    if name == "epochs":
        return _Form(_log(value), 0, 0, text)
    return _Form(_log(value / space.target_tokens), 1, int(name == "source_tokens"), text)


def _check_cost(space: Space, lower: Sequence[_Form], r_low: float, r_high: float) -> None:
    """Refuse bounds whose cheapest recipe costs more than C, by name."""
    epochs, tokens, source = lower
    U = space.target_tokens
    least = {
        f"{epochs.text} over {U:.4g} target tokens": space["epochs"].low * U / r_high,
        tokens.text: space["tokens"].low,
        source.text: space["source_tokens"].low / (1 - r_low) if r_low < 1 else 0.0,
    }  # fmt: skip
    for text, D in least.items():
        flops = float(space.cost.flops(space["params"].low, D)) if D else 0.0
        if flops > space.compute * (1 + TIE):
            raise _Empty(
                f"{space['params'].low_text} and {text} already cost {flops:.4g} {space.cost.unit}, more than "
                f"compute={space.compute:.4g}"
            )


def _with_forms(
    lows: Sequence[_Limit], highs: Sequence[_Limit], lower: Sequence[_Form], upper: Sequence[_Form]
) -> tuple[list[_Limit], list[_Limit]]:
    """The limits on r, with those that leave every upper bound on k above every lower one."""
    lows, highs = list(lows), list(highs)
    for low in lower:
        for high in upper:
            if low.c == -math.inf or high.c == math.inf:
                continue
            r = math.nan if low.order == high.order else _crossing(*sorted((low, high), key=_order))
            if low.order == high.order:
                impossible = low.c > high.c + TIE
            elif low.order < high.order:
                impossible = r > 1 + TIE
                if high.c == -math.inf:
                    said = f"{high.text}, which leaves no source text,"
                else:
                    said = f"{low.text} with {high.text}, which need target_ratio >= {r:.4g}"
                lows.append(_Limit(r, said))
            else:
                impossible = r <= 0
                highs.append(_Limit(r, f"{low.text} with {high.text}, which need target_ratio <= {r:.4g}"))
            if impossible:
                raise _Empty(f"{low.text} and {high.text} exclude each other")
    return lows, highs


def _window(lows: Sequence[_Limit], highs: Sequence[_Limit]) -> tuple[float, float]:
    """The range of r within all limits."""
    low, high = max(lows), min(highs)
    if low.value > high.value * (1 + TIE):
        raise _Empty(f"{low.text} and {high.text} exclude each other")
    return min(low.value, high.value), high.value


def _crossing(slow: _Form, fast: _Form) -> float:
    """The r from which on ``fast`` is the larger of two bounds on k; below 0 where it always is."""
    gap = slow.c - fast.c
    if (slow.order, fast.order) == (0, 1):
        return math.exp(min(gap, 700.0))
    if (slow.order, fast.order) == (0, 2):
        return 1 / (1 + math.exp(min(-gap, 700.0)))
    return 1 - math.exp(min(-gap, 700.0))


def _cells(
    space: Space, regime: Regime, r: tuple[float, float], lower: Sequence[_Form], upper: Sequence[_Form]
):
    """Cut a range of r where another bound takes over: ((low, high), bounds on k, bounds on r_f)."""
    if r[0] >= 1:  # no source text
        lower, upper = lower[:2], upper[:2]
    low_last, high_last = _last_stage_bounds(space, regime)
    cuts = [
        _crossing(*sorted(pair, key=_order)) for forms in (lower, upper) for pair in combinations(forms, 2)
    ]
    cuts += [
        (one[0] - other[0]) / (other[1] - one[1])
        for one, other in (low_last, high_last)
        if one[1] != other[1]
    ]
    ends = [r[0], *sorted(cut for cut in cuts if r[0] < cut < r[1]), r[1]]
    cells: list = []
    for low, high in pairwise(ends):
        middle = math.sqrt(low * high)
        binding = (
            (max(lower, key=lambda form: form.at(middle)), min(upper, key=lambda form: form.at(middle))),
            (
                max(low_last, key=lambda last: last[0] + last[1] * middle),
                min(high_last, key=lambda last: last[0] + last[1] * middle),
            ),
        )
        if cells and cells[-1][1:] == binding:
            low = cells.pop()[0][0]
        cells.append(((low, high), *binding))
    return cells


def _last_stage_bounds(space: Space, regime: Regime):
    """Low and high candidates of r_f, each an (intercept, slope) in r."""
    if regime != "two-stage":
        same = ((0.0, 1.0), (0.0, 1.0))
        return same, same
    r_f, share, r_1 = space["final_ratio"], space["last_stage_share"], space.first_ratio
    by_share = [(r_1 * (1 - 1 / s), 1 / s) for s in (share.high, share.low)]
    return ((r_f.low, 0.0), by_share[0]), ((r_f.high, 0.0), by_share[1])


def _order(form: _Form) -> int:
    return form.order


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
