"""Models in files: the same numbers back, and what is no such file refused by name."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.errors import M3BayesError
from m3bayes.pilot import checkpoints
from m3bayes.pilot.model import Decoder, Shape
from tests.sealing import sealed

SHAPE, V = Shape(1, 16, 2), 32


@pytest.fixture
def model() -> Decoder:
    return Decoder(SHAPE, V, jax.random.key(3))


def test_a_model_comes_back_bit_for_bit(model, tmp_path):
    checkpoints.save(tmp_path / "new" / "folder", "a", model)
    found = checkpoints.load(tmp_path / "new" / "folder", "a", SHAPE, V)
    assert jax.tree.structure(found.model) == jax.tree.structure(model)
    for given, back in zip(jax.tree.leaves(model), jax.tree.leaves(found.model), strict=True):
        assert given.dtype == back.dtype and np.array_equal(given, back)
    tokens = jnp.arange(10) % V
    assert np.array_equal(model(tokens), found.model(tokens))


def test_the_digest_is_of_the_parameters(model, tmp_path):
    weight = model.embedding.weight.at[3, 4].add(1e-6)
    other = eqx.tree_at(lambda model: model.embedding.weight, model, weight)
    for name, one in (("a", model), ("b", model), ("c", other)):
        checkpoints.save(tmp_path, name, one)
    a, b, c = (checkpoints.load(tmp_path, name, SHAPE, V).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("shape", "vocabulary"), [(Shape(2, 16, 2), V), (Shape(1, 32, 2), V), (SHAPE, V + 1)]
)
def test_another_shape_or_vocabulary_is_refused(model, tmp_path, shape, vocabulary):
    checkpoints.save(tmp_path, "a", model)
    expected = (
        rf"a\.npz has a model of \d+ numbers.* expected \d+: {shape.params} parameters and a vocabulary"
    )
    with pytest.raises(M3BayesError, match=expected):
        checkpoints.load(tmp_path, "a", shape, vocabulary)


def test_what_is_not_there_or_not_whole_is_refused(model, tmp_path):
    with pytest.raises(M3BayesError, match=r"a\.npz cannot be read: .* --keep"):
        checkpoints.load(tmp_path, "a", SHAPE, V)
    with pytest.raises(M3BayesError, match="no folder of checkpoints is given; say --checkpoints FOLDER"):
        checkpoints.load(None, "a", SHAPE, V)
    checkpoints.save(tmp_path, "a", model)
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", whole[:-1], b"x" + whole[1:], sealed(b"text", "something else")):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(M3BayesError, match=r"a\.npz is not a whole checkpoint .* train the run a again"):
            checkpoints.load(tmp_path, "a", SHAPE, V)
    (tmp_path / "a.npz").write_bytes(sealed(b"text", "model 1"))
    with pytest.raises(M3BayesError, match=r"a\.npz is not a checkpoint of m3bayes pilot"):
        checkpoints.load(tmp_path, "a", SHAPE, V)


def test_a_run_that_cannot_name_a_file_is_refused(model, tmp_path):
    with pytest.raises(M3BayesError, match=r"'\.\./a' cannot name the file"):
        checkpoints.save(tmp_path, "../a", model)
    (tmp_path / "file").write_text("")
    with pytest.raises(M3BayesError, match=r"file/in cannot be made"):
        checkpoints.save(tmp_path / "file" / "in", "a", model)
