"""Which lines are nearly the same as a line of another, much larger set. Exact, by an inverted index.

| symbol | meaning |
|---|---|
| x, y | the sets of shingles (runs of 5 characters) of a line and of one that it is compared with |
| t | the least Jaccard index of near duplicates, |x ∩ y| / |x ∪ y| >= t |
| o | the least of |x ∩ y| for given sizes, ceil(t (|x| + |y|) / (1 + t)); never less than ceil(t |x|) |
| h | how many of the indexed shingles of x are in y |

Only |x| - ceil(t |x|) + m shingles of each x are indexed, the rarest. The others number u, so |x ∩ y| <= h + u,
and only pairs with h + u >= o are compared in full. A near duplicate has h >= m. After Xiao, Wang, Lin, Yu
and Wang, Efficient similarity joins for near-duplicate detection, TODS 36(3), 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, UInt64

SHINGLE = 5
THRESHOLD = 0.8
_HITS = 4  # m: with more, the index is larger, but fewer lines are compared in full
_SLACK = 1e-9  # 0.8 * 35 is a little more than 28 in floats

_CHUNK = 1_000_000  # characters hashed at once
_PAIRS = 10_000_000  # pairs of lines held at once, about
_LINE_BITS = 18  # a line's number within a chunk and a shingle's hash share 64 bits
_HASH_BITS = np.uint64(64 - _LINE_BITS)
_BUCKET_BITS = 22
_LINE_END = ord("\n")
_FACTORS = np.random.default_rng(5).integers(1 << 63, (1 << 64) - 1, SHINGLE, dtype=np.uint64) | np.uint64(1)


def near_duplicates(
    lines: Sequence[str], others: Sequence[str], threshold: float = THRESHOLD
) -> Bool[np.ndarray, " line"]:
    """Which of ``lines`` have a Jaccard index of at least ``threshold`` with any of ``others``.

    Lines must not contain line feeds. Those of fewer than 5 characters have no shingles and are near
    duplicates of nothing.
    """
    found = np.zeros(len(lines), bool)
    index = _index(lines, others, threshold)
    last, own = -1, frozenset[str]()
    for line, other in _candidates(index, others, threshold, found):
        if not found[line]:
            if line != last:
                last, own = line, shingles(lines[line])
            found[line] = jaccard(own, shingles(others[other])) >= threshold
    return found


def shingles(line: str) -> frozenset[str]:
    return frozenset(line[i : i + SHINGLE] for i in range(len(line) - SHINGLE + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


# ---- index -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Index:
    """``owners[i]`` is a line that has ``shingles[i]`` among its rarest."""

    shingles: UInt64[np.ndarray, " posting"]  # hashes, sorted
    owners: Int[np.ndarray, " posting"]
    sizes: Int[np.ndarray, " line"]  # |x|
    others: Int[np.ndarray, " line"]  # u

    def without(self, lines: Bool[np.ndarray, " line"]) -> _Index:
        kept = ~lines[self.owners]
        return _Index(self.shingles[kept], self.owners[kept], self.sizes, self.others)


def _index(lines: Sequence[str], others: Sequence[str], threshold: float) -> _Index:
    frequency = np.zeros(1 << _BUCKET_BITS, np.int64)  # at least that of each shingle: buckets are shared
    for _, hashes, _ in _hashed(others):
        frequency += np.bincount(_bucket(hashes), minlength=len(frequency))

    hashes, owner = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for start, of_chunk, line in _hashed(lines):
        order = np.lexsort((of_chunk, frequency[_bucket(of_chunk)], line))
        hashes = np.append(hashes, of_chunk[order])
        owner = np.append(owner, line[order] + start)

    sizes = np.bincount(owner, minlength=len(lines))
    least = np.ceil(threshold * sizes - _SLACK).astype(np.int64)
    indexed = np.minimum(sizes, sizes - least + _HITS)
    rank = np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]
    rarest = rank < indexed[owner]
    hashes, owner = hashes[rarest], owner[rarest]
    order = np.argsort(hashes, kind="stable")
    return _Index(hashes[order], owner[order], sizes, sizes - indexed)


def _candidates(
    index: _Index, others: Sequence[str], threshold: float, found: Bool[np.ndarray, " line"]
) -> Iterator[tuple[int, int]]:
    """Pairs (line, other) that may be near duplicates.

    A line that the caller marks as ``found`` is soon left out.
    """
    for start, hashes, other in _hashed(others):
        index = index.without(found)
        present = np.zeros(1 << _BUCKET_BITS, bool)
        present[_bucket(index.shingles)] = True
        size = np.bincount(other)  # |y|
        maybe = present[_bucket(hashes)]
        hashes, other = hashes[maybe], other[maybe]
        first = np.searchsorted(index.shingles, hashes)
        postings = np.searchsorted(index.shingles, hashes, "right") - first
        for part in _parts(other, postings):
            line, its = (
                _expand(first[part], postings[part], index.owners),
                np.repeat(other[part], postings[part]),
            )
            x, y = index.sizes[line], size[its]
            alike = (y >= threshold * x - _SLACK) & (x >= threshold * y - _SLACK)
            pair, h = _counted(line[alike] * len(size) + its[alike])
            line, its = pair // len(size), pair % len(size)
            least = threshold / (1 + threshold) * (index.sizes[line] + size[its]) - _SLACK
            enough = h + index.others[line] >= least
            yield from zip(line[enough].tolist(), (its[enough] + start).tolist(), strict=True)


def _expand(
    first: Int[np.ndarray, " hit"], postings: Int[np.ndarray, " hit"], owners: Int[np.ndarray, " posting"]
) -> Int[np.ndarray, " pair"]:
    """``owners[first[i] : first[i] + postings[i]]`` for each hit i, one after the other."""
    before = np.cumsum(postings) - postings
    return owners[np.arange(postings.sum()) + np.repeat(first - before, postings)]


def _parts(other: Int[np.ndarray, " hit"], postings: Int[np.ndarray, " hit"]) -> list[slice]:
    """Slices of the hits that keep each line whole and have about ``_PAIRS`` pairs each."""
    if not len(other):
        return []
    begin = np.flatnonzero(np.append(True, other[1:] != other[:-1]))
    batch = (np.cumsum(postings) - postings)[begin] // _PAIRS
    cuts = [0, *begin[1:][batch[1:] != batch[:-1]].tolist(), len(other)]
    return [slice(one, following) for one, following in pairwise(cuts)]


def _counted(values: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, " value"]]:
    """The distinct values, sorted, and how often each occurs. Many times faster than numpy's unique."""
    values = np.sort(values)
    first = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    return values[first], np.diff(np.append(first, len(values)))


# ---- hashes ------------------------------------------------------------------------------------


def _hashed(
    lines: Sequence[str],
) -> Iterator[tuple[int, UInt64[np.ndarray, " shingle"], Int[np.ndarray, " shingle"]]]:
    """Chunks of lines: the number of the first, the hashes of their shingles, and the line of each, from 0.

    Each shingle of a line once, by line.
    """
    for start, chunk in _chunks(lines):
        codes = np.frombuffer("\n".join(chunk).encode("utf-32-le"), np.uint32).astype(np.uint64)
        windows = max(len(codes) - SHINGLE + 1, 0)
        ends = codes == _LINE_END
        line = np.cumsum(ends, dtype=np.uint64)[:windows]
        across = np.zeros(windows, bool)
        hashes = np.zeros(windows, np.uint64)
        for offset, factor in enumerate(_FACTORS):
            hashes += codes[offset : offset + windows] * factor
            across |= ends[offset : offset + windows]
        hashes = (hashes ^ hashes >> np.uint64(32)) * _FACTORS[0] >> np.uint64(_LINE_BITS)
        both, _ = _counted((line << _HASH_BITS | hashes)[~across])
        yield (
            start,
            both & ((np.uint64(1) << _HASH_BITS) - np.uint64(1)),
            (both >> _HASH_BITS).astype(np.int64),
        )


def _chunks(lines: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    start, characters = 0, 0
    for number, line in enumerate(lines):
        characters += len(line) + 1
        if characters >= _CHUNK or number + 1 - start == 1 << _LINE_BITS:
            yield start, lines[start : number + 1]
            start, characters = number + 1, 0
    if start < len(lines):
        yield start, lines[start:]


def _bucket(hashes: UInt64[np.ndarray, " shingle"]) -> Int[np.ndarray, " shingle"]:
    return (hashes >> (_HASH_BITS - np.uint64(_BUCKET_BITS))).astype(np.int64)
