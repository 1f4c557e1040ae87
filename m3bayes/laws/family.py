"""Language families and scripts, for a prior of how much one language's text is worth in another.

    similarity = .3 + .15 (same family) + .15 (same branch) + .1 (same script)

The weights are a choice, not a measurement: published transfer between pairs differs more within such classes than
between them (Longpre et al. 2026, arXiv 2510.22037), and :func:`m3bayes.laws.atlas` keeps its prior as wide.
Families and branches are as in Ethnologue and Glottolog, where these agree; scripts are those most text is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from m3bayes.errors import LawError

ALONE, FAMILY, BRANCH, SCRIPT = 0.3, 0.15, 0.15, 0.1


class Language(NamedTuple):
    family: str
    branch: str
    script: str


def similarity_of(source: str, target: str) -> float:
    """Similarity in [.3, .7] of two languages, 1 of a language with itself.

    Raises LawError for a code that is not in :data:`LANGUAGES`.
    """
    one, other = _language(source), _language(target)
    if source == target:
        return 1.0
    shared = (
        FAMILY * (one.family == other.family),
        BRANCH * ((one.family, one.branch) == (other.family, other.branch)),
        SCRIPT * (one.script == other.script),
    )
    return ALONE + sum(shared)


def _language(code: str) -> Language:
    if code not in LANGUAGES:
        raise LawError(
            f"nothing is known of the family of language {code!r}; expected an ISO 639 code in "
            "m3bayes.laws.family.LANGUAGES, as 'de'; give similarity={...}, from 0 to 1, for others"
        )
    return LANGUAGES[code]


# family: branch: script: ISO 639 codes
_TREE = {
    "Indo-European": {
        "Germanic": {"Latin": "af da de en is nl no sv"},
        "Romance": {"Latin": "ca es fr gl it pt ro"},
        "Slavic": {"Cyrillic": "be bg mk ru sr uk", "Latin": "bs cs hr pl sk sl"},
        "Baltic": {"Latin": "lt lv"},
        "Celtic": {"Latin": "cy ga"},
        "Greek": {"Greek": "el"},
        "Armenian": {"Armenian": "hy"},
        "Albanian": {"Latin": "sq"},
        "Iranian": {"Arabic": "fa ps", "Cyrillic": "tg"},
        "Indo-Aryan": {
            "Devanagari": "hi mr ne",
            "Bengali": "as bn",
            "Gujarati": "gu",
            "Gurmukhi": "pa",
            "Arabic": "ur",
            "Sinhala": "si",
        },
    },
    "Uralic": {"Finnic": {"Latin": "et fi"}, "Hungarian": {"Latin": "hu"}},
    "Turkic": {
        "Oghuz": {"Latin": "az tk tr"},
        "Karluk": {"Latin": "uz", "Arabic": "ug"},
        "Kipchak": {"Cyrillic": "kk ky tt"},
    },
    "Mongolic": {"Mongolian": {"Cyrillic": "mn"}},
    "Afro-Asiatic": {
        "Semitic": {"Arabic": "ar", "Hebrew": "he", "Ethiopic": "am ti", "Latin": "mt"},
        "Chadic": {"Latin": "ha"},
        "Cushitic": {"Latin": "om so"},
    },
    "Atlantic-Congo": {"Bantu": {"Latin": "rw sn sw xh zu"}, "Yoruboid": {"Latin": "yo"}, "Igboid": {"Latin": "ig"}},
    "Dravidian": {
        "South Dravidian": {"Tamil": "ta", "Malayalam": "ml", "Kannada": "kn"},
        "South-Central Dravidian": {"Telugu": "te"},
    },
    "Austronesian": {"Malayo-Polynesian": {"Latin": "id jv mg ms tl"}},
    "Austroasiatic": {"Vietic": {"Latin": "vi"}, "Khmer": {"Khmer": "km"}},
    "Kra-Dai": {"Tai": {"Thai": "th", "Lao": "lo"}},
    "Sino-Tibetan": {
        "Sinitic": {"Han": "zh"},
        "Lolo-Burmese": {"Burmese": "my"},
        "Tibetic": {"Tibetan": "bo"},
    },
    "Japonic": {"Japanese": {"Japanese": "ja"}},
    "Koreanic": {"Korean": {"Hangul": "ko"}},
    "Kartvelian": {"Georgian": {"Georgian": "ka"}},
    "Basque": {"Basque": {"Latin": "eu"}},
}  # fmt: skip

LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        code: Language(family, branch, script)
        for family, branches in _TREE.items()
        for branch, scripts in branches.items()
        for script, codes in scripts.items()
        for code in codes.split()
    }
)
