"""Laws by name."""

from __future__ import annotations

import json

import pytest

from m3bayes.errors import LawError
from m3bayes.laws import LAWS, all_laws, chinchilla, m3, named

NAMES = [
    "m3", "chinchilla", "data_constrained", "target_ratio", "atlas",
    "prescriptive", "practical", "farseer", "dcpt", "staged", "multilingual", "continued",
]  # fmt: skip


def test_there_are_twelve():
    assert [law.name for law in all_laws()] == NAMES == list(LAWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_options_are_enough(name):
    law = named(name)
    assert law is named(name)
    assert law.options == {}


def test_options_come_back_from_a_file():
    law = m3(penalty_tokens="target+source", floor=True, drop=("tau", "P"))
    options = json.loads(json.dumps(law.options))
    again = named(law.name, **options)
    assert again.names == law.names
    assert again.options == law.options
    assert named("m3", drop="P").names == named("m3", drop=["P"]).names == m3(drop=("P",)).names
    assert named("chinchilla", tokens="all").options == chinchilla("all").options == {"tokens": "all"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m4", {}, f"no law is called 'm4'; known are {', '.join(NAMES)}"),
        ("m3", {"tokens": "all"}, "law m3 has no option 'tokens'; it takes penalty_tokens, floor, drop"),
        ("atlas", {"eta": 1}, "law atlas has no option 'eta'; it takes drop, sources, similarity, target, other"),
        ("chinchilla", {"tokens": "source"},
         "law chinchilla: option tokens is 'source'; expected 'target' or 'all'"),
        ("m3", {"floor": "yes"}, "law m3: option floor is 'yes'; expected False or True"),
        ("dcpt", {"drop": ("E",)},
         "E cannot be dropped from dcpt: no value switches it off; these can be: A, B, C, eta, eps"),
        ("dcpt", {"drop": "tau"},
         "law dcpt has no coefficient 'tau'; it has E, A, B, alpha, beta, C, eta, gamma, eps"),
    ],
)  # fmt: skip
def test_errors_say_what_is_known(name, options, message):
    with pytest.raises(LawError) as error:
        named(name, **options)
    assert str(error.value) == message
