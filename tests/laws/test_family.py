"""Language families: facts that are easily checked, and what follows from them."""

from __future__ import annotations

from itertools import product

import pytest

from m3bayes.errors import LawError
from m3bayes.laws.family import LANGUAGES, similarity_of


def test_facts():
    assert len(LANGUAGES) >= 60
    assert LANGUAGES["de"] == ("Indo-European", "Germanic", "Latin")
    assert LANGUAGES["hi"] == ("Indo-European", "Indo-Aryan", "Devanagari")
    assert LANGUAGES["mt"] == ("Afro-Asiatic", "Semitic", "Latin")
    assert LANGUAGES["fi"].family == LANGUAGES["hu"].family == "Uralic"
    assert all(len(code) == 2 and code.islower() for code in LANGUAGES)


def test_similarity_rises_with_what_is_shared():
    ordered = [("ja", "de"), ("fi", "de"), ("fa", "de"), ("fr", "de"), ("en", "de")]
    values = [similarity_of(*pair) for pair in ordered]
    assert values == pytest.approx([0.3, 0.4, 0.45, 0.55, 0.7])
    assert similarity_of("de", "de") == 1


def test_similarity_is_symmetric_and_a_share():
    for one, other in product(LANGUAGES, repeat=2):
        assert 0.3 <= similarity_of(one, other) == similarity_of(other, one) <= 1


def test_unknown_codes_are_refused():
    with pytest.raises(LawError, match="family of language 'deu'; expected an ISO 639 code"):
        similarity_of("en", "deu")
