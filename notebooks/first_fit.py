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
# # From a table of runs to a recipe
#
# The table that m3bayes ships is simulated, so its true coefficients are known: a good place to see what a
# posterior says before trusting one on your own runs.

# %%
# %matplotlib inline
import m3bayes as m3

runs = m3.data.simulated_runs()
runs.frame()[["params", "target_tokens", "epochs", "target_ratio", "final_ratio", "loss"]].head()

# %% [markdown]
# `fit` finds the global mode, samples with NUTS and judges the draws. It raises `NotConvergedError` unless R-hat,
# effective sample sizes, divergences and energy all pass.

# %%
post = m3.fit(runs, law=m3.laws.m3(), seed=0, progress=False)
assert post.verdict == "passed"
post.summary()[["mean", "sd", "lower", "upper", "r_hat", "ess_bulk"]].round(4)

# %% [markdown]
# The truth should lie inside about nine of ten 90 % intervals.

# %%
truth = m3.data.simulated_truth()["coefficients"]
summary = post.summary(ci=0.9)
covered = {name: bool(summary.lower[name] <= truth[name] <= summary.upper[name]) for name in truth}
assert sum(covered.values()) >= len(covered) - 4
covered

# %% [markdown]
# Does the surface pass through the runs? Points are runs, bars 90 % intervals of a new run.

# %%
m3.plots.predicted_against_measured(post)

# %% [markdown]
# A budget of five times the largest run, over 800 kB of unique target text:

# %%
best = m3.recommend(post, compute=5e14, target_tokens=8e5)
best.recipe

# %%
best.regimes[["probability_best", "probability_gain"]]

# %% [markdown]
# What the recipe may cost against the optimum that perfect knowledge would have found, in nats per byte:

# %%
assert best.regret.lower >= 0
best.regret

# %%
m3.plots.recommendation(post, best)

# %%
[str(note) for note in best.notes]
