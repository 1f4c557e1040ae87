"""Paragraphs out of HTML pages and DocBook and Mallard documents, each as one line.

Tags are found by one pattern: the pages are machine-made, there are 300 MB of them, and a full parser takes
minutes longer. Navigation, tables of contents, listings and what describes the document are left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from clean_text import unwrap, words

# All other elements begin and end a paragraph.
INLINE = words(
    "a abbr accel acronym action anchor app application b bdi big br cite citerefentry citetitle classname cmd"
    " code command computeroutput constant del em email emphasis envar file filename firstterm font function"
    " glossterm gui guibutton guiicon guilabel guimenu guimenuitem guiseq guisubmenu i img inlinegraphic"
    " inlinemediaobject input ins interface kbd key keycap keycode keycombo keyseq keysym link literal manvolnum"
    " markup media menuchoice methodname mousebutton option output package parameter phrase productname prompt"
    " property q quote refentrytitle replaceable returnvalue s samp shortcut small span strong sub subscript sup"
    " superscript symbol sys systemitem trademark tt type u ulink uri userinput var varname wbr wordasword xref"
)
SKIPPED = words(
    "script style head nav header footer pre select button form svg math template programlisting screen synopsis"
    " cmdsynopsis funcsynopsis literallayout indexterm remark mediaobject inlinemediaobject media info bookinfo"
    " articleinfo refentryinfo sect1info refmeta bibliography comment license credit desc"
)
SKIPPED_CLASSES = words(
    "MAC bascode cmdsynopsis copyright docnav example-none flipMenu footer footer_report footer_version headerlink"
    " highlight indexterm language_switcher_placeholder languages legalnotice lilypond listingblock literalblock"
    " mainmenu menu nav nav_table navfooter navheader navigation outofdate panel-sections path permalink"
    " programlisting pycode quickview rst-footer-buttons screen search searchmenu sectlevel1 sectlevel2 sectlevel3"
    " sig sphinxsidebar sphinxsidebarwrapper submenu synopsis this-page-menu toc tocframe toctree-wrapper top"
    " toplang topless up verbatim version_switcher_placeholder wy-breadcrumbs wy-nav-side wy-nav-top"
)
NEVER_CLOSED = frozenset(("br", "hr", "img", "input", "wbr"))

_WORTHLESS = re.compile(
    r"<!--.*?-->|<!\[CDATA\[|\]\]>|<(head|script|style|pre|nav|programlisting|screen|svg)\b.*?</\1\s*>"
    r"|<!DOCTYPE[^[>]*(?:\[.*?\]\s*)?>|<[?!][^>]*>",
    re.DOTALL | re.IGNORECASE,
)
_BETWEEN_KEYS = re.compile(r"</(gui\w*|key|keycap)\s*>\s*<(?=(gui\w*|key|keycap)\b)")
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>")
_CLASS = re.compile(r"\bclass=[\"']([^\"']*)[\"']")
_UNKNOWN_ENTITY = re.compile(r"&([A-Za-z][\w.-]*);")


def markup_paragraphs(markup: str) -> list[str]:
    """The paragraphs of a document; menu entries and keys in a row are joined by ``>``."""
    markup = _BETWEEN_KEYS.sub(r"</\1> &gt; <", _WORTHLESS.sub("\n\n", markup))
    return [line for line in map(unwrap, "".join(_pieces(markup)).split("\0")) if line]


def _pieces(markup: str) -> Iterator[str]:
    """Text, and NUL where a paragraph begins or ends."""
    at, skipped, depth = 0, "", 0  # the element that is being skipped, and how many of its name are open
    for tag in _TAG.finditer(markup):
        text, at = markup[at : tag.start()], tag.end()
        name, attributes = tag[2].lower(), tag[3]
        opening = not tag[1] and not attributes.endswith("/") and name not in NEVER_CLOSED
        if skipped:
            if name == skipped and (tag[1] or opening):
                depth += -1 if tag[1] else 1
                skipped = skipped if depth else ""
            continue
        yield _unescape(text)
        if name not in INLINE:
            yield "\0"
        elif name == "br":
            yield "\n"
        if opening and (name in SKIPPED or not SKIPPED_CLASSES.isdisjoint(_classes(attributes))):
            skipped, depth = name, 1
    if not skipped:
        yield _unescape(markup[at:])


def _classes(attributes: str) -> list[str]:
    found = _CLASS.search(attributes)
    return found[1].split() if found else []


def _unescape(text: str) -> str:
    """Entities replaced; those that only the document's own type knows, such as &kate;, by their names."""
    return _UNKNOWN_ENTITY.sub(r"\1", html.unescape(text)).replace("\0", "") if "&" in text else text
