"""Text files in, clean documents out.

A document is a list of lines, each with a key: the line as far as duplicates are concerned. Two lines with
one key are one line; a line with the empty key is too short to say anything and is never compared.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from m3bayes.errors import M3BayesError

MIN_KEY = 20  # characters of a key below which a line is not compared
MIN_WIDE_KEY = 8  # the same where more than half of them are wide (Chinese, Japanese, Korean)
DIGEST_BITS = 128

_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")  # all of category Cc but tab and line feed
_BETWEEN = re.compile(r"\n{2,}")
_ZEROS = re.compile("00+")


@dataclass(frozen=True)
class Document:
    """``digest`` is of the whole text as read, whatever lines are taken out later."""

    lines: list[str]
    keys: list[str]
    digest: int

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def bytes(self) -> int:
        return len(self.text.encode())


# ---- reading -----------------------------------------------------------------------------------


def read_files(path: Path) -> list[tuple[Path, bytes]]:
    """The file ``path``, or all ``*.txt`` below the folder ``path``, in the order of their relative paths."""
    if not path.exists():
        raise M3BayesError(f"{path} does not exist; give a UTF-8 text file or a folder of them")
    files = [path]
    if path.is_dir():
        files = sorted(
            (file for file in path.rglob("*.txt") if file.is_file()),
            key=lambda file: file.relative_to(path).parts,
        )
        if not files:
            raise M3BayesError(f"{path} has no file named *.txt, expected one a document; rename or add them")
    try:
        return [(file, file.read_bytes()) for file in files]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise M3BayesError(
            f"{error.filename or path} cannot be read: {reason}; give a readable file"
        ) from error


def documents_of(path: Path, files: Iterable[tuple[Path, bytes]]) -> list[Document]:
    """One document a file of a folder; the parts between blank lines of a file that stands for itself."""
    documents = []
    for file, data in files:
        text = clean(_decode(file, data))
        for part in [text] if path.is_dir() else _BETWEEN.split(text):
            if part:
                documents.append(document(part))
    return documents


def document(text: str) -> Document:
    """The document of a clean text."""
    digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_BITS // 8).digest()
    return Document(text.split("\n"), line_keys(text), int.from_bytes(digest))


def _decode(file: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise M3BayesError(
            f"{file} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start} ({error.reason}); "
            "convert it to UTF-8 or leave it out"
        ) from error


def clean(text: str) -> str:
    """NFC; line feeds only; no control characters but tabs and line feeds; no blanks at the end of lines,
    no empty lines at the ends of the text. Nothing else is changed."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


# ---- keys --------------------------------------------------------------------------------------


class _Folding(dict[int, str | int]):
    """What a character becomes in a key: digits 0, all but letters, marks and numbers a blank."""

    def __missing__(self, code: int) -> str | int:
        category = unicodedata.category(chr(code))
        if category == "Nd":
            self[code] = "0"
        else:
            self[code] = code if category[0] in "LMN" else " "
        return self[code]


_FOLDING = _Folding({ord("\n"): "\n"})


class _Wide(dict[str, bool]):
    def __missing__(self, character: str) -> bool:
        self[character] = unicodedata.east_asian_width(character) in "WF"
        return self[character]


_WIDE = _Wide()


def line_keys(text: str) -> list[str]:
    """A key for each line: NFKC, no case, numbers 0, one blank for whatever is no letter; "" if short."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_FOLDING)
    return [_key(line) for line in _ZEROS.sub("0", folded).split("\n")]


def _key(folded: str) -> str:
    if len(folded) < MIN_WIDE_KEY:
        return ""
    key = " ".join(folded.split())
    if len(key) >= MIN_KEY:
        return key
    if len(key) < MIN_WIDE_KEY or key.isascii():
        return ""
    return key if 2 * sum(_WIDE[character] for character in key) > len(key) else ""


def keys_of(documents: Iterable[Document]) -> list[str]:
    """The distinct keys, in order, without the empty one."""
    return list(dict.fromkeys(key for document in documents for key in document.keys if key))


# ---- taking lines out --------------------------------------------------------------------------


def without_lines(document: Document, is_unwanted: Callable[[str], bool]) -> Document:
    """The document without the lines whose key is unwanted, nor the blank lines that would be doubled.

    ``is_unwanted`` is asked once a line that has a key, in order.
    """
    lines, keys, gap = [], [], False
    for line, key in zip(document.lines, document.keys, strict=True):
        if key and is_unwanted(key):
            gap = True
        elif line or not gap or (lines and lines[-1]):
            lines.append(line)
            keys.append(key)
            gap = gap and not line
    while lines and not lines[-1]:
        lines.pop()
        keys.pop()
    return Document(lines, keys, document.digest) if len(lines) < len(document.lines) else document
