"""How far recipes lie outside the runs, variable by variable and jointly.

| symbol | meaning |
|---|---|
| N, U, k, r, r_f | the variables of a recipe (parameters, unique target tokens, epochs, target ratios) |
| share | of all tokens in the last stage, (r - r_1) / (r_f - r_1), 1 for a single stage |
| D = k U / r, N D | all tokens, and compute up to a constant |

Sizes are compared as logs, ratios as they are, so nothing depends on units. Per variable the distance is 0
inside the range of the runs, and else the excess in units of that range. A recipe inside every range can
still be far from anything that was trained; the joint distance is therefore that to the nearest run, each
variable in units of its standard deviation over the runs, divided by what is usual between the runs
themselves: the 95 % quantile of each distinct recipe's distance to its nearest other. Above 1 a recipe is
farther out than the runs are from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from m3bayes.errors import Note
from m3bayes.laws.law import RECIPE_COLUMNS
from m3bayes.runs import Runs
from m3bayes.table_checks import last_stage_share

FAR_COMPUTE = 30.0  # times the largest run's

# What a variable that (almost) never varies over the runs is measured in: a factor e, a tenth of a ratio.
LOG_STEP, RATIO_STEP = 1.0, 0.1
CONSTANT = 1e-3  # of a step: less spread than this is none
INSIDE = 1e-4  # of the range: a recipe this little outside, as by digits left out, is inside
ROUNDING = 1e-9
USUAL = 0.95  # quantile of the distances between runs

LOGS = ("params", "target_tokens", "epochs", "tokens", "compute")
JOINT = ("params", "target_tokens", "epochs", "target_ratio", "final_ratio", "last_stage_share")

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """``distances`` per variable, the ``joint`` distance, and ``compute`` over that of the largest run.

    ``outside`` (recipe,) says which extrapolate (beyond a range or jointly), ``far`` which take too much.
    """

    distances: Mapping[str, Float[np.ndarray, " recipe"]]
    joint: Float[np.ndarray, " recipe"]
    compute: Float[np.ndarray, " recipe"]

    @property
    def outside(self) -> np.ndarray:
        return (self.joint > 1) | np.any([d > 0 for d in self.distances.values()], axis=0)

    @property
    def far(self) -> np.ndarray:
        return self.compute > FAR_COMPUTE * (1 + ROUNDING)


def extrapolation(runs: Runs, recipes: Columns, also: tuple[str, ...] = ()) -> Extrapolation:
    """Distances of recipes (columns as :func:`m3bayes.recipe.recipe_columns` gives them) from the runs.

    ``also`` names further columns of both that a law reads; they are compared as they are.
    """
    # the share of the last stage stands for the ratio before it, which one stage does not have
    extra = tuple(name for name in also if name not in (*RECIPE_COLUMNS, "first_ratio"))
    measured, asked = coordinates(runs.columns, extra), coordinates(recipes, extra)
    joint = (*JOINT, *extra)
    return Extrapolation(
        distances={name: _beyond(measured[name], asked[name], _step(name)) for name in measured},
        joint=_joint(
            np.stack([measured[name] for name in joint], axis=1),
            np.stack([asked[name] for name in joint], axis=1),
            np.array([_step(name) for name in joint]),
        ),
        compute=np.exp(asked["compute"] - measured["compute"].max()),
    )


def notes(found: Extrapolation) -> tuple[Note, ...]:
    """EXTRAPOLATION with the variables outside, BEYOND_30X; none where every recipe is among the runs."""
    total = len(found.joint)
    result = []
    if (outside := found.outside).any():
        farthest = {name: d.max() for name, d in found.distances.items() if d.max() > 0}
        names = tuple(sorted(farthest, key=lambda name: -farthest[name]))
        where = (
            "outside their range in " + ", ".join(f"{n} (by {farthest[n]:.2g} of the range)" for n in names)
            if names
            else "inside every range, but in none of the combinations that were run"
        )
        message = (
            f"{outside.sum()} of {total} recipes extrapolate from the runs: {where}; the farthest lies "
            f"{found.joint.max():.2g} times as far from the nearest run as runs lie from each other"
        )
        result.append(Note("EXTRAPOLATION", message, names))
    if (far := found.far).any():
        message = (
            f"{far.sum()} of {total} recipes take more than {FAR_COMPUTE:g} times the compute of the largest "
            f"run, up to {found.compute.max():.3g} times"
        )
        result.append(Note("BEYOND_30X", message, ("compute",)))
    return tuple(result)


def coordinates(columns: Columns, extra: tuple[str, ...] = ()) -> dict[str, Float[np.ndarray, " row"]]:
    """{variable: (row,)}: logs of sizes, ratios as they are."""
    r, r_f = columns["target_ratio"], columns["final_ratio"]
    r_1 = columns.get("first_ratio", np.full(r.shape, np.nan))
    tokens = columns["epochs"] * columns["target_tokens"] / r
    values = {
        **{name: columns[name] for name in RECIPE_COLUMNS},
        "last_stage_share": last_stage_share(r, r_f, r_1),
        "tokens": tokens,
        "compute": columns["params"] * tokens,
        **{name: np.asarray(columns[name], float) for name in extra},
    }
    return {name: np.log(v) if name in LOGS else v for name, v in values.items()}


def _step(name: str) -> float:
    return LOG_STEP if name in LOGS else RATIO_STEP


def _beyond(measured: np.ndarray, asked: np.ndarray, step: float) -> np.ndarray:
    low, high = measured.min(), measured.max()
    unit = high - low if high - low > CONSTANT * step else step
    excess = np.maximum(np.maximum(low - asked, asked - high), 0.0) / unit
    return np.where(excess > INSIDE, excess, 0.0)


def _joint(measured: np.ndarray, asked: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(recipe,) from (run, variable) and (recipe, variable)."""
    from scipy.spatial import KDTree  # takes a tenth of a second, which fits have no use for

    spread = measured.std(axis=0)
    unit = np.where(spread > CONSTANT * steps, spread, steps)
    centre = measured.mean(axis=0)
    measured, asked = (measured - centre) / unit, (asked - centre) / unit
    # replicates, and recipes that differ by less than matters, are one recipe
    distinct = measured[np.unique(np.round(measured / CONSTANT), axis=0, return_index=True)[1]]
    usual = 1.0
    if len(distinct) > 1:
        to_other = KDTree(distinct).query(distinct, k=2)[0][:, 1]
        usual = float(np.quantile(to_other, USUAL))
    return KDTree(measured).query(asked, workers=-1)[0] / usual
