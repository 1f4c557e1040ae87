"""The cleaning of the pilot's texts: small documents with known prose, no packages and no network."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module", autouse=True)
def scripts_are_importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield
    for name in ("clean_text", "read_manual", "read_markup", "fetch_corpora"):
        sys.modules.pop(name, None)


# ----------------------------------------------------------------------------------------------- clean_text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\n  two\tthree ", "one two three"),
        ("漢字と\nかなを\n  使う。", "漢字とかなを使う。"),
        ("ファイル\nfile を\nread する", "ファイル file を read する"),
        ("hyphen\u00adation, zero\u200bwidth, bell\x07", "hyphenation, zerowidth, bell"),
    ],
)
def test_unwrap(text: str, line: str):
    from clean_text import unwrap

    assert unwrap(text) == line


ENGLISH = "The file is read when the program starts, and it may not be changed by you."
GERMAN = "Die Datei wird beim Start des Programms gelesen und kann nicht geändert werden."
FRENCH = "Le fichier est lu au démarrage du programme et ne peut pas être modifié par vous."
JAPANESE = "このファイルは program の起動時に読み込まれ、変更することはできない。"


@pytest.mark.parametrize("language", ["en", "de", "fr", "ja"])
def test_a_sentence_is_in_its_own_language_only(language: str):
    from clean_text import is_language

    sentences = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "ja": JAPANESE}
    assert [name for name, line in sentences.items() if is_language(line, language)] == [language]


def test_a_name_in_another_language_does_not_make_a_line_foreign():
    from clean_text import is_language

    assert is_language("Mit »The GIMP« kann man die Bilder auch drehen und spiegeln.", "de")
    assert not is_language("Parser Lexer Token Stream Buffer Reader Writer Closer of Things und Sachen", "de")
    assert not is_language("漢字不要仮名皆無中国語文章", "ja")


@pytest.mark.parametrize(
    "line", [ENGLISH, GERMAN, FRENCH, JAPANESE, "「はい」、『いいえ』、〈どちらか〉、を選ぶ。"]
)
def test_sentences_are_prose(line: str):
    from clean_text import is_prose

    assert is_prose(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "See also",
        "設定画面",
        ", which is the end of a sentence that began elsewhere.",
        "for (i = 0; i < n; i++) { a[i] += b[i] * c[i]; } /* 17 */",
        "0x2260 = 0010 0010 0110 0000 and 0x00a9 = 1010 1001",
        "Copyright (C) 2004 the authors of this very long manual",
        "Permission is granted to copy and distribute this manual",
        "Dieses Programm kommt ohne jede Gewähr für irgendeinen Zweck",
    ],
)
def test_scraps_listings_and_licences_are_no_prose(line: str):
    from clean_text import is_prose

    assert not is_prose(line)


def test_a_licence_may_be_talked_about():
    from clean_text import is_prose

    assert is_prose("Debian keeps software with a licence that is not free in a section of its own.")


def test_clean_document_keeps_a_line_once_and_counts_what_is_foreign():
    from clean_text import clean_document

    seen: set[str] = set()
    assert clean_document([GERMAN, ENGLISH, GERMAN, "kurz"], "de", seen) == ([GERMAN], len(ENGLISH))
    assert seen == {GERMAN}
    assert clean_document([GERMAN], "de", seen) == ([], 0)


def test_a_document_that_is_hardly_in_the_language_gives_nothing():
    from clean_text import clean_document

    assert clean_document([ENGLISH] * 9 + [GERMAN], "de", set()) == ([], 9 * len(ENGLISH))


# ----------------------------------------------------------------------------------------------- read_markup


def test_html_without_navigation_listings_and_markup():
    from read_markup import markup_paragraphs

    page = """<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body>
    <div class="navheader"><div>up</div><a href="x>y">next</a></div><hr class="top">
    <h1>A title</h1><!-- <p>gone</p> --><p>First <b>bo</b>ld
    line &amp; more&nbsp;text.<br>Next<p>Second <a title="a > b" href="#">link</a><pre>code &lt;here&gt;</pre>
    <ul class="x toc"><li>1</li><li>2</li></ul><li>item<table><tr><td>cell</td></tr></table>end</body></html>"""
    assert markup_paragraphs(page) == [
        "A title",
        "First bold line & more text. Next",
        "Second link",
        "item",
        "cell",
        "end",
    ]


def test_docbook_and_mallard():
    from read_markup import markup_paragraphs

    docbook = """<?xml version="1.0"?><!DOCTYPE book [<!ENTITY % de "x">]><book><bookinfo><para>gone</para></bookinfo>
    <title>Über <application>&kate;</application></title><para
    >Wählen Sie <menuchoice><guimenu>Datei</guimenu> <guimenuitem>Öffnen</guimenuitem></menuchoice> im
    <guiicon><inlinemediaobject><imageobject/></inlinemediaobject></guiicon>Fenster.</para>
    <screen>ls <para>x</para></screen></book>"""
    assert markup_paragraphs(docbook) == ["Über kate", "Wählen Sie Datei > Öffnen im Fenster."]
    mallard = """<page><info><desc>gone</desc><link type="guide"/></info><title>Titre</title>
    <p>Cliquez <media its:translate="no" type="image" src="x"><span>gone</span></media> sur <gui>OK</gui>.</p></page>"""
    assert markup_paragraphs(mallard) == ["Titre", "Cliquez sur OK."]


def test_japanese_markup_is_joined_without_blanks():
    from read_markup import markup_paragraphs

    assert markup_paragraphs("<p>日本語の\n   文章は<em>改行</em>\nしても\nDebian でも</p>") == [
        "日本語の文章は改行しても Debian でも"
    ]


# ----------------------------------------------------------------------------------------------- read_manual


def test_man_page():
    from read_manual import manual_paragraphs

    page = r""".\" a comment
.TH LS 1 "May 2021" "GNU" "User Commands"
.de XX
gone
..
.SH NAME
ls \- list \fIdirectory\fR \(lqcontents\(rq
.SH SYNOPSIS
.B ls
gone
.SH DESCRIPTION
List \fBfiles\fR in
.IR this (7)
directory.\" to the end
.PP
.B Two words
go on\c
.TP
\fB\-a\fR, \fB\-\-all\fR
do not ignore entries that begin with \&.
.IP \(bu 2
a bullet
.nf
code here
.fi
.if n \{\
gone
.\}
.ie n .IP "terminal" 4
.el .IP "printer" 4
text
.SH "SEE ALSO"
gone(1)
.SH NOTES
The end.
"""
    assert manual_paragraphs(page) == [
        'ls - list directory "contents"',
        "List files in this(7) directory.",
        "Two words go on",
        "-a, --all do not ignore entries that begin with .",
        "a bullet",
        "terminal text",
        "The end.",
    ]


def test_mdoc_page():
    from read_manual import manual_paragraphs

    page = """.Dd May 1, 2020
.Dt CAT 1
.Sh NAME
.Nm cat
.Nd joins files
.Sh DESCRIPTION
The
.Nm
utility reads
.Ar file Ns s ,
see
.Xr ls 1 .
.Bl -tag -width x
.It Fl b Ar number
Counts the lines.
.Bd -literal
code
.Ed
.El
.Pp
It ends.
"""
    assert manual_paragraphs(page) == [
        "cat",
        "The cat utility reads files, see ls(1).",
        "-b number Counts the lines.",
        "It ends.",
    ]


def test_a_page_that_only_refers_to_another_is_empty():
    from read_manual import manual_paragraphs

    assert manual_paragraphs(".so man1/ls.1\n") == []


# ----------------------------------------------------------------------------------------------- fetch_corpora


def a_package(folder: Path) -> Path:
    """An unpacked package of three languages, with one link."""
    pages = {
        "usr/share/help/C/x/a.page": [
            ENGLISH,
            ENGLISH + " Twice, as it were, and for the length that is asked for.",
        ],
        "usr/share/help/de/x/a.page": [GERMAN * 2, GERMAN * 3, ENGLISH],
        "usr/share/help/fr/x/short.page": [FRENCH],
        "usr/share/help/zh/x/a.page": ["不"],
    }
    for name, lines in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"<p>{line} {line}</p>" for line in lines), encoding="utf-8")
    (folder / "usr/share/help/C/x/b.page").symlink_to("a.page")
    return folder


def test_a_package_is_written_by_language_and_the_same_bytes_again(tmp_path: Path):
    import fetch_corpora

    root = a_package(tmp_path / "package")
    package = fetch_corpora.Package("x-docs", "1", "GPL-2+", fetch_corpora._MALLARD)
    rows = []
    for out in (tmp_path / "one", tmp_path / "two"):
        counts = fetch_corpora.clean_package(package, root, out, {})
        rows.append({"name": "x-docs", "version": "1", "licence": "GPL-2+", "languages": counts})
    text = tmp_path / "one" / "de" / "x-docs" / "help.de.x.a.page.txt"
    assert text.read_text(encoding="utf-8").split("\n\n") == [
        f"{GERMAN * 2} {GERMAN * 2}",
        f"{GERMAN * 3} {GERMAN * 3}\n",
    ]
    assert sorted(counts) == ["de", "en"]
    assert counts["de"] == {
        "files": 1,
        "bytes": text.stat().st_size,
        "foreign_characters": 2 * len(ENGLISH) + 1,
    }
    one, two = (
        fetch_corpora.manifest([row], tmp_path / out) for row, out in zip(rows, ("one", "two"), strict=True)
    )
    assert one == two
    text.write_text("other", encoding="utf-8")
    assert fetch_corpora.manifest(rows[:1], tmp_path / "one") != two


def test_packed_files_are_manual_pages(tmp_path: Path):
    import fetch_corpora

    page = tmp_path / "ls.1.gz"
    page.write_bytes(gzip.compress(b".SH X\nLists \\fBfiles\\fR.\n"))
    assert fetch_corpora.paragraphs(page) == ["Lists files."]


@pytest.mark.parametrize(
    ("name", "path", "language"),
    [
        ("debian-reference-de", "usr/share/debian-reference/ch02.de.html", "de"),
        ("debian-reference-en", "usr/share/debian-reference/ch02.en.html", "en"),
        ("lilypond-doc-html", "usr/share/doc/lilypond/html/Documentation/learning/adding-text.html", "en"),
        (
            "lilypond-doc-html-ja",
            "usr/share/doc/lilypond/html/Documentation/learning/adding-text.ja.html",
            "ja",
        ),
        ("manpages", "usr/share/man/man7/utf-8.7.gz", "en"),
        ("manpages-fr-dev", "usr/share/man/fr/man3/printf.3.gz", "fr"),
        ("libreoffice-help-en-us", "usr/share/libreoffice/help/en-US/text/scalc/main.html", "en"),
        ("debian-handbook", "usr/share/doc/debian-handbook/html/ja-JP/index.html", "ja"),
    ],
)
def test_the_path_tells_the_language(tmp_path: Path, name: str, path: str, language: str):
    import fetch_corpora

    (package,) = [package for package in fetch_corpora.PACKAGES if package.name == name]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"")
    assert [found[0] for found in fetch_corpora.documents(package, tmp_path)] == [language]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture):
    import fetch_corpora

    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        fetch_corpora.main(["--out", str(tmp_path), "--work", str(tmp_path / "work")])
    assert "holds files that this script has not written" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_without_apt_the_script_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fetch_corpora

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no apt-get here; expected Debian 12"):
        fetch_corpora.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
    assert not (tmp_path / "out").exists()
