"""Paragraphs out of manual pages in man(7) or mdoc(7) macros, each as one line.

A light reading, no typesetting: what stands in a listing, a table, a synopsis or a condition is left out, and so
are headings (the same few words in every page) and the sections on authors, licences and other pages.
"""

from __future__ import annotations

import re

from clean_text import unwrap, words

SECTIONS_WITHOUT_PROSE = re.compile(
    r"copyright|licen[sc]e|lizenz|colophon|kolophon|synopsis|übersicht|author|autor|auteur|reporting bugs"
    r"|fehler melden|signaler|see also|siehe|voir aussi|übersetzung|traduction|history|geschichte|historique"
    r"|files|dateien|fichiers|conforming|konform|conformité|standards|versions|attribut|bezeichnung"
    r"|著者|作者|書式|関連項目|著作権|バグ|この文書について|翻訳|準拠|ファイル",
    re.IGNORECASE,
)
BREAKS = words("PP P LP HP sp br RS RE IP TP TQ SS Ss Pp It Bl El in ti bp ce")
IN_LINE = words("B I SM SB R BR BI IR IB RB RI CW")
LISTINGS = {
    "nf": "fi",
    "EX": "EE",
    "TS": "TE",
    "EQ": "EN",
    "Vb": "Ve",
    "PS": "PE",
    "SY": "YS",
    "ig": ".",
    "de": ".",
}
MDOC = words(
    "Ad An Ao Ac Aq Ar Bo Bc Bq Bx Cd Cm Do Dc Dq Dv Em Er Ev Fa Fl Fn Fo Fc Ft Fx Ic In It Li Lk Ms Mt Nm No Ns"
    " Nx Oo Oc Op Ot Ox Pa Pf Po Pc Pq Ql Qo Qc Qq So Sc Sq St Sx Sy Ta Tn Ux Va Vt Xo Xc Xr"
)
# Escapes that stand for a character, without the backslash; all others leave nothing.
_CHARACTERS = {"-": "-", "e": "\\", "'": "'", "`": "`", " ": " ", "~": " ", "0": " ", "*R": "®"}
_CHARACTERS |= {f"*({name}": '"' for name in ('L"', 'R"', "lq", "rq")}
_NAMED = "aq' dq\" lq\" rq\" oq' cq' em— en- bu• rs\\ ti~ ha^ Fo« Fc» Bq„ de° co©"
_CHARACTERS |= {f"({pair[:2]}": pair[2] for pair in words(_NAMED)}
_CHARACTERS |= {f"[{pair[:2]}]": pair[2] for pair in words(_NAMED)}
_ESCAPE = re.compile(
    r"\\(?:f(?:\(..|\[[^]]*\]|.)|s[-+]?\d+|s\[[^]]*\]|[hvwlLDXZoN]'[^']*'|[mMYFn](?:\[[^]]*\]|\(..|.)"
    r"|(?P<key>\*?\(..|\*?\[[^]]*\]|\*.|.))"
)
_COMMENT = re.compile(r"(?m)^[.']\s*\\[\"#].*\n|\\[\"#].*$")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')


def manual_paragraphs(source: str) -> list[str]:
    """The paragraphs of a page's sections of prose; an entry of a list and what it says are one."""
    paragraphs: list[list[str]] = [[]]
    end, braces, wanted, name = "", 0, True, ""
    for line in re.sub(r"\\\n", "", _COMMENT.sub("", source.replace("\r", ""))).split("\n"):
        braces_before = braces
        braces = max(0, braces + line.count(r"\{") - line.count(r"\}"))
        macro, _, rest = line[1:].lstrip().partition(" ") if line[:1] in (".", "'") else ("", "", line)
        if end:
            end = "" if macro == end or (end == "." and line.rstrip() == "..") else end
        elif braces or braces_before or macro == "el":
            continue
        elif macro in ("SH", "Sh"):
            wanted = not SECTIONS_WITHOUT_PROSE.search(_plain(rest))
            paragraphs.append([])
        elif macro in LISTINGS or (macro == "Bd" and ("literal" in rest or "unfilled" in rest)):
            end = LISTINGS.get(macro, "Ed")
            paragraphs.append([])
        else:
            if macro in ("if", "ie") and rest.startswith("n ."):  # the branch for terminals
                macro, _, rest = rest[3:].partition(" ")
            if macro == "Nm" and not name:
                name = _plain(rest).split(" ")[0]
            if macro in BREAKS or not line.strip() or line[0] in " \t":
                paragraphs.append([])
            if wanted:
                paragraphs[-1].append(_line_text(macro, rest, name))
    return [text for text in (unwrap("\n".join(filter(None, lines))) for lines in paragraphs) if text]


def _line_text(macro: str, rest: str, name: str) -> str:
    if not macro:
        return _plain(rest)
    if macro in MDOC:
        return _mdoc_text([macro, *_arguments(rest)], name)
    if macro in IN_LINE:
        glue = " " if len(macro) == 1 or macro in ("SM", "SB", "CW") else ""
        return _plain(glue.join(_arguments(rest)))
    if macro in ("IP", "TQ"):
        label = _plain("".join(_arguments(rest)[:1]))
        return label if any(map(str.isalnum, label)) else ""
    return ""  # headings, measures, links, and macros that only set something


def _arguments(rest: str) -> list[str]:
    return [quoted.replace('""', '"') if quoted else bare for quoted, bare in _ARGUMENT.findall(rest)]


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: _CHARACTERS.get(found["key"] or "", ""), text)


def _mdoc_text(words: list[str], name: str) -> str:
    """One mdoc line: macros among the words are obeyed or dropped, punctuation joins what stands before it."""
    text, flag, glue = "", False, False
    for at, word in enumerate(words):
        if word in MDOC:
            flag, glue = word == "Fl", glue or word == "Ns"
            if word == "Nm" and (at + 1 == len(words) or words[at + 1] in MDOC or words[at + 1] in ",.;:)"):
                text += " " * (not glue) + name
        elif at > 1 and words[at - 2] == "Xr" and word.isalnum():
            text, glue = f"{text}({word})", False
        else:
            joined = glue or word in (",", ".", ";", ":", ")", "]")
            text += " " * (not joined) + "-" * flag + _plain(word)
            flag, glue = False, word in ("(", "[")
    return text.strip()
