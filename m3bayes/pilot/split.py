"""Documents of several corpora, deduplicated, and split so that nothing leaks from training to validation.

The order of the steps, since each sees what the one before has left:

1. a document that is in the corpus already is taken out;
2. a line whose key (see documents) is in the corpus already is taken out, and from a source one that is in
   any target or in a source before it: untranslated English stands in much translated text;
3. documents that are short after that are dropped;
4. a document is validation or training by a hash of its text as read, so no other document has a say in it;
5. a line of validation that is nearly the same as a line of *any* corpus's training text is taken out, and
   documents that are short after that are dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3bayes.pilot.documents import DIGEST_BITS, Document, keys_of, without_lines
from m3bayes.pilot.near_duplicates import near_duplicates

MIN_BYTES = 200  # of a document


@dataclass(frozen=True)
class Split:
    """``train`` in the order of the files; ``validation`` in that of the hash, so that a first part is fair."""

    train: Sequence[Document]
    validation: Sequence[Document]
    counts: Mapping[str, int]


def split_corpora(
    corpora: Mapping[str, Sequence[Document]], sources: Collection[str], share: float
) -> dict[str, Split]:
    """Each corpus split, about ``share`` of its documents for validation; ``sources`` give way to those before."""
    before: set[str] = set()
    splits = {}
    for name in sorted(corpora, key=lambda name: name in sources):
        documents, counts = without_duplicates(corpora[name], before if name in sources else ())
        before.update(keys_of(documents))
        limit = int(share * 2**64) << (DIGEST_BITS - 64)
        train = [document for document in documents if document.digest >= limit]
        validation = [document for document in documents if document.digest < limit]
        splits[name] = Split(train, sorted(validation, key=lambda document: document.digest), counts)
    return _without_leaks(splits)


def without_duplicates(
    documents: Sequence[Document], elsewhere: Collection[str] = ()
) -> tuple[list[Document], dict[str, int]]:
    """Steps 1 to 3, and what they took; ``elsewhere`` are the keys of lines that another corpus has."""
    digests: set[int] = set()
    keys: set[str] = set()
    lines = {"duplicate_lines": 0, "lines_of_targets": 0}

    def is_unwanted(key: str) -> bool:
        if key in elsewhere:
            lines["lines_of_targets"] += 1
        elif key in keys:
            lines["duplicate_lines"] += 1
        else:
            keys.add(key)
            return False
        return True

    distinct = []
    for document in documents:
        if document.digest not in digests:
            digests.add(document.digest)
            distinct.append(without_lines(document, is_unwanted))
    long = [document for document in distinct if document.bytes >= MIN_BYTES]
    counts = {
        "documents": len(documents),
        "duplicate_documents": len(documents) - len(distinct),
        "lines": sum(len(document.lines) for document in documents),
        **lines,
        "short_documents": len(distinct) - len(long),
    }
    return long, counts


def _without_leaks(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Step 5 for all corpora at once."""
    train = keys_of(document for split in splits.values() for document in split.train)
    validation = keys_of(document for split in splits.values() for document in split.validation)
    leaks = {validation[line] for line in np.flatnonzero(near_duplicates(validation, train))}
    clean = {}
    for name, split in splits.items():
        left = [without_lines(document, leaks.__contains__) for document in split.validation]
        long = [document for document in left if document.bytes >= MIN_BYTES]
        counts = {
            "near_duplicate_lines": sum(
                key in leaks for document in split.validation for key in document.keys
            ),
            "short_validation_documents": len(left) - len(long),
            "training_documents": len(split.train),
            "validation_documents": len(long),
        }
        clean[name] = Split(split.train, long, {**split.counts, **counts})
    return clean
