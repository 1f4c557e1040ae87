"""Text in, tokens out: what the models of a pilot are trained and measured on."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt

from m3bayes.errors import M3BayesError
from m3bayes.pilot import corpus_cache
from m3bayes.pilot.documents import documents_of, read_files
from m3bayes.pilot.split import MIN_BYTES, Split, split_corpora
from m3bayes.pilot.tokens import Encoding, byte_encoding, token_stream, tokenizer_encoding


@dataclass(frozen=True, eq=False)
class Corpus:
    """The tokens of one text.

    ``train`` has the documents in the order of the files, ``validation`` in one drawn by a hash of their text,
    so that any first part of it is a fair sample; END = 0 follows each document (the last one of validation
    may be cut). ``starts`` is where each document begins in ``train``. ``counts`` says what was taken out, and
    how many bytes the tokens stand for, so that losses can be had per byte.
    """

    name: str
    train: UInt[np.ndarray, " token"]
    starts: Int[np.ndarray, " document"]
    validation: UInt[np.ndarray, " validation_token"]
    vocabulary: int
    counts: Mapping[str, int]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokens, the starts and the vocabulary; name and counts are not in it."""
        digest = hashlib.sha256(f"vocabulary {self.vocabulary}\n".encode())
        for array in (self.train, self.starts, self.validation):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(f"{little.dtype.str} {len(little)}\n".encode())
            digest.update(little.data)
        return digest.hexdigest()


def read_corpora(
    targets: Mapping[str, Path],
    sources: Mapping[str, Path],
    *,
    tokenizer: Path | None = None,
    validation_share: float = 0.05,
    validation_tokens: int | None = None,
    cache: Path | None = None,
) -> tuple[dict[str, Corpus], dict[str, Corpus]]:
    """The corpora of the targets and of the sources, by name.

    A path is a UTF-8 text file, with blank lines between documents, or a folder of ``*.txt`` files, each a
    document. About ``validation_share`` of the documents become validation text, of which the first
    ``validation_tokens`` are kept; what is over is not trained on. What is taken out is told in ``split``.

    ``tokenizer`` is a tokenizer.json of the tokenizers library; without it tokens are bytes. ``cache`` is a
    folder in which the result is kept, for the next call with the same text and settings.

    Raises M3BayesError for a path that cannot be read, is not UTF-8, or has too little text to split.
    """
    paths = _named_paths(targets, sources)
    if not 0 < validation_share < 1:
        raise M3BayesError(f"validation_share is {validation_share}, expected between 0 and 1, such as 0.05")
    if validation_tokens is not None and validation_tokens < 1:
        raise M3BayesError(f"validation_tokens is {validation_tokens}, expected 1 or more, or None for all")
    encoding = byte_encoding() if tokenizer is None else tokenizer_encoding(Path(tokenizer))
    files = {name: read_files(path) for name, path in paths.items()}
    place = None
    if cache is not None:
        settings = f"{list(sources)} {validation_share} {validation_tokens} {encoding.name}"
        place = corpus_cache.cache_file(Path(cache), _parts(paths, files, settings))
        corpora = _from_cache(place)
        if corpora is not None:
            return {name: corpora[name] for name in targets}, {name: corpora[name] for name in sources}

    documents = {name: documents_of(path, files.pop(name)) for name, path in paths.items()}
    splits = split_corpora(documents, sources, validation_share)
    for name, path in paths.items():
        _check_split(name, path, splits[name], validation_share)
    corpora = {name: _corpus(name, splits[name], encoding, validation_tokens) for name in paths}
    if place is not None:
        _to_cache(place, corpora)
    return {name: corpora[name] for name in targets}, {name: corpora[name] for name in sources}


def subset(corpus: Corpus, tokens: int, seed: int) -> UInt[np.ndarray, " token"]:
    """Exactly ``tokens`` training tokens: whole documents in an order drawn by ``seed``, the last one cut.

    A smaller subset of the same seed is the first part of a larger one.
    """
    if not 1 <= tokens <= len(corpus.train):
        raise M3BayesError(
            f"corpus {corpus.name} has {len(corpus.train)} training tokens, {tokens} were asked for, expected "
            f"1 to {len(corpus.train)}; give more text, or a plan with fewer target tokens"
        )
    if seed < 0:
        raise M3BayesError(f"the seed of a subset is {seed}, expected 0 or more")
    ends = np.append(corpus.starts[1:], len(corpus.train))
    order = np.random.default_rng(seed).permutation(len(corpus.starts))
    filled = np.cumsum((ends - corpus.starts)[order])
    order = order[: np.searchsorted(filled, tokens) + 1]
    pieces = [corpus.train[corpus.starts[document] : ends[document]] for document in order]
    return np.concatenate(pieces)[:tokens]


# ---- steps -------------------------------------------------------------------------------------


def _named_paths(targets: Mapping[str, Path], sources: Mapping[str, Path]) -> dict[str, Path]:
    for kind, given in (("target", targets), ("source", sources)):
        if not given:
            raise M3BayesError(f"no {kind} corpus is given, expected one or more, each a name and a path")
    both = [name for name in sources if name in targets]
    if both:
        raise M3BayesError(
            f"{both[0]!r} names both a target and a source, expected different texts; rename one of them"
        )
    return {name: Path(path) for name, path in [*targets.items(), *sources.items()]}


def _check_split(name: str, path: Path, split: Split, share: float) -> None:
    if split.train and split.validation:
        return
    counts = split.counts
    usable = counts["documents"] - counts["duplicate_documents"] - counts["short_documents"]
    text = (
        f"corpus {name}: of {counts['documents']} documents in {path}, {usable} are distinct and have at least "
        f"{MIN_BYTES} bytes without duplicate lines"
    )
    if counts["lines_of_targets"]:
        text += f" and the {counts['lines_of_targets']} lines that a target has too"
    between = "a *.txt file each" if path.is_dir() else "with blank lines between them"
    raise M3BayesError(
        f"{text}; {len(split.train)} for training and {len(split.validation)} for validation, expected some of "
        f"both; give more documents ({between}) or another validation_share than {share:g}"
    )


def _corpus(name: str, split: Split, encoding: Encoding, validation_tokens: int | None) -> Corpus:
    train, starts = token_stream([document.text for document in split.train], encoding)
    validation, _ = token_stream([document.text for document in split.validation], encoding)
    counts = {
        **split.counts,
        "training_bytes": sum(document.bytes for document in split.train),
        "validation_bytes": sum(document.bytes for document in split.validation),
        "training_tokens": len(train),
        "validation_tokens": len(validation),
        "kept_validation_tokens": len(validation[:validation_tokens]),
    }
    return _sealed(name, train, starts, validation[:validation_tokens].copy(), encoding.vocabulary, counts)


def _sealed(
    name: str,
    train: np.ndarray,
    starts: np.ndarray,
    validation: np.ndarray,
    vocabulary: int,
    counts: Mapping[str, int],
) -> Corpus:
    for array in (train, starts, validation):
        array.flags.writeable = False
    return Corpus(name, train, starts, validation, vocabulary, dict(counts))


# ---- cache -------------------------------------------------------------------------------------


def _parts(
    paths: Mapping[str, Path], files: Mapping[str, list[tuple[Path, bytes]]], settings: str
) -> Iterator[bytes]:
    """All that the corpora depend on."""
    yield f"{version('m3bayes')} {unicodedata.unidata_version} {settings}".encode()
    for name, path in paths.items():
        yield f"{name!r} {path.is_dir()} {len(files[name])}".encode()
        for file, data in files[name]:
            yield "/".join(file.relative_to(path).parts).encode("utf-8", "surrogateescape")
            yield data


def _to_cache(place: Path, corpora: Mapping[str, Corpus]) -> None:
    arrays, described = {}, []
    for number, corpus in enumerate(corpora.values()):
        arrays |= {
            f"{number}.train": corpus.train,
            f"{number}.starts": corpus.starts,
            f"{number}.validation": corpus.validation,
        }
        described.append((corpus.name, corpus.vocabulary, dict(corpus.counts)))
    corpus_cache.save(place, arrays, described)


def _from_cache(place: Path) -> dict[str, Corpus] | None:
    kept = corpus_cache.load(place)
    if kept is None:
        return None
    arrays, described = kept
    corpora = {}
    for number, (name, vocabulary, counts) in enumerate(described):
        train, starts, validation = (arrays[f"{number}.{part}"] for part in ("train", "starts", "validation"))
        corpora[name] = _sealed(name, train, starts, validation, vocabulary, counts)
    return corpora
