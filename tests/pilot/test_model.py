from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.errors import M3BayesError
from m3bayes.pilot.model import SHAPES, Decoder, Shape, nearest_shape, token_losses

TINY = Shape(2, 16, 2)


def test_the_count_of_parameters_is_the_model_s_own():
    for shape in (TINY, *SHAPES[:4]):
        model = Decoder(shape, 256, jax.random.key(0))
        sizes = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
        assert sizes - 256 * shape.width == shape.params


def test_sizes_span_the_range_that_a_pilot_needs():
    sizes = [shape.params for shape in SHAPES]
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(25e3, rel=0.05)
    assert sizes[-1] == pytest.approx(10e6, rel=0.05)


def test_flops_approach_six_n_d_for_wide_models_and_far_exceed_it_for_narrow_ones():
    wide, narrow = Shape(8, 2048, 16), SHAPES[0]
    assert wide.flops(1000, 64, 256) == pytest.approx(6 * wide.params * 1000, rel=0.01)
    assert narrow.flops(1000, 64, 256) > 1.3 * 6 * narrow.params * 1000


def test_a_token_sees_itself_and_those_before_it_alone():
    model = Decoder(TINY, 50, jax.random.key(1))
    tokens = jnp.arange(12) % 50
    logits = model(tokens)
    for place in (0, 5, 11):
        changed = model(tokens.at[place].set(49))
        assert np.allclose(logits[:place], changed[:place], atol=1e-6)
        assert not np.allclose(logits[place], changed[place], atol=1e-4)


def test_order_matters():
    model = Decoder(TINY, 50, jax.random.key(1))
    a, b = model(jnp.array([1, 2, 3, 4])), model(jnp.array([2, 1, 3, 4]))
    assert not np.allclose(a[-1], b[-1], atol=1e-4)


def test_token_losses_are_minus_the_log_of_the_softmax():
    model = Decoder(TINY, 50, jax.random.key(2))
    window = jnp.array([3, 1, 4, 1, 5])
    logits = np.asarray(model(window[:-1]), float)
    naive = [np.log(np.exp(row).sum()) - row[token] for row, token in zip(logits, window[1:], strict=True)]
    assert np.allclose(token_losses(model, window), naive, rtol=1e-5)
    assert np.mean(naive) == pytest.approx(np.log(50), rel=0.05)  # knows nothing yet


def test_nearest_shape():
    assert nearest_shape(25_000).params == 24_736
    assert nearest_shape(24_736).params == 24_736
    with pytest.raises(M3BayesError, match="about 5000 parameters; there are 24736"):
        nearest_shape(5_000)
    with pytest.raises(M3BayesError, match="about nan parameters"):
        nearest_shape(float("nan"))
