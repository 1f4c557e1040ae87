from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RecipeError
from m3bayes.pilot.stream import (
    SourceText,
    StageWindows,
    gather,
    passes,
    realised,
    shared,
    spread,
    stage_windows,
    stream,
    turns,
)
from m3bayes.recipe import Recipe, recipe

L, B = 16, 4


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_target_windows_are_spread_evenly(windows, data):
    target = data.draw(st.integers(0, windows))
    marks = spread(windows, target)
    assert marks.sum() == target
    # any stretch holds its share to within one window
    share = np.concatenate([[0], np.cumsum(marks)]) - np.arange(windows + 1) * target / windows
    assert np.abs(share).max() < 1 + 1e-9


@settings(deadline=None)
@given(
    k=st.floats(0.5, 20), r=st.floats(0.05, 1), f=st.floats(0, 1), first=st.floats(0, 0.9), U=st.integers(800, 5000)
)  # fmt: skip
def test_stages_carry_out_the_recipe_to_within_a_step(k, r, f, first, U):
    r_f = r + f * (1 - r)
    two = r_f - r > 0.05
    wanted = Recipe(1e6, U, k, r, r_f if two else r, first * r if two else None)
    try:
        stages = stage_windows(wanted, L, B)
    except RecipeError as error:
        assert "too few" in str(error)
        return
    total = sum(stage.windows for stage in stages)
    assert total % B == 0
    assert abs(total * L - wanted.tokens) <= max(L * B / 2 + 1e-6, L * B - wanted.tokens)
    assert stages[-1].windows / total == pytest.approx(wanted.last_stage_share, abs=0.51 / total)
    got = recipe(realised(wanted, stages, L))
    assert got.target_tokens == U
    assert got.epochs * U == pytest.approx(L * sum(stage.target for stage in stages))
    assert got.target_ratio == pytest.approx(r, abs=2.5 / total)


def test_realised_counts_are_exact_for_recipes_that_fit():
    wanted = Recipe(1e6, 64 * L, 4, 0.5, 1.0, 0.25)
    stages = stage_windows(wanted, L, B)
    assert stages == (StageWindows(341, 85), StageWindows(171, 171))
    got = recipe(realised(wanted, stages, L))
    assert (got.epochs, got.target_ratio) == (4.0, 0.5)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(L, 1000))
def test_every_pass_reads_every_token_once_but_for_less_than_a_window(windows, U):
    starts = passes(windows, U, L, np.random.default_rng(0))
    assert len(starts) == windows
    a_pass = U // L
    for first in range(0, windows - a_pass + 1, a_pass):
        places = (starts[first : first + a_pass, None] + np.arange(L)) % U
        assert len(np.unique(places)) == a_pass * L


def test_passes_are_cut_and_ordered_anew():
    starts = passes(40, 20 * L, L, np.random.default_rng(1))
    assert set(starts[:20] % L) != set(starts[20:] % L)
    assert list(np.argsort(starts[:20])) != list(np.argsort(starts[20:]))


def test_source_text_is_never_read_twice():
    stages = (StageWindows(50, 0), StageWindows(30, 15))
    order = stream(stages, 10 * L, [SourceText(65)], L, seed=3)
    source = order.start[~order.is_target]
    assert len(source) == 65 == len(set(source))
    with pytest.raises(RecipeError, match="1,040 source tokens asked for, 1,024 there are"):
        stream(stages, 10 * L, [SourceText(64)], L, seed=3)


def test_one_source_is_read_in_the_order_of_its_seed():
    order = stream([StageWindows(160, 40)], 10 * L, [SourceText(500)], L, seed=5)
    naive = L * np.random.default_rng([5, 2]).permutation(500)[:120]
    assert (order.start[~order.is_target] == naive).all()


@settings(deadline=None)
@given(st.integers(0, 300), st.lists(st.floats(0, 5), min_size=1, max_size=4))
def test_shares_are_met_to_within_a_window(windows, shares):
    if windows and sum(shares) < 1e-3:
        return
    counts = shared(windows, shares)
    assert sum(counts) == windows and min(counts) >= 0
    wanted = windows * np.array(shares) / max(sum(shares), 1e-3)
    assert np.abs(counts - wanted).max() <= 1 + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_sources_take_turns_in_proportion(counts):
    found = turns(counts)
    naive = sorted((Fraction(2 * i + 1, 2 * n), source) for source, n in enumerate(counts) for i in range(n))
    assert found.tolist() == [source for _, source in naive]
    for source, count in enumerate(counts):
        so_far = np.cumsum(found == source) - count * np.arange(1, len(found) + 1) / max(len(found), 1)
        assert not len(found) or np.abs(so_far).max() < len(counts)


def test_several_sources_lie_end_to_end_and_none_is_read_twice():
    stages = (StageWindows(50, 0), StageWindows(30, 15))
    texts = [SourceText(40, 0, 1), SourceText(90, 41 * L, 3), SourceText(9, 200 * L, 0)]
    order = stream(stages, 10 * L, texts, L, seed=3)
    source = order.start[~order.is_target]
    first, second = source[source < 41 * L], source[source >= 41 * L]
    assert (len(first), len(second)) == (16, 49)  # a quarter and three of 65
    assert len(set(source)) == 65 and (source % L == 0).all()
    assert first.max() <= 39 * L and second.max() <= (41 + 89) * L
    # half of the training holds half of each
    half = source[: len(source) // 2]
    assert abs((half < 41 * L).sum() - 8) <= 1
    with pytest.raises(RecipeError, match="784 source tokens asked for, 768 there are"):
        stream(stages, 10 * L, [texts[0], SourceText(48, 41 * L, 3)], L, seed=3)


def test_the_order_of_a_source_does_not_hang_on_the_others():
    alone = stream([StageWindows(60, 20)], 10 * L, [SourceText(100)], L, seed=5)
    mixed = stream([StageWindows(100, 20)], 10 * L, [SourceText(100), SourceText(70, 101 * L)], L, seed=5)
    of_first = mixed.start[~mixed.is_target]
    of_first = of_first[of_first < 101 * L]
    assert (of_first == alone.start[~alone.is_target]).all()


def test_the_order_of_target_text_does_not_hang_on_the_source():
    alone = stream([StageWindows(40, 40)], 10 * L, [SourceText(0)], L, seed=5)
    mixed = stream([StageWindows(160, 40)], 10 * L, [SourceText(500)], L, seed=5)
    assert (alone.start == mixed.start[mixed.is_target]).all()


def test_gather_reads_the_ring_of_target_text_and_the_line_of_source_text():
    target, source = np.arange(3 * L, dtype=np.uint8), np.arange(100, 100 + 4 * L + 1, dtype=np.uint8)
    order = stream([StageWindows(6, 3)], len(target), [SourceText(4)], L, seed=0)
    tokens = gather(order, target, source, L, 0, 6)
    assert tokens.shape == (6, L + 1)
    for row, is_target, start in zip(tokens, order.is_target, order.start, strict=True):
        naive = [target[(start + i) % len(target)] if is_target else source[start + i] for i in range(L + 1)]
        assert row.tolist() == naive


def test_too_little_text_is_refused():
    with pytest.raises(RecipeError, match="too few for its stages"):
        stage_windows(Recipe(1e6, 100, 0.5, 0.5, 1.0, 0.49), L, B)
    with pytest.raises(RecipeError, match="expected at least 16"):
        stream([StageWindows(4, 4)], 10, [SourceText(0)], L, seed=0)
