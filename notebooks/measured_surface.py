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
# # A measured surface: German, Japanese and French beside English
#
# `m3bayes pilot` trained the small byte-level models of this table for real. Model size N, unique target text U,
# epochs k, target ratio r, last-stage ratio r_f and the length of the last stage all vary. Every run that has
# ended is in the table. First the questions that need no law, then what the laws say.

# %%
# %matplotlib inline
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import m3bayes as m3
from m3bayes.decision import guidelines
from m3bayes.plots import guidelines as plots
from m3bayes.plots.style import REGIMES

LANGUAGES = {"de": "German", "ja": "Japanese", "fr": "French"}
draws = int(os.environ.get("M3BAYES_NOTEBOOK_DRAWS", "1000"))

runs = m3.data.pilot_runs()
table = runs.frame().assign(compute=runs.compute, tokens=runs.tokens)
table["regime"] = np.where(
    table.target_ratio == 1,
    "monolingual",
    np.where(table.final_ratio > table.target_ratio, "two-stage", "single-stage"),
)
table.groupby(["language", "regime"]).size().unstack()

# %%
columns = ["params", "target_tokens", "epochs", "target_ratio", "final_ratio", "compute", "loss"]
spans = table.groupby("language")[columns]
assert (spans.size() >= 80).all() and (table.status == "ok").all()
assert np.log10(table.compute.max() / table.compute.min()) > 2.9
assert (table.groupby("language").params.nunique() >= 4).all()
spans.agg(["min", "max"]).T

# %% [markdown]
# ## How far do equal runs scatter?
#
# Runs of one recipe with another seed and another choice of the target text, and the standard deviation of their
# log loss. No law can predict better than this.

# %%
recipe = ["language", "params", "target_tokens", "epochs", "target_ratio", "final_ratio", "first_ratio"]
logs = table.assign(log_loss=np.log(table.loss)).round({"epochs": 1, "target_ratio": 2, "final_ratio": 2})
again = logs.groupby(["block", *recipe], dropna=False).log_loss.agg(["count", "var"])
again = again[again["count"] > 1]
seeds = again.loc["epochs"]
scatter = float(np.sqrt(np.average(seeds["var"], weights=seeds["count"] - 1)))
assert len(seeds) >= 20 and scatter < 0.03
pd.DataFrame(
    {
        "sd of log loss": np.sqrt(seeds["var"].groupby("language").mean()),
        "recipes": seeds.groupby("language").size(),
    }
).round(4)

# %% [markdown]
# ## Which regime is best? Without any law
#
# Cells of equal compute (6ND) and equal U. Of each regime the best run among those that were measured: over k
# through N in monolingual runs, through r in the others; two-stage runs end on the target language alone, except
# for four at 8e11 FLOP and 20 kB. Shown is by how much the best two-stage run beats the best other one, and the
# same for one stage with both languages. Bars are two standard errors of a difference of two runs with the
# scatter above (the best of several is lucky by about one, which the bars leave out).

# %%
BUDGETS = (6e10, 2.5e11, 8e11)
cells = table[table.block.isin(["epochs", "first_stage"])].copy()
nearest = np.abs(np.log(cells.compute.to_numpy()[:, None] / np.array(BUDGETS))).argmin(axis=1)
cells["budget"] = np.array(BUDGETS)[nearest]
assert (np.abs(np.log(cells.compute / cells.budget)) < 0.2).all()
by_recipe = cells.groupby(
    ["language", "budget", "target_tokens", "regime", "params", "epochs", "target_ratio"]
).loss.mean()
best = by_recipe.groupby(["language", "budget", "target_tokens", "regime"]).min().unstack().dropna()
gains = pd.DataFrame(
    {
        "two-stage": best[["monolingual", "single-stage"]].min(axis=1) - best["two-stage"],
        "single-stage": best[["monolingual", "two-stage"]].min(axis=1) - best["single-stage"],
    }
)
gains["two errors"] = 2 * np.sqrt(2) * scatter * best.min(axis=1)
assert len(best) >= 24
best.join(gains.add_prefix("gain, ")).round(3)

# %%
figure = Figure(figsize=(9, 3.4), layout="constrained")
for axes, (language, name) in zip(figure.subplots(1, 3, sharey=True), LANGUAGES.items(), strict=True):
    for budget, marker, color in zip(BUDGETS, "os^", ("#56B4E9", "#0072B2", "#000000"), strict=True):
        part = gains.loc[language].loc[budget]
        axes.errorbar(
            part.index,
            part["two-stage"],
            part["two errors"],
            fmt=f"{marker}-",
            color=color,
            capsize=2,
            markersize=5,
            linewidth=1,
            label=f"{budget:.2g} FLOP",
        )
    axes.axhline(0, color="#6B6B6B", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("unique target text U [bytes]", fontsize=9)
axes = figure.axes[0]
axes.set_ylabel("what two stages save [nats a byte]", fontsize=9)
axes.legend(fontsize=8, frameon=False)
figure

# %%
wins = gains[["two-stage", "single-stage"]].gt(gains["two errors"], axis=0)
assert not wins["two-stage"].any()
relative = gains[["two-stage", "single-stage"]].div(best.min(axis=1), axis=0)
summary = relative.groupby("budget").agg(["mean", "count"]).stack(level=0, future_stack=True)
summary["se"] = np.sqrt(2 / summary["count"]) * scatter
summary["cells won by two errors"] = wins.groupby("budget").sum().stack()
summary.rename(columns={"mean": "mean gain in log loss"}).round(3)

# %% [markdown]
# In none of the 33 cells does a two-stage recipe win by more than two standard errors, in most it loses. At the
# least compute the target language alone is best. Where text is scarcest against compute (8e11 FLOP, 10 to 80
# kB), one stage with both languages is best in eleven of twelve cells: in the paper that regime is never best. So
# far this is about models of 83 thousand parameters, a learning rate that falls over the last fifth, and two
# stages of which the first holds no target text; the gentler two-stage recipes at 20 kB (r_f = .6) come within
# .02 of one stage in German and French.
#
# ## How many epochs are best? Without any law
#
# The k of the best run of each regime in every cell. k moves in steps of the plan (a factor 2 to 5), so a best k
# is known to half such a step.

# %%
at = by_recipe.groupby(["language", "budget", "target_tokens", "regime"]).idxmin()
best_epochs = pd.DataFrame(at.tolist(), columns=by_recipe.index.names).set_index(
    ["language", "budget", "target_tokens", "regime"]
)[["params", "epochs", "target_ratio"]]
best_epochs.epochs.unstack("regime").round(2)

# %% [markdown]
# ## Do r and r_f say enough? Pairs that differ in the first stage only
#
# M3 has no variable for what happens before the last stage but the average r. These pairs have the same N, U, k,
# r and r_f; one has no target text before the last stage, the other half of r. If the four variables were enough,
# both would have the same loss.

# %%
pairs = table[table.block == "first_stage"].assign(first=lambda t: np.where(t.first_ratio > 0, "r / 2", "0"))
pairs = pairs.round({"target_ratio": 2, "final_ratio": 1}).pivot_table(
    index=["language", "target_tokens", "target_ratio", "final_ratio"], columns="first", values="loss"
)
pairs = pairs.dropna().assign(difference=lambda t: np.log(t["0"] / t["r / 2"]))
pairs["in standard errors"] = pairs.difference / (np.sqrt(2) * scatter)
assert len(pairs) >= 6
pairs.round(3)

# %% [markdown]
# ## M3 on each language
#
# The same gate as everywhere; a fit that misses it is shown with its verdict, not hidden. Set the residuals
# beside the scatter of equal runs above: what is over is what the law misses, and a Student-t takes for noise.
# Beside M3 stands the law `staged`, M3 with two more terms: one for how early the target text comes, one for its
# share of the last stage in the whole loss.

# %%
posts = {
    (name, language): m3.fit(
        runs.where(f"language == '{language}'"),
        m3.laws.named(name),
        seed=0,
        draws=draws,
        progress=False,
        allow="flagged",
    )
    for name in ("m3", "staged")
    for language in LANGUAGES
}
fits = []
for (name, language), post in posts.items():
    found = m3.predict(post, post.runs)
    residual = np.log(post.runs["loss"] / found.loss_mean)
    inside = (found.new_run_lower <= post.runs["loss"]) & (post.runs["loss"] <= found.new_run_upper)
    r2 = 1 - residual.var() / np.log(post.runs["loss"]).var()
    fits.append((name, language, post.verdict, len(post.runs), r2, residual.std(), inside.mean()))
fits = pd.DataFrame(
    fits, columns=["law", "language", "gate", "runs", "R2 log loss", "sd of residuals", "in 90 %"]
)
assert (fits["R2 log loss"] > 0.8).all() and fits["in 90 %"].between(0.8, 1).all()
fits.round(4)

# %%
m3.plots.predicted_against_measured(posts["m3", "de"])

# %% [markdown]
# Coefficients with 90 % intervals, side by side. Does anything depend on the pair?

# %%
summaries = {
    language: posts["staged", language].summary(ci=0.9)[["mean", "lower", "upper"]] for language in LANGUAGES
}
pd.concat(summaries, axis=1).round(3)

# %% [markdown]
# ## Which law describes the runs, and which foresees them?
#
# Every law on every language, from `python -m benchmarks.measured_surface` (a quarter of an hour on two cores).
# First leave-one-out: expected log predictive density of a run that was left out, summed over the languages,
# beside the best law, and the stacking weight of a mixture.

# %%
kept = Path("benchmarks/results/measured_surface.json")
kept = kept if kept.exists() else Path("..") / kept
results = json.loads(kept.read_text())
assert results["rollout"][0]["runs"] == int((table.language == results["rollout"][0]["language"]).sum())
loo = pd.DataFrame(results["compare"])
elpd = loo.pivot_table(index="law", columns="language", values="elpd")
total = elpd.sum(axis=1).sort_values(ascending=False)
pointwise = pd.DataFrame(
    loo.groupby("law").pointwise.sum().to_dict()
)  # languages one after the other, in one order
behind = -pointwise.sub(pointwise[total.index[0]], axis=0)
shown = pd.DataFrame(
    {
        **{language: elpd[language] for language in LANGUAGES},
        "behind": behind.sum(),
        "se": behind.std() * np.sqrt(len(behind)),
        "coefficients": loo.groupby("law").coefficients.first(),
        "k-hat over .7": loo.groupby("law").k_hat_over.sum(),
    }
)
shown.loc[total.index].round(1)

# %% [markdown]
# Then three extrapolations: runs of the largest compute, of the largest N, and two-stage recipes none of whose
# seeds was seen. R2 and RMSE are of log loss (R2 below 0 is worse than the mean of the held-out runs), coverage
# is that of 90 % intervals for a new run, CRPS scores the whole predictive distribution (lower is better). Means
# over the three languages.

# %%
rollouts = pd.DataFrame(results["rollout"])
scores = ["R2", "RMSE_log", "coverage_90", "crps"]
mean = rollouts.groupby(["split", "law"])[scores].mean().unstack("split").swaplevel(axis=1).sort_index(axis=1)
mean.sort_values(("largest compute", "crps")).round(3)

# %%
m3_scores = rollouts[rollouts.law == "m3"].set_index(["split", "language"])
m3_scores[
    ["train", "test", "compute_ratio", *scores, "coverage_90_low", "coverage_90_high", "verdict"]
].sort_index().round(3)

# %% [markdown]
# ## The guidelines, from the posterior
#
# Best epochs against scarcity D_T / D*(C), D* the compute-optimal amount of fresh text, at the budgets of the
# cells; and the scarcity below which two stages are best. Bounds are the range of the runs.

# %%
budgets, text = list(BUDGETS), np.geomspace(1.2e4, 6e5, 4)
collapse = {language: guidelines.epochs(posts["m3", language], budgets, text) for language in LANGUAGES}
pd.DataFrame(
    {
        language: {
            "spread of log k* over C, share of its range": f.spread.median if f.spread else np.nan,
            "its upper end": f.spread.upper if f.spread else np.nan,
            "rule k* = D*/D_T off by a factor": np.exp(f.rule_error.median),
            "optima at a bound of k": f.at_bound,
        }
        for language, f in collapse.items()
    }
).round(3)

# %%
plots.epochs_collapse(collapse["de"])

# %%
found = guidelines.regimes(posts["staged", "de"], budgets, np.geomspace(1.2e4, 1.2e6, 5))
columns = [
    "threshold",
    "threshold_lower",
    "threshold_upper",
    "scarcity",
    "scarcity_lower",
    "scarcity_upper",
    "below",
]
found.threshold_frame().set_index("compute")[columns]

# %%
plots.regime_map(found)

# %% [markdown]
# `threshold` is the D_T below which the law has two stages best in German, at 1 to 3 % of D*(C). What they save
# there by the law is about the scatter of a run, and the cells above do not show it:

# %%
best_recipe = m3.recommend(posts["staged", "de"], compute=8e11, target_tokens=80_000)
best_recipe.regimes[["probability_best", "gain_mean", "gain_lower", "gain_upper"]].round(4)

# %%
in_japanese = m3.recommend(posts["staged", "ja"], compute=8e11, target_tokens=80_000)
in_japanese.regimes[["probability_best", "gain_mean", "gain_lower", "gain_upper"]].round(4)

# %% [markdown]
# ## Loss against epochs at one budget
#
# Lines: the best recipe of each regime at that k by the posterior mean, with 90 % bands. Points: the runs of the
# cell with the same compute and U (any recipe of the regime, so they may lie above the line).


# %%
def with_runs(language: str, budget: float, text: int) -> Figure:
    figure = m3.plots.loss_against_epochs(posts["m3", language], budget, text)
    cell = cells[(cells.language == language) & (cells.target_tokens == text) & (cells.budget == budget)]
    for regime, marker in (("monolingual", "o"), ("single-stage", "s"), ("two-stage", "^")):
        points = cell[cell.regime == regime]
        color = REGIMES[regime]["color"]
        figure.axes[0].plot(
            points.epochs, points.loss, marker, color=color, markeredgecolor="black", markeredgewidth=0.5
        )
    return figure


with_runs("de", 8e11, 20_000)

# %%
with_runs("ja", 8e11, 40_000)

# %% [markdown]
# ## Is the single-stage loss a power law in r?
#
# The claim of the paper's first version: at one stage the loss falls as r^-gamma at any N and D, with a gamma
# that depends on neither data, size nor pair. Posterior of gamma in the target-ratio law with repetition, fitted
# to the one-stage runs of each language, all of them and by size and by amount of text.

# %%
one_stage = runs.where("final_ratio == target_ratio")
parts = {"all": "params > 0", "N < 1e5": "params < 1e5", "N > 1e5": "params > 1e5"}
parts |= {"D < 5e5": "tokens < 5e5", "D >= 5e5": "tokens >= 5e5"}
exponents = []
for language in LANGUAGES:
    for part, condition in parts.items():
        chosen = one_stage.where(f"language == '{language}' and {condition}")
        post = m3.fit(
            chosen, m3.laws.target_ratio(repetition=True), draws=draws, progress=False, allow="flagged"
        )
        row = post.summary(ci=0.9).loc["gamma"]
        exponents.append((language, part, len(chosen), row["mean"], row["lower"], row["upper"], post.verdict))
exponents = pd.DataFrame(
    exponents, columns=["language", "runs of", "runs", "gamma", "lower", "upper", "gate"]
).set_index(["language", "runs of"])
exponents.round(3)

# %% [markdown]
# Within a language gamma hardly moves with size; between little and much training it does (the intervals of D <
# 5e5 and D >= 5e5 do not overlap), and Japanese lies below German. One exponent for all is near, not exact.
#
# ## What this table says
#
# 1. M3 describes the runs far better than the laws it contains and its rivals, and foresees larger N as well as
#    any. At 7 to 9 times the compute it is the best of the published forms with `prescriptive`, but its 90 %
#    intervals hold about 75 %: what the law misses grows beyond the runs. `staged` describes them better still,
#    most in Japanese, where target text that comes only at the end is learnt late, and foresees the largest
#    compute best; not so unseen two-stage recipes.
# 2. "Single-stage multilingual training is never best": not so here. It is best where text is scarcest.
# 3. Two stages win nowhere by more than scatter, at these sizes, with no target text in the first stage.
# 4. The best epochs follow D_T / D*(C) roughly (spread a tenth to a quarter of their range); k* = D*(C) / D_T is off
#    by a factor of more than ten.
# 5. The exponent of r is about .12 to .15: alike in German and French, lower in Japanese, larger with more
#    training.
