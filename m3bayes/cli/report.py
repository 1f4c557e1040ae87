"""A recommendation as text."""

from __future__ import annotations

import math

from m3bayes.cli.show import number, section, table
from m3bayes.decision import Recommendation
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


def text(result: Recommendation) -> str:
    """A recommendation as tables."""
    best, ci, loss = result.recipe, f"{result.ci:.0%}", result.loss
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
    losses = [
        ("mean surface", loss.mean, loss.sd, loss.lower, loss.upper),
        ("a new run", math.nan, math.nan, loss.new_run_lower, loss.new_run_upper),
        ("regret", result.regret.mean, math.nan, result.regret.lower, result.regret.upper),
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
            section(
                f"Loss, {ci} intervals; regret is the loss above each draw's own optimum",
                table(("", "mean", "sd", "lower", "upper"), losses),
            ),
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
