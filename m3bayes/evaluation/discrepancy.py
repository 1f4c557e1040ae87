"""discrepancy(post) -> Posterior: intervals that allow the law to fail beyond the runs.

Draws of a law's coefficients say how well the runs fix them, not whether the law still holds at ten times the
compute, and such intervals are too narrow there. Here every draw also gets a smooth departure from the law, 0 inside
the range of the runs and growing beyond it, to a factor e of the loss at most (:mod:`m3bayes.laws.departing`; model
discrepancy in the sense of Kennedy and O'Hagan 2001). How large departures are is learned by rollouts inside the
table: the law is fitted to smaller runs and predicts larger ones.

    w_v ~ Normal(0, s^2),   log s ~ Normal(mu, tau^2)   for each rollout, and for the step beyond all runs
    mu ~ Normal(log .04, .4^2),   tau ~ HalfNormal(.7)

| symbol | meaning |
|---|---|
| w_v | departure of log loss at e times beyond the edge v of the range |
| s | its standard deviation: one a rollout, and one of the same family for what is asked now |
| mu, tau | where the log s lie, and how they differ from rollout to rollout |

The likelihood of an s is the product over held-out runs of their predictive densities, one by one: it asks that
intervals have the right width, not that one straight departure explain all runs at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from jaxtyping import Float
from scipy import special

from m3bayes.errors import FitError, M3BayesError, Note, RunTableError
from m3bayes.evaluation.candidates import counts
from m3bayes.evaluation.given import check_posterior, check_whole
from m3bayes.evaluation.scores import Predictive, predictive
from m3bayes.evaluation.splits import Split, check_masks, splits
from m3bayes.inference.many import fit_many
from m3bayes.inference.pooled import refuse_pooled
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.departing import LIMIT, SCALE, Edges, departing, departs, edges_of, limited, reach
from m3bayes.laws.law import RECIPE_COLUMNS
from m3bayes.runs import Runs

SPREAD, BETWEEN = 0.4, 0.7  # prior sd of mu, and scale of tau
FEWEST_TRAIN, FEWEST_TEST = 25, 5
# s is followed on a grid, and so are mu and tau
SCALES = np.exp(np.linspace(np.log(1e-3), np.log(1.0), 57))
CENTRES = np.log(SCALE) + SPREAD * np.linspace(-2.5, 2.5, 31)
BETWEENS = BETWEEN * np.linspace(0.05, 2.5, 15)

Curve = Float[np.ndarray, " scale"]


def discrepancy(
    post: Posterior,
    *,
    scale: float | int | None = None,
    rollouts: Sequence[Split] | None = None,
    draws: int = 250,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Posterior:
    """The posterior with a departure from the law beyond the range of its runs, in every draw.

    ``scale``     standard deviation of the departure of log loss at e times beyond an end of a range (of N, U, k, D,
                  N D, r or r_f); by default it is learned
    ``rollouts``  splits of the runs to learn from; by default up to three by compute and three by N, those with at
                  least 25 training and 5 test runs. Each is a fit, of 4 chains of ``draws`` draws
    ``seed``      of those fits and of the departures
    ``report``    called with rollouts done and rollouts in all

    What takes a posterior takes the result: :func:`m3bayes.predict`, :func:`m3bayes.recommend`, ``save``. Note
    DISCREPANCY says how large departures are; where no rollout is possible, or none can be fitted, they are as
    large as the prior has them (median .04, 90 % between .01 and .15), and it says so.

    Raises M3BayesError where the posterior has a departure already or ``scale`` is no number in (0, 1], FitError
    for a posterior of a pooled fit without ``scale``, RunTableError for rollouts that do not fit the runs.
    """
    check_posterior(post)
    check_whole("seed", seed, 0)
    if departs(post.law):
        raise M3BayesError("the posterior has a discrepancy already; give the one it was made from")
    if scale is None:
        refuse_pooled(post, "its runs alone cannot say how far the law fails: give scale, as .04, or")
    if scale is not None and (
        isinstance(scale, bool) or not isinstance(scale, int | float | np.number) or not 0 < scale <= LIMIT
    ):
        raise M3BayesError(
            f"scale is {scale!r}; give a standard deviation of log loss above 0, at most {LIMIT:g}, as .04"
        )
    law = departing(post.law, _edges(post.runs))
    names = law.names[len(post.law.names) :]
    shape = post.draws[post.law.names[0]].shape
    random = np.random.default_rng([seed, zlib.crc32(b"discrepancy")])
    if scale is None:
        curves = _curves(post, _default(post.runs) if rollouts is None else rollouts, draws, seed, report)
        s = random.choice(SCALES, shape, p=scale_probabilities(curves))
        low, middle, high = np.quantile(s, [0.05, 0.5, 0.95])
        size = f"{middle:.2g} (90 % between {low:.2g} and {high:.2g})"
        count = f"{len(curves)} rollout{'s' if len(curves) > 1 else ''}"
        origin = f"learned from {count} within the runs" if curves else "as the prior has it"
    else:
        s = np.full(shape, float(scale))
        size, origin = f"{scale:g}", "as given"
    message = (
        f"beyond the range of the runs intervals hold a departure from law {post.law.name}: standard deviation "
        f"of log loss {size} at e times beyond an end of it, {origin}"
    )
    return replace(
        post,
        law=law,
        draws={
            **{name: post.draws[name] for name in post.law.names},
            **{name: s * random.standard_normal(shape) for name in names},
            **{name: values for name, values in post.draws.items() if name not in post.law.names},
        },
        notes=(*post.notes, Note("DISCREPANCY", message, names)),
    )


def scale_probabilities(curves: Sequence[Curve]) -> Curve:
    """Probabilities of s on the grid SCALES for the next step beyond, given log likelihoods of the rollouts' own."""
    log_s, mu, tau = np.log(SCALES), CENTRES[:, None, None], BETWEENS[None, :, None]
    family = -0.5 * ((log_s - mu) / tau) ** 2
    family = family - np.asarray(special.logsumexp(family, axis=-1, keepdims=True))
    log_p = -0.5 * ((CENTRES[:, None] - np.log(SCALE)) / SPREAD) ** 2 - 0.5 * (BETWEENS / BETWEEN) ** 2
    for curve in curves:
        log_p = log_p + np.asarray(special.logsumexp(family + curve, axis=-1))
    log_next = np.asarray(special.logsumexp(log_p[..., None] + family, axis=(0, 1)))
    return special.softmax(log_next)


def _default(runs: Runs) -> list[Split]:
    """Smaller runs predict larger ones: by compute and by N, where enough are left on both sides."""
    found = []
    for by in ("compute", "params"):
        try:
            found += splits(runs, by)
        except RunTableError:  # all alike in it, or too few runs
            continue
    return [s for s in found if s.train.sum() >= FEWEST_TRAIN and s.test.sum() >= FEWEST_TEST]


def _curves(
    post: Posterior,
    rollouts: Sequence[Split],
    draws: int,
    seed: int,
    report: Callable[[int, int], None] | None,
) -> list[Curve]:
    """log likelihood of each s, rollout by rollout; without those whose fit fails."""
    for split in rollouts:
        check_masks(split, post.runs)
    counted = counts(post.runs)
    trained = [post.runs.select(split.train & counted) for split in rollouts]
    fits = fit_many(
        trained, post.law, noise=post.noise, seed=seed, draws=draws, log_likelihood=False,
        report=None if report is None else lambda done, _: report(done, len(trained)),
    )  # fmt: skip
    found = []
    for number, split in enumerate(rollouts):
        try:
            fitted = fits[str(number)]
        except FitError:
            continue
        test = post.runs.select(split.test & counted)
        found.append(_curve(predictive(fitted, test), test, _edges(fitted.runs), seed))
    return found


def _curve(found: Predictive, test: Runs, edges: Edges, seed: int) -> Curve:
    with jax.enable_x64(True):
        reached = jax.vmap(partial(reach, edges))(_recipes(test))
    beyond = np.stack(list(reached.values()), axis=1)
    random = np.random.default_rng([seed, zlib.crc32(b"rollout")])
    departure = random.standard_normal((len(found.t), beyond.shape[1])) @ beyond.T

    def log_likelihood(s: float) -> float:
        with jax.enable_x64(True):
            log_loss = found.log_loss + np.asarray(limited(s * departure))
        return float(np.sum(replace(found, log_loss=log_loss).log_density(test["loss"])))

    return np.array([log_likelihood(s) for s in SCALES])


def _edges(runs: Runs) -> Edges:
    with jax.enable_x64(True):
        return edges_of(_recipes(runs.select(counts(runs))))


def _recipes(runs: Runs) -> dict[str, np.ndarray]:
    return {name: runs[name] for name in RECIPE_COLUMNS}
