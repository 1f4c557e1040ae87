"""Two small languages made by rule, so that training has something to learn and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CONSONANTS = {"target": "bdfgklmnprstvz", "source": "bcdhjklmnqrstw"}
VOWELS = "aeiou"


def words(language: str, count: int, seed: int) -> list[str]:
    """Syllables of the language's own consonants; words of two to four."""
    random = np.random.default_rng(seed)
    consonants = list(CONSONANTS[language])
    syllables = random.integers(2, 5, size=count)
    return [
        "".join(str(random.choice(consonants)) + str(random.choice(list(VOWELS))) for _ in range(n))
        for n in syllables
    ]


def write_folder(folder: Path, language: str, documents: int, seed: int = 0) -> Path:
    """Documents of some 500 bytes, a file each."""
    folder.mkdir(parents=True)
    for number in range(documents):
        text = words(language, 70, seed=1000 * seed + number + (10**6 if language == "source" else 0))
        lines = [" ".join(text[first : first + 10]) + "." for first in range(0, 70, 10)]
        (folder / f"{number:04d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
