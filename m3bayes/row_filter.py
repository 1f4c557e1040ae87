"""Choose rows of a table by an expression over its columns, ``"loss < 4.5 and epochs <= 60"``.

The expression is evaluated by pandas. Only comparisons, logic and arithmetic over columns, numbers and
text get that far: no calls, no attributes, no names but those of the columns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from m3bayes.errors import RunTableError
from m3bayes.table_file import first_line

_LONGEST = 2000  # characters, well below what makes Python's own parser give up
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd,
    ast.BinOp, ast.BitAnd, ast.BitOr, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple,
)  # fmt: skip
# A column's name in backticks; without quotes or brackets inside, nothing can hide in it.
_QUOTED_NAME = re.compile(r"`([^`'\"()\[\]@]+)`")


def rows_where(
    columns: Mapping[str, np.ndarray], expression: str, name: str = "table"
) -> Bool[np.ndarray, " row"]:
    """Which rows fulfil ``expression``; a blank number fulfils no comparison but ``!=``.

    Raises RunTableError where the expression is not a comparison over the columns, or no row is left.
    """
    _check(expression, columns, name)
    frame = pd.DataFrame(dict(columns))
    try:
        result = frame.eval(expression, engine="python", parser="pandas", local_dict={}, global_dict={})
    except Exception as problem:  # pandas lets through whatever the operation raised
        raise RunTableError(
            f"{name}: where {expression!r} cannot be evaluated: {first_line(problem)}"
        ) from None
    if not (isinstance(result, pd.Series) and result.dtype == bool and len(result) == len(frame)):
        raise RunTableError(
            f"{name}: where {expression!r} does not say yes or no for each row; "
            "expected a comparison such as epochs <= 60"
        )
    keep = result.to_numpy()
    if not keep.any():
        raise RunTableError(f"{name}: no row of {len(frame)} fulfils where {expression!r}; loosen it")
    return keep


def _check(expression: str, columns: Mapping[str, np.ndarray], name: str) -> None:
    if len(expression) > _LONGEST:
        raise RunTableError(f"{name}: where has {len(expression)} characters, expected at most {_LONGEST}")
    quoted = _QUOTED_NAME.findall(expression)
    plain = _QUOTED_NAME.sub("_", expression)
    try:
        tree = ast.parse(plain.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise RunTableError(
            f"{name}: where {expression!r} is not an expression; expected a comparison over columns "
            "such as epochs <= 60 and language == 'de'"
        ) from None
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise RunTableError(
                f"{name}: where {expression!r} holds {_describe(node)}; only comparisons, and/or/not, "
                "arithmetic and in [...] over columns are allowed"
            )
    used = [
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not (quoted and node.id == "_")
    ]
    for column in (*quoted, *used):
        if column not in columns:
            raise RunTableError(
                f"{name}: where names {column!r}, which is no column; it has {', '.join(columns)}"
            )


def _describe(node: ast.AST) -> str:
    known = {ast.Call: "a call", ast.Attribute: "a dot", ast.Subscript: "an index", ast.Pow: "a power"}
    return known.get(type(node), f"something it may not ({type(node).__name__})")
