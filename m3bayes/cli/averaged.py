"""``m3bayes recommend`` with several posteriors: one recipe when no law is sure."""

from __future__ import annotations

import json
import math
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3bayes.cli.options import names, not_negative
from m3bayes.cli.report import recommendation_text
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe, headline
from m3bayes.decision.averaged import Averaged, recommend_averaged
from m3bayes.errors import M3BayesError
from m3bayes.evaluation.candidates import named_apart
from m3bayes.files import write_text
from m3bayes.inference.posterior import Posterior

Weights = tuple[float, ...] | Path


def weights(text: str) -> Weights:
    """``W,W,...``, or a file that has weights by law."""
    try:
        return tuple(not_negative(part) for part in names(text))
    except ArgumentTypeError:
        if Path(text).is_file():
            return Path(text)
    raise ArgumentTypeError(f"expected weights with commas between, as in 0.6,0.4, or a file, got {text!r}")


def by_law(posts: Sequence[Posterior]) -> dict[str, Posterior]:
    """{law: posterior}, by the names that `m3bayes rollout` gives the laws."""
    # a discrepancy is the posterior's, not another law
    plain = [
        replace(post.law, options={k: v for k, v in post.law.options.items() if k != "departure"})
        for post in posts
    ]
    return dict(zip(named_apart(plain), posts, strict=True))


def weights_of(posts: Mapping[str, Posterior], given: Weights | None) -> dict[str, float]:
    """{law: weight}. Raises M3BayesError where they are not of these posteriors."""
    listed = ", ".join(posts)
    if given is None:
        raise M3BayesError(
            f"several posteriors ({listed}) without --weights; give a weight each, as in "
            f"{','.join(['0.5'] * len(posts))}, or the JSON of `m3bayes rollout --json`"
        )
    if isinstance(given, Path):
        found = _read(given)
        further = [name for name, weight in found.items() if name not in posts and weight > 0]
        lacking = [name for name in posts if name not in found]
        if further or lacking:
            raise M3BayesError(
                f"{given} has weights of {', '.join(found)} and the posteriors are of {listed}; "
                f"expected the same laws, or 0 for those without a posterior"
            )
        return {name: found[name] for name in posts}
    if len(given) != len(posts):
        raise M3BayesError(f"{len(given)} weights for {len(posts)} posteriors ({listed}); give one each")
    return dict(zip(posts, given, strict=True))


def recommend_and_show(
    posts: Sequence[Posterior],
    given: Weights | None,
    request: Mapping[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the recipe averaged over the posteriors' laws, and write it to ``out``."""
    named = by_law(posts)
    result = recommend_averaged(named, weights_of(named, given), **request)
    content = json_text(
        {"posteriors": {name: describe(post) for name, post in named.items()}, **result.to_json()}
    )
    if out is not None:
        write_text(out, content + "\n")
    if as_json:
        print(content)
    else:
        print("\n".join([*map(headline, posts), "", averaged_text(result)]))
        notes(result.notes)
    if out is not None:
        message(f"wrote {out}")


def averaged_text(result: Averaged) -> str:
    """The recommendation over all laws, and what each of them thinks."""
    table = result.table().reset_index()
    own = ["law", "loss_mean", "params", "epochs", "target_ratio", "final_ratio"]
    between = (
        "" if math.isnan(result.between) else f"; {result.between:.0%} of the loss's variance is between laws"
    )
    return "\n".join(
        [
            recommendation_text(result.recommendation),
            "",
            section(
                f"By law: weight, and the regret of the recommended recipe under the law{between}",
                frame_table(table[["law", "weight", "regret_mean", "regret_lower", "regret_upper"]]),
            ),
            section("What each law would recommend by itself", frame_table(table[own])),
            section(
                "Mean regret: a row a law that judges, a column a law whose recipe is judged",
                frame_table(result.cross_regret.reset_index()),
            ).rstrip(),
        ]
    )


def _read(path: Path) -> dict[str, float]:
    """Weights by law, of `m3bayes rollout --json` or of {law: weight} alone."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise M3BayesError(f"{path} is no JSON; expected that of `m3bayes rollout --json`") from error
    found = content.get("weights", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(
        isinstance(weight, int | float) and not isinstance(weight, bool) for weight in found.values()
    ):
        raise M3BayesError(
            f"{path} has no weights by law; expected {{law: weight}} or the JSON of `m3bayes rollout --json`"
        )
    return {str(name): float(weight) for name, weight in found.items()}
