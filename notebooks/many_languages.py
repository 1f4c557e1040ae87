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
# # Many languages
#
# Four questions about more than one language, on measured runs of small models: what do languages have in common,
# what does that tell of one with few runs, which source language helps which target, and is it better to go on from a
# multilingual checkpoint than to start from scratch?

# %%
# %matplotlib inline
import os

import numpy as np
import pandas as pd

import m3bayes as m3
from m3bayes.plots import languages as figures
from m3bayes.plots.pooled import pooled_coefficients

draws = int(os.environ.get("M3BAYES_NOTEBOOK_DRAWS", "500"))
options = {"seed": 0, "draws": draws, "progress": False, "allow": "flagged"}

# %% [markdown]
# ## What do languages have in common?
#
# German, French and Japanese, each beside English, one stage, 8 epochs at most. The law says that the loss falls as
# `r^-gamma` with the share r of target text; it is claimed that gamma is the same for all pairs of languages. A
# pooled fit has a coefficient for each language and, as `spread`, how much they differ; E, A and B are each
# language's own.

# %%
pilot = m3.data.pilot_runs()
one_stage = pilot.select((pilot["final_ratio"] == pilot["target_ratio"]) & (pilot["epochs"] <= 8))
law = m3.laws.target_ratio()
pooled = m3.fit(one_stage, law, pool="language", **options)
print(pooled.verdict, dict(pd.Series(one_stage["language"]).value_counts()))
pooled.between().round(3)

# %%
pooled_coefficients(pooled)

# %%
gamma = pd.DataFrame(
    {
        group: np.quantile(pooled.draws["gamma"][..., index], [0.05, 0.5, 0.95])
        for index, group in enumerate(pooled.groups)
    },
    index=["5 %", "median", "95 %"],
)
spread = pooled.between().loc["gamma"]
first, last = (pooled.draws["gamma"][..., pooled.groups.index(name)] for name in ("de", "ja"))
print(f"P(gamma of German above that of Japanese) = {np.mean(first > last):.3f}")
gamma.round(3)

# %% [markdown]
# With three languages a spread is known to a factor of a few only, and its prior has a say. That the exponents are near
# each other is measured; that they are equal is not.
#
# ## A language with few runs
#
# Suppose that there were six Japanese runs only, fewer than the law has coefficients. The other languages say what
# exponents are like. "no run" is a language of which nothing else is known.

# %%
japanese = np.flatnonzero(one_stage["language"] == "ja")
order = np.random.default_rng(0).permutation(japanese)
others, test = np.flatnonzero(one_stage["language"] != "ja"), one_stage.select(order[24:])


def error(post: m3.Posterior) -> dict[str, float]:
    found = m3.predict(post, test)
    held = (found.new_run_lower <= test["loss"]) & (test["loss"] <= found.new_run_upper)
    return {
        "error of log loss": float(np.sqrt(np.mean(np.log(found.loss_mean / test["loss"]) ** 2))),
        "90 % intervals hold": float(held.mean()),
        "width of an interval": float(np.mean(np.log(found.new_run_upper / found.new_run_lower))),
    }


six = m3.fit(one_stage.select(np.r_[others, order[:6]]), law, pool="language", **options)
rows = {"6 runs": error(six.of("ja")), "no run": error(six.new_group()), "all runs": error(pooled.of("ja"))}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## Which language helps which?
#
# In the ATLAS law a token of source text is worth tau tokens of target text. The trilingual runs have German beside
# English, French or both; the pilot's runs give English to German, French and Japanese.

# %%
trilingual = m3.data.trilingual_runs()
both = m3.fit(trilingual, m3.laws.atlas(sources=("en", "fr")), **options)
matrix = m3.languages.transfer_matrix({"de": both})
matrix.table.round(3)

# %%
figures.transfer_heat_map(matrix)

# %%
source = {"en_tokens": pilot.source_tokens, "en_unique_tokens": pilot.source_tokens}  # never repeated
english = m3.languages.fit_targets(m3.runs_from_frame(pilot.frame().assign(**source)), ["en"], **options)
table = m3.languages.transfer_matrix(english).table
assert (table["tau"].abs() < 0.2).all()
table.round(3)

# %% [markdown]
# A token of English is worth a few hundredths of a token of the target: these models are small, and documentation in
# one language says little about the bytes of another. So text in a second language is added where there is nothing
# else to read: by `recommend_sources`, which looks for model size, epochs and the mix of sources at once.

# %%
question = {"compute": 3e11, "target_tokens": 2e4, "unique_tokens": {"en": 6e7, "fr": 1.6e7}}
best = m3.languages.recommend_sources(both, **question)
print(
    f"N {best.recipe.params:.3g}, {best.recipe.epochs:.3g} epochs, target share {best.recipe.target_ratio:.2f}"
)
print(f"loss {best.loss.mean:.3f} ({best.loss.lower:.3f}-{best.loss.upper:.3f})")
best.sources.round(3)

# %% [markdown]
# ## From scratch, or on from a checkpoint?
#
# German models, trained from scratch and from multilingual checkpoints of the same size by the same recipes.

# %%
starts = m3.data.continued_runs()
post = m3.fit(starts, m3.laws.continued(), **options)
sizes = np.unique(starts["params"])
found = m3.languages.crossover(post, sizes)
print(post.verdict, [note.code for note in found.notes])
found.table.round(3)

# %% [markdown]
# The checkpoint is ahead in every pair. The law has them never cross, but it reads one number, rho, out of all lengths
# of training, and longer runs alone give a smaller one: beyond the longest pair nothing is known.

# %%
frame = starts.frame()
frame["tokens seen"] = frame["target_tokens"] * frame["epochs"] / frame["target_ratio"]
pairs = frame.pivot_table(index=["params", "tokens seen"], columns="continued", values="loss")
assert (pairs[1] < pairs[0]).all()
pairs.round(3)
