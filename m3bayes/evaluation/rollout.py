"""rollout(runs, laws) -> Rollout: fit on some runs, predict the others, as a user would have had to.

Every law is fitted to the training runs of every split, with the prior that those runs give, and predicts the
test runs. Intervals hold uncertainty of the coefficients and the noise of a run; they assume that the law
holds where it is asked, and a test that they fail is how one learns that it does not. With ``discrepancy`` they
also hold a departure from the law, learned from the training runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

import numpy as np
import pandas as pd

from m3bayes.errors import M3BayesError, Note, RunTableError
from m3bayes.evaluation.candidates import check_feeds, counts, failed_note, flagged_note, named_apart
from m3bayes.evaluation.compare import stacking_weights
from m3bayes.evaluation.discrepancy import discrepancy as with_discrepancy
from m3bayes.evaluation.given import check_noise, check_runs, check_share
from m3bayes.evaluation.scores import Scores, predictive, score
from m3bayes.evaluation.splits import CUTS, FOLDS, NEAR, Split, atlas_splits, check_masks
from m3bayes.evaluation.splits import splits as splits_by
from m3bayes.inference.many import fit_many
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import ASSUMING, DEPARTING
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

Report = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Rollout:
    """Predictions of held-out runs, law by law and split by split.

    ``table``   a row a law and split: ``law``, ``split``, ``train`` and ``test`` (runs), ``verdict`` (passed,
                flagged, or failed: no posterior), ``coefficients`` (of the law), ``compute_ratio`` (largest
                compute of the test runs / of the training runs), then
                the :class:`~m3bayes.evaluation.scores.Scores`, NaN where the fit failed
    ``runs``    a row a law, split and test run: ``law``, ``split``, ``run``, ``loss`` as measured, ``loss_mean``,
                ``new_run_lower`` and ``new_run_upper`` (of level ``ci``), in the table's unit; ``pit``, the
                probability that a new run's loss is lower, uniform where the posterior is right; ``log_density``
                of the loss, whose sum is elpd
    ``ci``      level of the intervals in ``runs``
    ``kind``    what the intervals hold
    ``notes``   FLAGGED and FAILED fits, SPLIT_LEFT_OUT, CUTS_MERGED
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    ci: float
    kind: str
    notes: tuple[Note, ...]


def rollout(
    runs: Runs,
    laws: Law | Sequence[Law],
    by: str = "compute",
    *,
    cuts: Sequence[float] = CUTS,
    folds: int = FOLDS,
    splits: Sequence[Split] | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 500,
    ci: float = 0.9,
    discrepancy: bool = False,
    report: Report | None = None,
) -> Rollout:
    """Fit every law to the training runs of every split and predict the test runs.

    ``by``      "compute", "params", "tokens", "target_tokens", "mixture", "random", "atlas" or a column: see
                :func:`m3bayes.evaluation.splits.splits`, which also takes ``cuts`` and ``folds``
    ``splits``  of one's own instead
    ``noise``, ``chains``, ``warmup``, ``draws``, ``seed`` as for :func:`m3bayes.fit`; the seed is also that of
                random splits, and gives the same table again
    ``discrepancy``  adds one to every posterior (:func:`m3bayes.discrepancy`, which fits parts of the training runs:
                seven times the work)
    ``report``  is called with fits done and fits in all, those for a discrepancy not counted

    Runs of weight 0 neither train nor test. A fit that misses its gate is in the table as flagged, one that
    fails as failed, each with a note. Raises RunTableError for a table that a law cannot read or a split that
    cannot be, M3BayesError for a wrong ``ci`` or where every fit fails.
    """
    check_share("ci", ci, "the share of new runs in the interval, as .9")
    check_runs(runs)
    check_noise(noise)
    named, noise = named_apart(laws), student_t() if noise is None else noise
    check_feeds(runs, named, noise)
    counted = counts(runs)
    chosen, notes = _splits(runs, by, cuts, folds, splits, seed)
    trained = [runs.select(split.train & counted) for split in chosen]
    fits = {
        name: fit_many(
            trained, law, noise=noise, seed=seed, chains=chains, warmup=warmup, draws=draws,
            log_likelihood=False, process=(0, 1),
            report=None if report is None else partial(_of_all, report, len(trained), i, len(named)),
        )
        for i, (name, law) in enumerate(named.items())
    }  # fmt: skip
    rows, predictions = [], []
    for number, (split, train) in enumerate(zip(chosen, trained, strict=True)):
        tested = split.test & counted
        test = runs.select(tested)
        for name, law in named.items():
            row = {
                "law": name,
                "split": split.name,
                "train": len(train),
                "test": len(test),
                "verdict": "failed",
                "coefficients": len(law.names),
                "compute_ratio": float(test.compute.max() / train.compute.max()),
            }
            try:
                post = fits[name][str(number)]
                if discrepancy:
                    post = with_discrepancy(post, seed=seed)
                found = predictive(post, test)
                scores = score(found, test["loss"])
            except M3BayesError as error:
                notes.append(failed_note(name, split.name, error))
                rows.append(row | dict.fromkeys((field.name for field in fields(Scores)), np.nan))
            else:
                if post.verdict == "flagged":
                    notes.append(flagged_note(name, split.name, post))
                rows.append(row | {"verdict": post.verdict} | asdict(scores))
                lower, upper = found.interval(ci)
                predictions.append(
                    pd.DataFrame(
                        {
                            "law": name,
                            "split": split.name,
                            "run": np.array(runs.names)[tested],
                            "loss": test["loss"],
                            "loss_mean": found.loss_mean,
                            "new_run_lower": lower,
                            "new_run_upper": upper,
                            "pit": found.probability_below(test["loss"]),
                            "log_density": found.log_density(test["loss"]),
                        }
                    )
                )
    if not predictions:
        raise M3BayesError(f"no fit could be made: {notes[-1].message}")
    return Rollout(
        pd.DataFrame(rows),
        pd.concat(predictions, ignore_index=True),
        ci,
        DEPARTING if discrepancy else ASSUMING,
        tuple(notes),
    )


def rollout_weights(found: Rollout) -> dict[str, float]:
    """{law: weight}, adding to 1: the mixture of the laws' predictions of the held-out runs with the highest elpd.

    The stacking of :func:`m3bayes.compare` (Yao et al. 2018), over runs that were larger than those fitted where
    ``found`` is by compute: there a law is asked what a decision will ask of it, while leave-one-out rewards laws
    that pass well between runs. Every split counts with its runs, so that a run held out in two counts twice. A law
    whose fit failed in any split gets 0. Raises M3BayesError where every law has one.
    """
    if not isinstance(found, Rollout):
        raise M3BayesError(f"found is {found!r}; give what m3bayes.rollout returned")
    density = found.runs.pivot(index=["split", "run"], columns="law", values="log_density")
    failed = set(found.table.loc[found.table["verdict"] == "failed", "law"])
    names = list(dict.fromkeys(found.table["law"]))
    sound = [name for name in names if name not in failed]
    if not sound:
        raise M3BayesError(
            "every law has a split whose fit failed; leave that split out, or give further laws"
        )
    weights = dict(zip(sound, stacking_weights(density[sound].to_numpy()), strict=True))
    return {name: float(weights.get(name, 0.0)) for name in names}


def _of_all(report: Report, splits: int, law: int, laws: int, done: int, _: str) -> None:
    """Pass on how many fits of one law are done, those of the laws before it counted too."""
    report(law * splits + done, laws * splits)


def _splits(
    runs: Runs,
    by: str,
    cuts: Sequence[float],
    folds: int,
    given: Sequence[Split] | None,
    seed: int,
) -> tuple[tuple[Split, ...], list[Note]]:
    if given is not None:
        return _checked(runs, given), []
    if by != "atlas":
        made = splits_by(runs, by, cuts, folds, seed)
        ordered = all(split.name.startswith(f"{by} >= ") for split in made) and by != "params"
        if not ordered or len(made) >= len(set(cuts)):
            return made, []
        said = (
            f"{len(set(cuts))} cuts by {by} gave {len(made)} split{'s' if len(made) > 1 else ''}: each is at the "
            f"widest gap within {NEAR:g} of the runs, so that runs of one size stay together"
        )
        return made, [Note("CUTS_MERGED", said, (by,))]
    found = atlas_splits(runs, seed)
    kept = tuple(split for split in found.values() if isinstance(split, Split))
    if not kept:
        raise next(error for error in found.values() if isinstance(error, RunTableError))
    return kept, [
        Note("SPLIT_LEFT_OUT", f"split {name!r} is left out: {error}", (name,))
        for name, error in found.items()
        if isinstance(error, RunTableError)
    ]


def _checked(runs: Runs, given: Sequence[Split]) -> tuple[Split, ...]:
    if not given:
        raise RunTableError("splits: none given, expected at least one Split")
    counted, checked = counts(runs), []
    for split in given:
        check_masks(split, runs)
        train, test = (np.asarray(mask) & counted for mask in (split.train, split.test))
        if (train & test).any() or not train.any() or not test.any():
            raise RunTableError(
                f"split {split.name!r} has {(train & test).sum()} runs in both parts, "
                f"{train.sum()} to train on and {test.sum()} to test; expected none, some and some"
            )
        checked.append(Split(split.name, train, test))
    return tuple(checked)
