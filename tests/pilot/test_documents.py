from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3bayes.errors import M3BayesError
from m3bayes.pilot.documents import clean, document, documents_of, line_keys, read_files, without_lines

LONG = "A line that is long enough to be compared with others"


def read(path):
    return [one.text for one in documents_of(path, read_files(path))]


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("u\u0308ber", "über"),
        ("u\0\u0308ber", "über"),
        ("a\0b\x07c\x7fd\x85e\tf", "abcde\tf"),
        ("  indented \t\nnext\u3000\n", "  indented\nnext"),
        ("\n \nfirst\n\n\nlast\n\t\n", "first\n\n\nlast"),
        ("ﬁ ① \uff21 stays", "ﬁ ① \uff21 stays"),
        ("", ""),
    ],
)
def test_only_form_control_characters_and_blanks_at_ends_are_changed(given_text, cleaned):
    assert clean(given_text) == cleaned


@given(st.text())
def test_clean_text_is_clean_and_has_a_key_a_line(text):
    once = clean(text)
    assert clean(once) == once
    assert not any(unicodedata.category(c) == "Cc" for c in once if c not in "\n\t")
    assert len(line_keys(once)) == len(once.split("\n"))


@pytest.mark.parametrize(
    "other",
    [
        "a line that is long enough to be compared with others",
        "  * A LINE that is long -- enough! to be (compared) with_others.",
        "\uff21 \uff4c\uff49\uff4e\uff45 that is long enough to be compared with others",
    ],
)
def test_lines_that_differ_in_case_width_blanks_or_punctuation_have_one_key(other):
    assert line_keys(other) == line_keys(LONG) != [""]


def test_lines_that_differ_in_numbers_have_one_key():
    one, other, third = line_keys(
        "Version 1.10 of this program is from 2024\n"
        "Version 2.7 of this program is from 1999\n"
        "Version two of this program is from 1999"
    )
    assert one == other == "version 0 0 of this program is from 0" != third
    assert line_keys("सेवा ٣ की शर्तें और नियम यहाँ हैं") == ["सेवा 0 की शर्तें और नियम यहाँ हैं"]  # vowel signs stay


@pytest.mark.parametrize(
    ("line", "compared"),
    [
        ("x" * 19, False),
        ("x" * 20, True),
        ("----- " * 10, False),
        ("ファイルを開く", False),
        ("ファイルを開きます", True),
        ("파일 이름을 바꿉니다", True),
        ("file を開きますか", True),
        ("filename を開く", False),
        ("grüße an alle äöü", False),
        ("", False),
    ],
)
def test_short_lines_are_not_compared_and_wide_ones_may_be_shorter(line, compared):
    assert bool(line_keys(line)[0]) == compared


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("keep\n\ndrop\n\nkeep", "keep\n\nkeep"),
        ("drop\n\nkeep\n\n\nkeep", "keep\n\n\nkeep"),
        ("keep\n\n\nkeep\n\ndrop", "keep\n\n\nkeep"),
        ("keep\ndrop\nkeep", "keep\nkeep"),
        ("keep\ndrop\n\nkeep", "keep\n\nkeep"),
        ("drop\n\ndrop", ""),
        ("keep\n\n\n\nkeep", "keep\n\n\n\nkeep"),
    ],
)
def test_lines_are_taken_out_with_the_blank_lines_that_would_be_doubled(text, left):
    def filled(text):
        return text.replace("keep", "this line is one that is kept").replace(
            "drop", "this line is one that goes"
        )

    before = document(filled(text))
    after = without_lines(before, lambda key: key.endswith("goes"))
    assert after.text == filled(left)
    assert after.digest == before.digest
    assert after.keys == (line_keys(after.text) if left else [])


def test_a_file_has_blank_lines_between_documents_and_a_folder_has_files(tmp_path):
    text = "\ufefffirst\nline\n\nsecond\n \t\r\n\r\nthird\n"
    (tmp_path / "alone.md").write_text(text, newline="")
    assert read(tmp_path / "alone.md") == ["first\nline", "second", "third"]

    folder = tmp_path / "folder"
    for name in ("b.txt", "a/z.txt", "a.txt", "a/b/y.txt", "other.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n\nmore")
    (folder / "empty.txt").write_text("\n\n")
    (folder / "z.txt").mkdir()
    assert [text.split("\n")[0] for text in read(folder)] == ["a/b/y.txt", "a/z.txt", "a.txt", "b.txt"]
    assert read(folder)[0] == "a/b/y.txt\n\nmore"


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(M3BayesError, match="nowhere does not exist; give a UTF-8 text file or a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(M3BayesError, match=r"has no file named \*.txt.*; rename or add"):
        read(tmp_path)
    (tmp_path / "latin.txt").write_bytes("grün".encode("latin-1"))
    for path in (tmp_path, tmp_path / "latin.txt"):
        with pytest.raises(M3BayesError, match=r"latin.txt is not UTF-8: byte 0xfc at offset 2 .*convert it"):
            read(path)
