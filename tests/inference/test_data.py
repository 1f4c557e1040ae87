"""Canonical form: the same whatever the units and the order of the rows, and back again."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RunTableError
from m3bayes.inference.data import bucket, canonical, to_table_units, unscale
from m3bayes.inference.noise import normal, student_t
from m3bayes.laws import chinchilla, m3, named
from m3bayes.runs import runs_from_frame
from tests.inference import simulated


def table(**changes):
    runs = simulated.measured(m3(), simulated.M3, simulated.mixed(40))
    return runs_from_frame(runs.frame().assign(**changes))


def test_bucket_holds_and_is_at_most_half_as_large_again():
    for n in range(1, 3000):
        assert bucket(n) >= n
        assert n < 33 or bucket(n) <= 1.5 * n + 1


@given(st.floats(-9, 9), st.floats(-9, 9), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_neither_units_nor_order_matter(log_params, log_tokens, seed):
    runs = table()
    frame = runs.frame()
    changed = frame.assign(
        params=frame.params * 10**log_params, target_tokens=frame.target_tokens * 10**log_tokens
    ).sample(frac=1, random_state=seed)
    one = canonical(runs, m3(), student_t())
    other = canonical(runs_from_frame(changed), m3(), student_t())
    assert jax.tree.structure(one.arrays) == jax.tree.structure(other.arrays)
    for a, b in zip(jax.tree.leaves(one.arrays), jax.tree.leaves(other.arrays), strict=True):
        np.testing.assert_array_equal(a, b)


def test_order_leads_back_to_the_table():
    runs = table()
    canon = canonical(runs, m3(), student_t())
    assert canon.arrays["y"].shape == (bucket(40),)
    np.testing.assert_allclose(
        np.exp(canon.arrays["y"][:40]) * canon.scale["loss"], runs["loss"][canon.order], rtol=1e-14
    )
    assert canon.arrays["weight"].sum() == 40


def test_weights_and_standard_errors():
    runs = table(weight=np.arange(40) % 3, loss_se=0.02)
    canon = canonical(runs, m3(), student_t(known=True))
    np.testing.assert_array_equal(canon.arrays["weight"][:40], (np.arange(40) % 3)[canon.order])
    np.testing.assert_allclose(canon.arrays["relative_se"][:40], (0.02 / runs["loss"])[canon.order])
    assert (canonical(runs, m3(), student_t()).arrays["relative_se"] == 0).all()


@pytest.mark.parametrize(
    "law", [chinchilla(), m3(), named("prescriptive"), named("target_ratio")], ids=lambda v: v.name
)
def test_coefficients_come_back_in_table_units(law):
    """The loss of canonical coefficients on canonical columns is that of table coefficients on the table."""
    runs = table()
    canon = canonical(runs, law, student_t())
    scaled = {c.name: np.asarray(c.prior.sample(jax.random.key(1))) for c in law.coefficients}
    with jax.enable_x64(True):
        c = {n: np.asarray(v) for n, v in unscale(law, scaled, canon.arrays["reference"]).items()}
        relative = jax.vmap(law.loss, in_axes=(None, 0))(c, canon.arrays["x"])[:40]
        table_c = to_table_units(law, c, canon.scale)
        columns = {n: runs[n][canon.order] for n in law.columns}
        absolute = jax.vmap(law.loss, in_axes=(None, 0))(table_c, columns)
    np.testing.assert_allclose(np.asarray(relative) * canon.scale["loss"], absolute, rtol=1e-6)


def test_reference_quantities_are_means_of_logs():
    runs = table()
    constants = canonical(runs, chinchilla(), student_t()).constants(chinchilla())
    assert constants["N"] == pytest.approx(np.exp(np.log(runs["params"]).mean()), rel=1e-8)
    assert constants["T"] == pytest.approx(np.exp(np.log(runs.target_tokens_seen).mean()), rel=1e-8)
    assert constants["L"] == np.median(runs["loss"])
    repeating = runs["epochs"] > 1
    m3_constants = canonical(runs, m3(), student_t()).constants(m3())
    assert m3_constants["k"] == pytest.approx(np.exp(np.log(runs["epochs"][repeating] - 1).mean()), rel=1e-8)


def test_constants_of_another_table_are_kept():
    runs = table()
    constants = canonical(runs, m3(), student_t()).constants(m3())
    part = canonical(runs.select(np.arange(10, 40)), m3(), student_t(), constants)
    again = part.constants(m3())
    assert again.keys() == constants.keys()
    for name, value in constants.items():
        assert again[name] == pytest.approx(value, rel=1e-8)


def test_errors_name_what_is_missing():
    with pytest.raises(RunTableError, match="'language'"):
        canonical(table(), m3(), normal(by="language"))
    with pytest.raises(RunTableError, match="'loss_se'"):
        canonical(table(), m3(), normal(known=True))
    in_millions = runs_from_frame(table().frame(), unit_params=1e6)
    with pytest.raises(RunTableError, match="farseer has its coefficients in parameters"):
        canonical(in_millions, named("farseer"), student_t())


@pytest.mark.parametrize(
    ("law", "column", "cell", "said"),
    [
        ("multilingual", "languages", "many", r"row 4, column languages: 'many', expected a finite number"),
        (
            "multilingual",
            "languages",
            "",
            r"row 4, column languages: blank.*, since law multilingual reads it",
        ),
        ("multilingual", "languages", np.inf, r"row 4, column languages: inf, expected a finite number"),
        (
            "multilingual",
            "languages",
            0.0,
            r"row 4: languages 0, expected values at which K, which law multilingual",
        ),
        ("continued", "continued", "yes", r"row 4, column continued: 'yes', expected a finite number"),
        ("atlas", "en_tokens", -1.0, r"row 4, column en_tokens: -1, expected a finite number of 0 or more"),
        ("atlas", "en_unique_tokens", None, r"row 4, column en_unique_tokens: blank"),
    ],
)
def test_cells_of_a_laws_own_columns_are_named(law, column, cell, said):
    options = {"sources": ("en",)} if law == "atlas" else {}
    own = {"languages": 2.0, "continued": 1.0, "en_tokens": 0.0, "en_unique_tokens": 1e9}
    frame = table(**own).frame().astype({column: object})
    frame.loc[3, column] = cell
    with pytest.raises(RunTableError, match=said):
        canonical(runs_from_frame(frame), named(law, **options), student_t())
    fine = runs_from_frame(frame.assign(**{column: 0.0 if column.endswith("tokens") else 1.0}))
    canonical(fine, named(law, **options), student_t())


def test_a_run_is_named_as_its_table_names_it():
    frame = table(languages=2.0, run=[f"run-{i}" for i in range(40)]).frame()
    frame.loc[7, "languages"] = 0.0
    with pytest.raises(RunTableError, match="run-7: languages 0"):
        canonical(runs_from_frame(frame), named("multilingual"), student_t())


def test_named_sources_are_part_of_the_source_text():
    law = named("atlas", sources=("en", "fr"))
    S = table().source_tokens
    columns = {"en_tokens": 0.6 * S, "en_unique_tokens": 0.6 * S, "fr_tokens": 0.4 * S, "fr_unique_tokens": S}
    canonical(table(**columns), law, student_t())
    canonical(table(**columns | {"fr_tokens": 0.1 * S}), law, student_t())  # the rest has no name
    row = int(np.flatnonzero(S)[0])
    too_much = 0.4 * S + np.where(np.arange(40) == row, 0.05 * S, 0.0)
    said = (
        rf"row {row + 1}, column en_tokens \+ fr_tokens: .*, expected at most the source tokens seen, .* = "
    )
    with pytest.raises(RunTableError, match=said):
        canonical(table(**columns | {"fr_tokens": too_much}), law, student_t())
    with pytest.raises(
        RunTableError, match=r"column fr_unique_tokens: 0.*a number above 0, since fr_tokens is"
    ):
        canonical(table(**columns | {"fr_unique_tokens": 0.0}), law, student_t())
