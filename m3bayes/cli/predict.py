"""``m3bayes predict``: losses of a table of recipes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pandas as pd

from m3bayes.cli.options import add_allow, add_ci, add_json, add_posterior, check_out, load_allowed, of_file
from m3bayes.cli.show import frame_table, json_text, message, notes
from m3bayes.cli.summary import describe, headline
from m3bayes.errors import M3BayesError, RecipeError
from m3bayes.files import write_atomically
from m3bayes.inference.predict import ADDED, predict
from m3bayes.table_cells import numbers_or_labels
from m3bayes.table_checks import VARIABLES
from m3bayes.table_file import read_table

DESCRIPTION = """\
Predict the losses of recipes. Their columns are kept, and these added: loss_mean, loss_sd, loss_lower and
loss_upper of the mean surface, new_run_lower and new_run_upper of a new run (all in the table's unit of
loss), extrapolation (distance to the nearest run fitted, 1 = as far as the runs lie from each other) and
notes (codes with ; between).
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="losses of a table of recipes",
        description=DESCRIPTION,
    )
    add_posterior(parser)
    parser.add_argument(
        "recipes",
        type=Path,
        metavar="RECIPES",
        help="table of recipes, CSV or parquet, one row a recipe: params and target_tokens in the units of "
        "the table fitted, epochs, target_ratio, final_ratio, first_ratio (the ratios 1 where absent)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the whole table here (CSV, or .parquet)"
    )
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.posterior, arguments.recipes)
    post = load_allowed(arguments.posterior, arguments.allow)
    recipes = read_table(arguments.recipes)
    try:
        prediction = predict(post, recipes, ci=arguments.ci)
    except RecipeError as error:
        raise of_file(arguments.recipes, error) from error
    added = prediction.frame()[list(ADDED)].set_axis(recipes.index)
    # a file that predict itself wrote can be predicted again
    given = recipes.drop(columns=list(ADDED), errors="ignore")
    result = pd.concat([given, added], axis=1)
    if arguments.out is not None:
        write_atomically(arguments.out, lambda path: _write(result, path, arguments.out.suffix))
    # the file keeps the recipes' cells as they were written; here they are numbers where they can be
    result = result.assign(**{str(name): numbers_or_labels(cells) for name, cells in given.items()})
    if arguments.json:
        content = {"posterior": describe(post), "ci": arguments.ci, "notes": prediction.notes}
        print(json_text(content | {"recipes": result.to_dict("records")}))
    else:
        shown = [name for name in ("run", *VARIABLES, "loss", *ADDED) if name in result]
        print(f"{headline(post)}\n\n{frame_table(result[shown])}")
        notes(prediction.notes)
    if arguments.out is not None:
        message(f"wrote {arguments.out}")
    return 0


def _write(table: pd.DataFrame, path: Path, suffix: str) -> None:
    if suffix.lower() in (".parquet", ".pq"):
        try:
            table.to_parquet(path, index=False)
        except ImportError:
            raise M3BayesError(
                "writing parquet needs an extra: pip install 'm3bayes[parquet]', or give --out a .csv"
            ) from None
    else:
        table.to_csv(path, index=False, float_format="%.8g", lineterminator="\n", encoding="utf-8")
