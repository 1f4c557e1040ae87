"""Published coefficients."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from m3bayes.errors import LawError
from m3bayes.laws import PUBLISHED, named, published
from tests.laws.surfaces import loss, recipe, table

OF_LAWS = [fit for fit in PUBLISHED.values() if fit.law is not None]


@pytest.mark.parametrize("fit", OF_LAWS, ids=lambda fit: fit.name)
def test_a_fit_has_every_coefficient_of_its_law(fit):
    law = named(fit.law, **fit.options)
    assert set(fit.coefficients) == set(law.names)
    assert 0.3 < loss(law, fit.coefficients, recipe(params=1e9, target_tokens=2e10)) < 4
    for name, constant in fit.constants.items():
        assert constant.unit == law[name].unit


def test_names_are_listed():
    with pytest.raises(LawError) as error:
        published("chinchilla")
    assert str(error.value) == (
        "no published fit is called 'chinchilla'; known are hoffmann, besiroglu, muennighoff, farseer, "
        "atlas_multilinguality, atlas_finetuning, atlas_transfer"
    )


def test_the_replication_lies_inside_its_intervals_and_hoffmann_does_not():
    ours, theirs = published("besiroglu").constants, published("hoffmann").coefficients
    for constant in ours.values():
        low, high = constant.interval
        assert low < constant.value < high
    low, high = ours["beta"].interval
    assert not low < theirs["beta"] < high


def test_data_constrained_scales_are_exponentials():
    c = published("muennighoff").coefficients
    assert (math.log(c["E"]), math.log(c["A"]), math.log(c["B"])) == pytest.approx(
        (0.6254804, 6.255414, 7.3049974), rel=1e-12
    )


def test_more_languages_at_equal_loss():
    c = published("atlas_multilinguality").coefficients
    for factor, size, tokens in ((2, 1.18, 1.66), (4, 1.40, 2.74)):
        assert factor ** c["size_exponent"] == pytest.approx(size, abs=0.006)
        assert factor ** c["tokens_exponent"] == pytest.approx(tokens, abs=0.006)
    assert c["size_exponent"] + c["tokens_exponent"] == pytest.approx(c["compute_exponent"], abs=0.002)


def test_where_training_from_scratch_overtakes():
    c = published("atlas_finetuning").coefficients
    tokens = c["scale"] * 2e9 ** c["exponent"] / (6 * 2e9)
    assert tokens == pytest.approx(206e9, rel=5e-3)
    assert 144e9 < tokens < 283e9


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("muennighoff", "data_constrained.csv", "in_authors_fit == 1"),
        ("farseer", "size_and_tokens.csv", "loss > 0"),
    ],
)
def test_ranges_are_those_of_the_runs(name, file, rows):
    runs = pd.read_csv(table(file)).query(rows)
    for column, span in published(name).fitted_in.items():
        assert span == pytest.approx((runs[column].min(), runs[column].max()), rel=0.005)
