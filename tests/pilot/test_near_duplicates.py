from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.pilot import near_duplicates as module
from m3bayes.pilot.near_duplicates import jaccard, near_duplicates, shingles

WORDS = [
    "a",
    "parameter",
    "of",
    "this",
    "function",
    "is",
    "given",
    "as",
    "one",
    "value",
    "per",
    "row",
    "表の",
    "各行",
    "に値が",
    "一つ",
    "あり",
    "ます",
    "über",
]
LINES = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def brute_force(lines, others, threshold):
    def index(one, other):
        one, other = ({line[i : i + 5] for i in range(len(line) - 4)} for line in (one, other))
        return len(one & other) / len(one | other) if one & other else 0.0

    return [any(index(line, other) >= threshold for other in others) for line in lines]


def edited(line: str, generator: np.random.Generator) -> str:
    characters = list(line)
    for _ in range(generator.integers(0, 5)):
        place = int(generator.integers(0, len(characters) + 1))
        characters[place : place + int(generator.integers(0, 2))] = ["x"] * int(generator.integers(0, 2))
    return "".join(characters)


@settings(deadline=None, max_examples=150)
@given(
    lines=st.lists(LINES, max_size=8),
    others=st.lists(LINES, max_size=8),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_any_lines_are_found_as_by_comparing_each_with_each(lines, others, threshold):
    found = near_duplicates(lines, others, threshold)
    assert found.tolist() == brute_force(lines, others, threshold)


@pytest.mark.parametrize("small", [False, True], ids=["one chunk", "many chunks and parts"])
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_edited_lines_are_found_as_by_comparing_each_with_each(monkeypatch, threshold, small):
    if small:
        monkeypatch.setattr(module, "_CHUNK", 200)
        monkeypatch.setattr(module, "_PAIRS", 3)
    generator = np.random.default_rng(1)
    others = [" ".join(generator.choice(WORDS, generator.integers(2, 15))) for _ in range(200)]
    lines = [edited(others[number], generator) for number in generator.integers(0, len(others), 150)]
    expected = brute_force(lines, others, threshold)
    assert 20 < sum(expected) < 130
    assert near_duplicates(lines, others, threshold).tolist() == expected


def test_the_threshold_itself_is_near_enough():
    """|x| = 35, and 28 of them shared: 0.8 * 35 is more than 28 in floats."""
    line = "".join(map(chr, range(0x100, 0x100 + 39)))
    other = line[:32]
    assert len(shingles(line)) == 35 and jaccard(shingles(line), shingles(other)) == 0.8
    assert near_duplicates([line, other], [other, line]).all()
    assert near_duplicates([line], [other]).all() and near_duplicates([other], [line]).all()
    assert not near_duplicates([line], [other[:-1]]).any()


def test_lines_without_shingles_are_like_nothing():
    assert near_duplicates(["abcd", "", "abcde"], ["abcd", "", "abcde"]).tolist() == [False, False, True]
    assert near_duplicates([], ["abcde"]).tolist() == []
    assert near_duplicates(["abcde"], []).tolist() == [False]
    assert near_duplicates(["abcd"], ["abcd"]).tolist() == [False]


def test_more_lines_than_a_chunk_can_number(monkeypatch):
    monkeypatch.setattr(module, "_LINE_BITS", 3)
    monkeypatch.setattr(module, "_HASH_BITS", np.uint64(61))
    others = ["".join(letters) for letters in itertools.product("abcd", repeat=6)][:500]
    lines = others[::50] + ["zzzzzz"]
    assert near_duplicates(lines, others).tolist() == [True] * 10 + [False]


def test_few_pairs_are_compared_in_full(monkeypatch):
    compared = []

    def counting(one, other):
        compared.append(1)
        return jaccard(one, other)

    monkeypatch.setattr(module, "jaccard", counting)
    generator = np.random.default_rng(2)
    words = ["".join(generator.choice(list("abcdefghij"), 6)) for _ in range(500)]
    others = [" ".join(generator.choice(words, 12)) for _ in range(2000)]
    lines = [
        *(other + "x" for other in others[:100]),
        *(" ".join(generator.choice(words, 12)) for _ in range(400)),
    ]
    assert near_duplicates(lines, others).sum() == 100
    assert len(compared) < 200
