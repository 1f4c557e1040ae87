"""The language model of the pilot: a small pre-norm decoder with rotary positions and a tied head.

| symbol | meaning |
|---|---|
| N | parameters without the embedding (the head is the embedding, transposed) |
| l, d, h | layers, width, heads |
| L | context, tokens |
| V | vocabulary |

A layer has two RMS norms, attention with four d x d matrices, and a GELU network d -> 4d -> d, all without
biases; a last norm stands before the head. So N = 12 l d^2 + (2 l + 1) d, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from m3bayes.errors import M3BayesError
from m3bayes.recipe import Number

EMBEDDING_SD = 0.02
NEAREST = 0.2  # a size asked for may be off a shape's by this share


@dataclass(frozen=True)
class Shape:
    """Layers, width and heads of a model; ``params`` is N."""

    layers: int
    width: int
    heads: int

    @property
    def params(self) -> int:
        """N = 12 l d^2 + (2 l + 1) d."""
        return 12 * self.layers * self.width**2 + (2 * self.layers + 1) * self.width

    def flops(self, tokens: Number, context: int, vocabulary: int) -> float:
        """FLOP of training on ``tokens``: 6 a matrix element and token, the head and attention counted too.

        6 (12 l d^2 + V d) D + 12 l d L D, as in appendix B of PaLM (arXiv 2204.02311).
        """
        matrices = 12 * self.layers * self.width**2 + vocabulary * self.width
        return 6.0 * matrices * tokens + 12.0 * self.layers * self.width * context * tokens


SHAPES = (
    Shape(2, 32, 2),
    Shape(2, 48, 2),
    Shape(3, 48, 2),
    Shape(3, 64, 2),
    Shape(4, 96, 3),
    Shape(4, 144, 4),
    Shape(6, 192, 6),
    Shape(8, 256, 8),
    Shape(8, 320, 10),
)


def nearest_shape(params: Number) -> Shape:
    """The shape with the nearest N; raises M3BayesError where none is within 20 %."""
    shape = min(SHAPES, key=lambda shape: abs(shape.params - params))
    if not abs(shape.params - params) <= NEAREST * shape.params:
        sizes = ", ".join(str(shape.params) for shape in SHAPES)
        raise M3BayesError(f"no pilot model has about {params:g} parameters; there are {sizes}")
    return shape


class Block(eqx.Module):
    """One layer: attention, then a network of one hidden layer, each behind a norm and added to its input."""

    attention_norm: eqx.nn.RMSNorm
    queries_keys_values: eqx.nn.Linear
    attention_out: eqx.nn.Linear
    network_norm: eqx.nn.RMSNorm
    network_in: eqx.nn.Linear
    network_out: eqx.nn.Linear
    rotary: eqx.nn.RotaryPositionalEmbedding
    heads: int = eqx.field(static=True)

    def __init__(self, shape: Shape, key: Key[Array, ""]):
        d, keys = shape.width, jax.random.split(key, 4)
        self.heads = shape.heads
        self.attention_norm = eqx.nn.RMSNorm(d, use_bias=False)
        self.network_norm = eqx.nn.RMSNorm(d, use_bias=False)
        self.rotary = eqx.nn.RotaryPositionalEmbedding(d // shape.heads)
        self.queries_keys_values = eqx.nn.Linear(d, 3 * d, use_bias=False, key=keys[0])
        self.network_in = eqx.nn.Linear(d, 4 * d, use_bias=False, key=keys[1])
        # what is added to the residual stream starts smaller the more layers add to it (GPT-2)
        calm = (2 * shape.layers) ** -0.5
        self.attention_out = _scaled(eqx.nn.Linear(d, d, use_bias=False, key=keys[2]), calm)
        self.network_out = _scaled(eqx.nn.Linear(4 * d, d, use_bias=False, key=keys[3]), calm)

    def __call__(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        x = x + self._attend(jax.vmap(self.attention_norm)(x))
        hidden = jax.vmap(self.network_in)(jax.vmap(self.network_norm)(x))
        return x + jax.vmap(self.network_out)(jax.nn.gelu(hidden))

    def _attend(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        tokens, d = x.shape
        mixed = jax.vmap(self.queries_keys_values)(x).reshape(tokens, 3, self.heads, d // self.heads)
        turn = jax.vmap(self.rotary, in_axes=1, out_axes=1)
        seen = jax.nn.dot_product_attention(turn(mixed[:, 0]), turn(mixed[:, 1]), mixed[:, 2], is_causal=True)
        return jax.vmap(self.attention_out)(seen.reshape(tokens, d))


class Decoder(eqx.Module):
    """Tokens -> logits of each next token."""

    embedding: eqx.nn.Embedding
    blocks: tuple[Block, ...]
    norm: eqx.nn.RMSNorm

    def __init__(self, shape: Shape, vocabulary: int, key: Key[Array, ""]):
        keys = jax.random.split(key, shape.layers + 1)
        weight = EMBEDDING_SD * jax.random.normal(keys[0], (vocabulary, shape.width))
        self.embedding = eqx.nn.Embedding(weight=weight)
        self.blocks = tuple(Block(shape, key) for key in keys[1:])
        self.norm = eqx.nn.RMSNorm(shape.width, use_bias=False)

    def __call__(self, tokens: Int[Array, " token"]) -> Float[Array, "token vocabulary"]:
        x = jax.vmap(self.embedding)(tokens)
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.embedding.weight.T


def token_losses(model: Decoder, window: Int[Array, " token"]) -> Float[Array, " token-1"]:
    """Loss of each token of a window given those before it, nats."""
    logits = model(window[:-1])
    log_probability = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probability, window[1:, None], axis=1)[:, 0]


def _scaled(layer: eqx.nn.Linear, factor: float) -> eqx.nn.Linear:
    return eqx.tree_at(lambda layer: layer.weight, layer, factor * layer.weight)
