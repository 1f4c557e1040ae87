# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Choosing a recipe when text is scarce
#
# There are 80 kB of German text, English without end, and 2e13 FLOP. What should be trained, how sure is that, and
# which runs would make it surer? The German runs of the measured table answer, twice: first those of models below
# 1e5 parameters alone, as if no larger one had been trained yet; then with some of the larger ones.

# %%
# %matplotlib inline
import os
from dataclasses import replace

import numpy as np
import pandas as pd

import m3bayes as m3
from m3bayes.decision import guidelines
from m3bayes.plots import guidelines as maps

draws = int(os.environ.get("M3BAYES_NOTEBOOK_DRAWS", "500"))
compute, text = 2e13, 8e4
# English and larger models can be had; epochs and ratios stay where runs were
bounds = {"params": (None, np.inf), "tokens": (None, np.inf), "source_tokens": (None, np.inf)}
question = {"compute": compute, "target_tokens": text, "bounds": bounds}

runs = m3.demo_runs()
known, larger = runs.where("params < 1e5"), runs.where("params > 1e5")
assert len(known) >= 100 and len(larger) >= 15
assert compute < 30 * known.compute.max()
pd.DataFrame(
    {
        name: {
            "runs": len(part),
            "largest N": part["params"].max(),
            "largest compute": part.compute.max(),
            "compute asked / largest": compute / part.compute.max(),
        }
        for name, part in {"known": known, "larger": larger}.items()
    }
)

# %% [markdown]
# ## A law, and whether to believe it

# %%
post = m3.fit(known, m3.laws.m3(), seed=0, draws=draws, progress=False, allow="flagged")
found = m3.check(post)
print(f"gate: {post.verdict}; check: {found.verdict}")
found.table[found.table.adjusted < 0.2].round(3)

# %% [markdown]
# The law leaves no trend that tests are sure of. What they reject is one scatter for all: it depends on epochs,
# compute and text.
#
# ## The recipe
#
# `recommend` takes the recipe with the smallest expected loss, or another risk: beside it the one whose mean regret
# in the worst tenth of the draws is smallest. Regret is the loss above that of the recipe each draw would have wanted.


# %%
def row(best: m3.Recommendation) -> dict:
    r = best.recipe
    return {
        "regime": best.regime,
        "N": r.params,
        "epochs": r.epochs,
        "r": r.target_ratio,
        "r_f": r.final_ratio,
        "loss": best.loss.mean,
        "new run from": best.loss.new_run_lower,
        "to": best.loss.new_run_upper,
        "regret": best.regret.mean,
        "regret, 95 %": best.regret.upper,
        "compute used": best.compute_used,
    }


best = m3.recommend(post, **question)
wary = m3.recommend(post, **question, risk=m3.risk.regret_cvar(0.9))
assert wary.regret.draws.mean() >= best.regret.draws.mean() - 1e-9
pd.DataFrame({"expected loss": row(best), "regret-CVaR": row(wary)})

# %%
best.regimes[["probability_best", "gain_mean", "gain_lower", "gain_upper", "probability_gain"]].round(3)

# %% [markdown]
# Two stages: English alone first, then about a third German, 36 times over. What wins is a small model, smaller than
# most in the table, on some twenty times the tokens of any run. The smallest worst regret asks for nearly the same.

# %%
m3.plots.recommendation(post, best)

# %%
[str(note) for note in best.notes]

# %% [markdown]
# ## Where the law itself may fail
#
# Those intervals say how well the runs fix the coefficients. They say nothing of whether the law still holds at 25
# times the compute. `discrepancy` lets it depart beyond the runs, by as much as it missed larger runs when it was
# fitted to smaller ones. The larger runs, which no fit has seen, say which intervals to believe.

# %%
wide = m3.discrepancy(post, rollouts=m3.evaluation.splits(known, "compute"))
print(next(note for note in wide.notes if note.code == "DISCREPANCY"))


def inside(post: m3.Posterior) -> float:
    said = m3.predict(post, larger)
    return float(np.mean((said.new_run_lower <= larger["loss"]) & (larger["loss"] <= said.new_run_upper)))


pd.Series(
    {"law": inside(post), "law that may fail": inside(wide)}, name="larger runs in their 90 % intervals"
)

# %% [markdown]
# The same question to the law that may fail:

# %%
humble = m3.recommend(wide, **question)
assert (
    humble.loss.new_run_upper - humble.loss.new_run_lower > best.loss.new_run_upper - best.loss.new_run_lower
)
assert humble.regret.mean > best.regret.mean
pd.DataFrame({"law": row(best), "law that may fail": row(humble)})

# %% [markdown]
# Nearly the same recipe, and quite another certainty: the interval of its loss is nearly five times as wide, and what
# may be lost against the unknown best recipe is seventeen times as much. All 20 larger runs lie in the wider intervals
# and 17 in the law's own; but they reach 6 times the compute of the known runs, not 25 times.
#
# ## From how much text on are two stages no longer best?
#
# Some of the draws are enough for a map.

# %%
few = replace(post, draws={name: values[:, ::5] for name, values in post.draws.items()}, log_likelihood=None)
found = guidelines.regimes(few, [8e11, 2e13], [1e4, 1e5, 1e6, 1e7], bounds=bounds)
maps.regime_map(found)

# %%
found.threshold_frame()[["compute", "threshold", "threshold_lower", "threshold_upper"]]

# %% [markdown]
# ## Which runs next?
#
# The larger runs are candidates, as if they were still to be trained, for at most 5e12 FLOP together: what one of
# the largest costs. `next_runs` takes those that lower the expected regret of this decision most.

# %%
plan = m3.next_runs(wide, larger, compute=compute, target_tokens=text, bounds=bounds, budget=5e12)
chosen = [larger.names[row] for row in plan.runs["row"]]
plan.runs[["params", "target_tokens", "epochs", "target_ratio", "flops", "after", "gain", "gain_se"]].assign(
    run=chosen
)

# %%
plan.against

# %% [markdown]
# Not the largest ones: a few of nearly twice the size promise to halve the regret, more than one run of 5e12 FLOP or
# runs taken at random would.
#
# They have been trained, so here is what they say. The refit has the runs of the plan beside those known before.

# %%
names = np.array(runs.names)
again = m3.fit(
    runs.select(np.isin(names, [*known.names, *chosen])),
    m3.laws.m3(),
    seed=0,
    draws=draws,
    progress=False,
    allow="flagged",
)
surer = m3.recommend(again, **question)
assert len(again.runs) == len(known) + len(chosen)
pd.DataFrame({"before": row(best), f"with {len(chosen)} more runs": row(surer)})

# %% [markdown]
# The answer stays much as it was: N, epochs and the average ratio move by less than a tenth, the ratio of the last
# stage by a fifth. The law's own regret was small and does not fall; what the plan promised was counted with the
# departure. The runs that stayed out of both fits are a test of the two, as errors of log loss:

# %%
rest = larger.select(~np.isin(np.array(larger.names), chosen))
errors = {
    name: np.abs(np.log(m3.predict(fitted, rest).loss_mean / rest["loss"]))
    for name, fitted in {"before": post, "after": again}.items()
}
pd.DataFrame(errors).agg(["mean", "max"]).round(4)

# %% [markdown]
# ## And decades beyond the runs?
#
# The same text and up to 1e5 times the compute. Nothing in the table can
# say what happens there. The law alone goes on as if it could, with intervals hardly wider than before.

# %%
far = {}
for budget in (2e15, 2e18):
    for name, fitted in {"law": post, "law that may fail": wide}.items():
        there = m3.recommend(fitted, **(question | {"compute": budget}))
        assert "BEYOND_30X" in [note.code for note in there.notes]
        far[budget, name] = row(there)
pd.DataFrame(far).T

# %% [markdown]
# The law that may fail expects next to nothing of a thousand times the compute, and of 2e18 FLOP it leaves all but a
# five-hundredth unspent, with a loss between .8 and 2.4. That is no recommendation but a sign that there is none: at
# such budgets, ask `next_runs` first and move towards them in steps of ten or so.
