"""The questions the other way round: how much compute, text or size a loss takes, and what more text is worth.

"Reaches loss L with probability p" always means the recommended recipe, the one with the smallest expected
loss: at least a share p of the draws put its loss on the mean surface at L or below. That is its p-quantile
over the draws against L, which is smooth, so that roots are found by Brent's method on logs.

| symbol | meaning | unit |
|---|---|---|
| C | compute | FLOP |
| U = D_T | unique target tokens | table's |
| N, k, r, r_f, D | as in :mod:`m3bayes.decision.faces` | |
| V_d(C, U) | loss of draw d's own optimum | table's loss |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float

from m3bayes.decision.budgets import (
    CostLike,
    Number,
    Recommended,
    Request,
    recommended,
    regime_optima,
    request,
)
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.regret import Interval, interval
from m3bayes.decision.residuals import at_bounds, residuals, unspendable
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import Bounds, Space, check_numbers
from m3bayes.errors import InfeasibleError, Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.recipe import Recipe

# draws that the searches use, evenly thinned; values tried before the root is bracketed; precision of its log
DRAWS, TRIED, PRECISION = 512, 9, 1e-3
# searches end at so many times the runs' own range
FAR = 1e6
# compute that may stand in for text, as multiples of the budget
MULTIPLES = np.geomspace(1.0, 1e3, 13)


@dataclass(frozen=True, eq=False)
class Least:
    """The least of a quantity with which the recommended recipe reaches a loss.

    ``quantity``, ``value``  compute (FLOP), target_tokens or params (table's units)
    ``recipe``       what is recommended there
    ``loss``         its loss, with the 90 % interval of the mean surface
    ``probability``  that its loss is at most what was asked for
    """

    quantity: str
    value: float
    recipe: Recipe
    loss: Interval
    probability: float
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class ValueOfText:
    """What more target text is worth, each draw at its own optimum.

    ``gain``         V(C, U) - V(C, U + more), in the table's unit of loss
    ``compute``      the compute that saves as much at the same U, as a multiple of C, at most 1000
    ``beyond``       share of the draws in which 1000 C do not
    """

    more: float
    gain: Interval
    compute: Interval
    beyond: float
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class BestEpochs:
    """How often to go over a corpus with a model given.

    ``recipe``   the recipe with the smallest expected loss, ``loss`` its loss
    ``epochs``   each draw's own best k, with its interval
    """

    recipe: Recipe
    epochs: Interval
    loss: Interval
    notes: tuple[Note, ...]


def least_compute(
    post: Posterior,
    target_tokens: Number,
    loss: Number,
    probability: float = 0.9,
    *,
    bounds: Bounds | None = None,
    freeze: Mapping[str, Number] | None = None,
    cost: CostLike | None = None,
    constraints: Sequence[Constraint] = (),
) -> Least:
    """The least compute (FLOP) that reaches a loss on the mean surface with a probability.

    ``target_tokens`` is U, in the table's unit; ``bounds``, ``freeze``, ``cost`` and ``constraints`` as in
    :func:`m3bayes.recommend` (where the compute changes, further budgets take longer: their programs are compiled
    for every value tried). At most 512 draws are used; the answer is good to .1 %. Notes as of ``recommend``,
    AT_BOUND too. Raises InfeasibleError with the best probability that the bounds allow where that is too small.
    """
    _check(loss, probability)
    asked = request(post, cost, bounds, freeze, DRAWS, constraints)
    space = asked.at(1.0, target_tokens)  # for its bounds
    with jax.enable_x64(True):
        counted = space.budgets[0].cost
        dearest = float(counted.flops(*(_capped(space, name, asked) for name in ("params", "tokens"))))
        low = float(counted.flops(space["params"].low, space["tokens"].low))
    high = min(dearest, FAR * space.runs_compute)
    return _least(
        "compute", low, high, lambda C: recommended(asked, asked.at(C, target_tokens)), loss, probability
    )


def least_target_text(
    post: Posterior,
    compute: Number,
    loss: Number,
    probability: float = 0.9,
    *,
    bounds: Bounds | None = None,
    freeze: Mapping[str, Number] | None = None,
    cost: CostLike | None = None,
    constraints: Sequence[Constraint] = (),
) -> Least:
    """The least unique target text (table's unit of tokens) with which ``compute`` FLOP reach a loss.

    As :func:`least_compute`. The text is sought from a millionth of the runs' to a million times as much.
    """
    _check(loss, probability)
    asked = request(post, cost, bounds, freeze, DRAWS, constraints)
    U = post.runs["target_tokens"]
    low = max(float(U.min()) / FAR, 1 / post.runs.unit_tokens)
    return _least(
        "target_tokens", low, float(U.max()) * FAR, lambda U: recommended(asked, asked.at(compute, U)), loss,
        probability,
    )  # fmt: skip


def smallest_model(
    post: Posterior,
    compute: Number,
    target_tokens: Number,
    loss: Number,
    probability: float = 0.9,
    *,
    bounds: Bounds | None = None,
    freeze: Mapping[str, Number] | None = None,
    cost: CostLike | None = None,
    constraints: Sequence[Constraint] = (),
) -> Least:
    """The smallest N (table's unit of parameters) with which at most ``compute`` FLOP reach a loss.

    As :func:`least_compute`; N is sought within its bounds, the others are recommended for each N.
    """
    _check(loss, probability)
    asked = request(post, cost, bounds, freeze, DRAWS, constraints)
    space = asked.at(compute, target_tokens)
    others = replace(
        asked,
        bounds={name: ends for name, ends in asked.bounds.items() if name not in ("params", "N")},
        constraints=[each for each in asked.constraints if each.of not in ("params", "N")],
    )

    def of_size(N: float) -> Recommended:
        held = replace(others, freeze={**asked.freeze, "params": N})
        return recommended(held, held.at(compute, target_tokens))

    # from the size that is best on, larger ones lose again
    best = recommended(asked, space)[0].params
    return _least("params", space["params"].low, best, of_size, loss, probability)


def value_of_text(
    post: Posterior,
    compute: Number,
    target_tokens: Number,
    more: Number,
    *,
    ci: float = 0.9,
    bounds: Bounds | None = None,
    freeze: Mapping[str, Number] | None = None,
    cost: CostLike | None = None,
    constraints: Sequence[Constraint] = (),
) -> ValueOfText:
    """What ``more`` unique target tokens (table's unit) are worth at a budget: in loss, and in compute.

    Other arguments as in :func:`m3bayes.recommend`. Both sides are each draw's own optimum within the bounds and
    constraints, which are the same for both. Note BEYOND_1000X where more than 1000 C would be needed. Raises
    InfeasibleError where nothing is feasible.
    """
    check_numbers(target_tokens=target_tokens, more=more, ci=ci)
    if not (0 < more < math.inf and 0 < ci < 1):
        raise RecipeError(f"more is {more} and ci {ci}; expected tokens above 0 and a probability")
    asked = request(post, cost, bounds, freeze, DRAWS, constraints)
    spaces = asked.at(compute, target_tokens), asked.at(compute, target_tokens + more)
    with jax.enable_x64(True):
        for space in spaces:
            faces_within(space)
    found, with_more = (regime_optima(asked, space) for space in spaces)
    values = [_best_loss(found)]
    wanted = _best_loss(with_more)
    for multiple in MULTIPLES[1:]:
        if np.all(values[-1] <= wanted):
            break
        found = regime_optima(asked, asked.at(compute * float(multiple), target_tokens), [found])
        # what may be left unspent cannot harm: an optimum missed on the way does not count
        values.append(np.minimum(_best_loss(found), values[-1]))
    log_multiple, beyond = _crossing(np.log(MULTIPLES[: len(values)]), np.stack(values), wanted)
    return ValueOfText(
        more=float(more),
        gain=interval(values[0] - wanted, ci),
        compute=interval(np.exp(log_multiple), ci),
        beyond=float(np.mean(beyond)),
        notes=unique_notes(
            [*(note for space in spaces for note in space.notes), *_beyond(beyond, spaces[0])]
        ),
    )


def best_epochs(
    post: Posterior,
    params: Number,
    target_tokens: Number,
    *,
    target_ratio: Number = 1.0,
    final_ratio: Number | None = None,
    ci: float = 0.9,
    bounds: Bounds | None = None,
    cost: CostLike | None = None,
) -> BestEpochs:
    """How many epochs over ``target_tokens`` (U) a model of ``params`` (N) should train, compute no object.

    N and U are in the table's units; ``target_ratio`` r and ``final_ratio`` r_f (default r) are held. Within
    the bounds on k and on tokens, by default the range of the runs; where k runs into one of them a note
    AT_BOUND says so. Raises InfeasibleError where no k is feasible.
    """
    check_numbers(params=params, target_tokens=target_tokens, target_ratio=target_ratio, ci=ci)
    if not 0 < ci < 1:
        raise RecipeError(f"ci is {ci}; expected a probability between 0 and 1")
    last = target_ratio if final_ratio is None else final_ratio
    held = {"params": params, "target_ratio": target_ratio, "final_ratio": last}
    asked = request(post, cost, bounds, held, DRAWS)
    space = asked.at(1.0, target_tokens)
    D = min(_capped(space, "tokens", asked), _capped(space, "epochs", asked) * target_tokens / target_ratio)
    with jax.enable_x64(True):
        dearest = float(space.cost.flops(params, D)) * (1 + 1e-9)
    space = asked.at(dearest, target_tokens)
    recipe, losses, _ = recommended(asked, space)
    found = regime_optima(asked, space)
    regime = min(found, key=lambda regime: float(np.mean(found[regime].loss)))
    notes = [note for note in space.notes if "compute" not in note.about]
    for name in ("epochs", "tokens"):
        bound, value = space[name], getattr(recipe, name)
        for end, text in ((bound.low, bound.low_text), (bound.high, bound.high_text)):
            if math.isclose(value, end, rel_tol=1e-6):
                notes.append(Note("AT_BOUND", f"the best epochs run into {text}", (name,)))
    return BestEpochs(
        recipe=recipe,
        epochs=interval(found[regime].columns["epochs"], ci),
        loss=interval(losses, ci),
        notes=unique_notes(notes),
    )


def _least(
    quantity: str,
    low: float,
    high: float,
    recommend: Callable[[float], Recommended],
    loss: Number,
    probability: float,
) -> Least:
    """The first root between low and high of the recommended recipe's quantile less the loss asked for."""
    from scipy.optimize import brentq  # slow to import

    attained: list[float] = []
    why = ""

    def excess(log_value: float) -> float:
        nonlocal why
        try:
            _, losses, _ = recommend(math.exp(log_value))
        except InfeasibleError as error:
            why = str(error)
            return float(loss)
        attained.append(float(np.mean(losses <= loss)))
        return float(np.quantile(losses, probability, method="inverted_cdf")) - loss

    before = math.log(low)
    for value in np.linspace(before, math.log(high), TRIED).tolist():
        if excess(value) <= 0:
            break
        before = value
    else:
        if not attained:
            raise InfeasibleError(f"{quantity} from {low:.4g} to {high:.4g}: {why}")
        raise InfeasibleError(
            f"no {quantity} from {low:.4g} to {high:.4g} reaches loss {loss:g} with probability "
            f"{probability:g}; the best is {max(attained):.3g}: ask for a higher loss, or widen the bounds"
        )
    root, notes = value, []
    if before == value:
        said = f"the least {quantity} looked at, {low:.4g}, is enough, and less may be"
        notes = [Note("AT_BOUND", said, (quantity,))]
    else:
        root = float(brentq(excess, before, value, xtol=PRECISION))  # pyright: ignore[reportArgumentType]
        # the root may be a hair below the loss asked for
        while excess(root) > 0:
            root = min(root + PRECISION, value)
    recipe, losses, space = recommend(math.exp(root))
    return Least(
        quantity=quantity,
        value=math.exp(root),
        recipe=recipe,
        loss=interval(losses, 0.9),
        probability=float(np.mean(losses <= loss)),
        notes=unique_notes([*space.notes, *notes, *at_bounds(residuals(space, recipe), space)]),
    )


def _check(loss: Number, probability: float) -> None:
    check_numbers(loss=loss, probability=probability)
    if not (0 < loss < math.inf and 0 < probability < 1):
        raise RecipeError(
            f"loss is {loss} and probability {probability}; expected a loss above 0 and 0 < p < 1"
        )


def _capped(space: Space, name: str, asked: Request) -> float:
    """The upper bound of a variable, and where it was lifted far beyond the runs."""
    runs = asked.post.runs
    most = {"params": runs["params"], "tokens": runs.tokens, "epochs": runs["epochs"]}[name].max()
    return min(space[name].high, FAR * float(most))


def _beyond(beyond: np.ndarray, space: Space) -> list[Note]:
    share = float(np.mean(beyond))
    if not share:
        return []
    most = float(MULTIPLES[-1])
    said = (
        f"in {share:.0%} of the draws {most:g} times the compute saves less than the text: there its worth "
        "in compute is counted as that, and is more"
    )
    return [
        Note("BEYOND_1000X", said, ("compute",)),
        *unspendable(replace(space, compute=most * space.compute)),
    ]


def _best_loss(found: Mapping) -> Float[np.ndarray, " draw"]:
    return np.min([optima.loss for optima in found.values()], axis=0)


def _crossing(
    x: Float[np.ndarray, " step"], falling: Float[np.ndarray, "step draw"], wanted: Float[np.ndarray, " draw"]
) -> tuple[Float[np.ndarray, " draw"], np.ndarray]:
    """The x at which each draw's falling values come to what is wanted, by straight lines; the last x, and
    True, where they do not."""
    reached = falling <= wanted
    after = np.argmax(reached, axis=0)
    never = ~reached.any(axis=0)
    draws = np.arange(falling.shape[1])
    before = np.maximum(after - 1, 0)
    high, low = falling[before, draws], falling[after, draws]
    share = np.where(high > low, (high - wanted) / np.where(high > low, high - low, 1.0), 1.0)
    at = np.where(after > 0, x[before] + share * (x[after] - x[before]), x[0])
    return np.where(never, x[-1], at), never
