"""Recommendations, and how to go on with a checkpoint, as text."""

from __future__ import annotations

import math

from pandas import DataFrame

from m3bayes.cli.show import number, section, table
from m3bayes.decision import Recommendation
from m3bayes.decision.continuing import Continuation
from m3bayes.decision.space import LETTERS

UNITS = {
    "params": "table's unit of params",
    "epochs": "over the unique target tokens",
    "target_ratio": "target share of all tokens",
    "final_ratio": "target share in the last stage",
    "tokens": "table's unit of tokens",
    "source_tokens": "table's unit of tokens",
    "last_stage_share": "of all tokens in the last stage",
}


def recommendation_text(result: Recommendation) -> str:
    """A recommendation as tables, with what binds and what can be built."""
    parts = [_recommended(result), "", constraints_text(result.constraints)]
    if result.snapped is not None:
        excess = result.snapped.excess
        tried = [
            (name, row["value"], row.get("loss_mean", math.nan), row.get("epochs", math.nan), row["why_not"])
            for name, row in result.snapped.tried.iterrows()
        ]
        title = (
            f"Architectures and multiples that were tried: the loss is {number(excess.mean)} "
            f"({number(excess.lower)} to {number(excess.upper)}) above that of any size and number"
        )
        parts.append(section(title, table(("", "value", "loss", "epochs", "not feasible"), tried)))
    return "\n".join(parts)


def _recommended(result: Recommendation) -> str:
    best, ci = result.recipe, f"{result.ci:.0%}"
    optimum, near = result.optimum.summary, result.near_optimal
    variables = [
        (
            name,
            getattr(best, name),
            *(optimum[part].get(name, math.nan) for part in ("median", "lower", "upper")),
            *near.ranges.get(name, (math.nan, math.nan)),
            UNITS[name],
        )
        for name in LETTERS
    ]
    tokens = sum(stage.tokens for stage in result.schedule.stages)
    stages = [
        (number, stage.tokens, stage.tokens / tokens, stage.target_ratio)
        for number, stage in enumerate(result.schedule.stages, start=1)
    ]
    regimes = [
        (
            name,
            row["probability_best"],
            row["gain_mean"],
            row["probability_gain"],
            row["loss_mean"],
            row["excluded"],
        )
        for name, row in result.regimes.iterrows()
    ]
    baselines = [
        (name, row["loss_mean"], row["excess_mean"], row["excess_lower"], row["excess_upper"],
         row["compute"], row["params"], row["epochs"], row["target_ratio"], row["why_not"])
        for name, row in result.baselines.iterrows()
    ]  # fmt: skip
    draws = (
        f"each draw's own optimum, median and {ci} interval; near-optimal: within {near.tolerance:g} of it"
    )
    return "\n".join(
        [
            section(
                f"Recommended: {result.regime}, for {number(result.compute)} {result.unit} and "
                f"{number(result.target_tokens)} unique target tokens",
                table(("stage", "tokens", "of all tokens", "target ratio"), stages),
            ),
            section(
                f"Recipe, beside {draws} with probability {near.probability:g}",
                table(("", "recipe", "median", "lower", "upper", "near from", "to", "unit"), variables),
            ),
            _losses(result),
            section(
                f"Regimes: probability to be best; gain over the simpler, P that it is > {result.margin:g}",
                table(("", "P(best)", "gain", "P(gain)", "loss", "excluded by"), regimes),
            ),
            section(
                "Baselines: loss, and what it is above that of the recommended recipe",
                table(
                    (
                        "",
                        "loss",
                        "above",
                        "lower",
                        "upper",
                        result.unit,
                        "params",
                        "epochs",
                        "ratio",
                        "not feasible",
                    ),
                    baselines,
                ),
            ),
            f"Compute: {number(result.compute_used)} of {number(result.compute)} {result.unit} used ({result.cost})",
        ]
    )


def continuation_text(result: Continuation) -> str:
    """How to go on with a checkpoint, as tables."""
    given, stage, best, loss = result.checkpoint, result.stage, result.recipe, result.loss
    ci = f"{result.ci:.0%}"
    stages = [
        ("paid for", given.tokens, given.tokens / best.tokens, given.target_ratio),
        ("to train", stage.tokens, stage.tokens / best.tokens, stage.target_ratio),
    ]
    of_run = vars(best) | {"stage_tokens": stage.tokens, "loss": loss.mean}
    variables = [
        (name, of_run[str(name)], row["median"], row["lower"], row["upper"])
        for name, row in result.optimum.iterrows()
    ]
    baselines = [
        (
            name,
            row["loss_mean"],
            row["excess_mean"],
            row["compute"],
            row["tokens"],
            row["final_ratio"],
            row["why_not"],
        )
        for name, row in result.baselines.iterrows()
    ]
    return "\n".join(
        [
            section(
                f"Recommended: going on with {number(given.params)} params, for {number(result.compute)} "
                f"{result.unit} and {number(result.target_tokens)} unique target tokens",
                table(("stage", "tokens", "of all tokens", "target ratio"), stages),
            ),
            section(
                f"The whole run, beside each draw's own optimum, median and {ci} interval",
                table(("", "recipe", "median", "lower", "upper"), variables),
            ),
            _losses(result),
            section(
                "Baselines: loss, and what it is above that of the recommended stage",
                table(("", "loss", "above", result.unit, "tokens", "last ratio", "not feasible"), baselines),
            ),
            constraints_text(result.constraints),
            f"Compute: {number(result.compute_used)} of {number(result.compute)} {result.unit} used ({result.cost})",
        ]
    )


def constraints_text(rows: DataFrame) -> str:
    binding = rows[rows["binding"].to_numpy(bool)]
    return section(
        "Constraints that bind",
        table(("", "value"), [(text, row["value"]) for text, row in binding.iterrows()])
        if len(binding)
        else "none",
    )


def _losses(result: Recommendation | Continuation) -> str:
    loss, regret = result.loss, result.regret
    rows = [
        ("mean surface", loss.mean, loss.sd, loss.lower, loss.upper),
        ("a new run", math.nan, math.nan, loss.new_run_lower, loss.new_run_upper),
        ("regret", regret.mean, math.nan, regret.lower, regret.upper),
    ]
    return section(
        f"Loss, {result.ci:.0%} intervals; regret is the loss above each draw's own optimum",
        table(("", "mean", "sd", "lower", "upper"), rows),
    )
