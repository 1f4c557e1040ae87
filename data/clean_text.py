"""What of a document's paragraphs is kept: lines of prose in one language.

Listings, tables of numbers, licences and lines in another language are left out; translated documentation
holds a good deal that nobody has translated. The aim is clean prose, not all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WIDE = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"  # kana, kanji, full-width forms: no blanks between words
_WRAP_BETWEEN_WIDE = re.compile(rf"(?<=[{WIDE}])\s*\n\s*(?=[{WIDE}])")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028\u2029\u2060\ufeff\ufffd¶]"
)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOPWORDS = {
    "en": words(
        "the of and to is that for with are this be by as from or it which can not you has have if when will"
        " your an its at been was were these there should may but does do into than then"
    ),
    "de": words(
        "der die das und ist nicht mit für von den dem des ein eine einer eines einem einen wird werden wurde"
        " auf zu sich als auch oder aus kann können sie bei nach durch wenn es im zum zur sind dass diese"
        " dieser dieses wie nur noch über"
    ),
    "fr": words(
        "le la les des et est une dans pour que qui du pas sur par avec sont cette ce aux être ou en un au vous"
        " peut ne se de il elle ces cet si votre à sera plus"
    ),
}
LANGUAGES = ("de", "en", "fr", "ja")

LEAST_STOPWORDS = 0.1  # of the words of a line; prose has about 0.3
LEAST_KANA = 0.15  # of the letters of a line
LEAST_LETTERS = 0.75  # letters, blanks and wide characters, of all characters of a line
LEAST_WORDS, LEAST_WIDE = 4, 8  # a line has so many words, or so many wide letters
LEAST_NATIVE = 0.2  # of a document's prose; what little is native in others is odds and ends

_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_WIDE_LETTER = re.compile("[\u3005\u3041-\u3096\u30a1-\u30fc\u3400-\u9fff]")
_WIDE_CHARACTER = re.compile(f"[{WIDE}]")
_WORD = re.compile(r"[^\W\d_]+")
_BOILERPLATE = re.compile(
    r"©|\(C\) ?(19|20)\d\d|copyright (\(|19|20|by|notice|holder)|all rights reserved|GNU (free doc|general pub)"
    r"|creative commons|permission is (hereby )?granted|without (even the|any) (implied )?warrant|no warranty"
    r"|redistribution and use|(under|version \d of) the (terms of the )?.{0,30}licen[sc]e\b|licence publique"
    r"|sans garantie|aucune garantie|ohne jede gewähr|keine(rlei)? (garantie|haftung|gewähr)"
    r"|著作権|使用許諾|いかなる(種類の)?保証|無保証",
    re.IGNORECASE,
)


def unwrap(text: str) -> str:
    """The text as one line: line ends become blanks, or nothing where both neighbours are wide."""
    return " ".join(_WRAP_BETWEEN_WIDE.sub("", _INVISIBLE.sub("", text)).split())


def is_prose(line: str) -> bool:
    """Whether a line is long enough, a beginning, made of letters mostly, and not about copyrights."""
    wide = len(_WIDE_LETTER.findall(line))
    if line[:1] in ",;:)" or (wide < LEAST_WIDE and len(_WORD.findall(line)) < LEAST_WORDS):
        return False
    letters = sum(character.isalpha() or character == " " for character in _WIDE_CHARACTER.sub("", line))
    letters += len(_WIDE_CHARACTER.findall(line))
    return letters >= LEAST_LETTERS * len(line) and not _BOILERPLATE.search(line)


def is_language(line: str, language: str) -> bool:
    """Whether a line reads as ``language``, one of LANGUAGES.

    Japanese by its share of kana; the others by frequent words: a tenth of all, and more than of the others'.
    """
    letters = sum(map(str.isalpha, line))
    if language == "ja":
        return len(_KANA.findall(line)) >= max(1.0, LEAST_KANA * letters)
    if len(_WIDE_LETTER.findall(line)) > 0.1 * letters:
        return False
    spoken = [word.lower() for word in _WORD.findall(line)]
    hits = {name: sum(word in frequent for word in spoken) for name, frequent in STOPWORDS.items()}
    own = hits.pop(language)
    return own > max(hits.values()) and own >= LEAST_STOPWORDS * len(spoken)


def clean_document(paragraphs: Iterable[str], language: str, seen: set[str]) -> tuple[list[str], int]:
    """The lines of prose in ``language`` that are not in ``seen`` yet, and how many characters were foreign.

    The lines are added to ``seen``. A document hardly any of which is in the language gives none.
    """
    prose = [line for line in paragraphs if is_prose(line)]
    native = [line for line in prose if is_language(line, language)]
    total, own = sum(map(len, prose)), sum(map(len, native))
    if own < LEAST_NATIVE * total:
        return [], total - own
    new = [line for line in dict.fromkeys(native) if line not in seen]
    seen.update(new)
    return new, total - own
