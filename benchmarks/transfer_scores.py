"""What does English give German, French and Japanese on the measured runs? Bilingual transfer scores.

    python -m benchmarks.transfer_scores [--laws m3,atlas,staged] [--tokens 1e5,3e5,1e6] [--figure FILE]

A posterior a law and pair of languages, and its scores at so many bytes of target text. Laws whose data term is a
multiple of the text's own have one score at every d; the others show how it changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import m3bayes as m3
from m3bayes.cli.multilinguality import several
from m3bayes.cli.options import names
from m3bayes.cli.show import frame_table
from m3bayes.plots.languages import transfer_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--laws", type=names, default=("m3", "atlas", "staged"))
    parser.add_argument("--tokens", type=several, default=(1e5, 3e5, 1e6))
    parser.add_argument("--figure", type=Path, help="of the last law")
    arguments = parser.parse_args()
    runs = m3.data.pilot_runs()
    for name in arguments.laws:
        posts = m3.languages.fit_pairs(runs, m3.laws.named(name), allow="flagged")
        found = m3.languages.pair_scores(posts, arguments.tokens)
        verdicts = ", ".join(f"{' to '.join(pair)} {post.verdict}" for pair, post in posts.items())
        print(f"{name}: {verdicts}")
        print(
            frame_table(found.table[["source", "target", "tokens", "score", "score_lower", "score_upper"]], 3)
        )
        print(*found.notes, "", sep="\n")
    if arguments.figure is not None:
        m3.plots.save_figure(transfer_scores(found), arguments.figure)


if __name__ == "__main__":
    main()
