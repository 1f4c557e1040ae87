"""Documents to tokens: bytes, or the ids of a tokenizer of the tokenizers library. END = 0 in both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt

from m3bayes.errors import M3BayesError

END = 0  # after each document; NUL is no character of a clean text, ids of a tokenizer are shifted by 1
_BATCH = 2_000_000  # characters given to a tokenizer at once, since its answers are bulky


@dataclass(frozen=True)
class Encoding:
    """``encode`` gives the tokens of each text, without END, below ``vocabulary``; ``name`` tells encodings apart."""

    name: str
    encode: Callable[[Sequence[str]], Iterator[np.ndarray]]
    vocabulary: int
    dtype: np.dtype


def byte_encoding() -> Encoding:
    def encode(texts: Sequence[str]) -> Iterator[np.ndarray]:
        return (np.frombuffer(text.encode(), np.uint8) for text in texts)

    return Encoding("bytes", encode, 256, np.dtype(np.uint8))


def tokenizer_encoding(path: Path) -> Encoding:
    """Of a ``tokenizer.json``, without its special tokens, truncation and padding."""
    try:
        import tokenizers
    except ImportError as error:
        raise M3BayesError(
            "the option tokenizer needs the library tokenizers, which is not installed; "
            "pip install 'm3bayes[pilot]', or leave the option out to train on bytes"
        ) from error
    try:
        text = path.read_bytes().decode("utf-8")
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        reason = " ".join(str(error).split()) or type(error).__name__
        raise M3BayesError(
            f"{path} cannot be read as a tokenizer: {reason}; give a tokenizer.json of the tokenizers library"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 2
    if vocabulary < 2:
        raise M3BayesError(f"{path} has no token; give a tokenizer that has been trained")
    dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)

    def encode(texts: Sequence[str]) -> Iterator[np.ndarray]:
        for batch in _batches(texts):
            for encoded in tokenizer.encode_batch(list(batch), add_special_tokens=False):
                yield (np.array(encoded.ids, np.int64) + 1).astype(dtype)

    name = f"tokenizers {tokenizers.__version__} {hashlib.sha256(text.encode()).hexdigest()}"
    return Encoding(name, encode, vocabulary, dtype)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start, characters = 0, 0
    for number, text in enumerate(texts):
        characters += len(text)
        if characters >= _BATCH:
            yield texts[start : number + 1]
            start, characters = number + 1, 0
    if start < len(texts):
        yield texts[start:]


def token_stream(
    texts: Sequence[str], encoding: Encoding
) -> tuple[UInt[np.ndarray, " token"], Int[np.ndarray, " document"]]:
    """All texts one after the other, END after each, and where each begins."""
    end = np.array([END], encoding.dtype)
    pieces, lengths = [], []
    for tokens in encoding.encode(texts):
        pieces += [tokens, end]
        lengths.append(len(tokens) + 1)
    stream = np.concatenate(pieces) if pieces else np.zeros(0, encoding.dtype)
    lengths = np.array(lengths, np.int64)
    return stream, np.cumsum(lengths) - lengths
