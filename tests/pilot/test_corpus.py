from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import M3BayesError
from m3bayes.pilot import corpus as module
from m3bayes.pilot import corpus_cache
from m3bayes.pilot.corpus import Corpus, read_corpora, subset
from m3bayes.pilot.documents import line_keys
from m3bayes.pilot.near_duplicates import jaccard, shingles

SHARE = 0.3


def words(seed: int, alphabet: str = "abcdefghijklmnop") -> list[str]:
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(alphabet), generator.integers(3, 9))) for _ in range(400)]


def sentence(vocabulary: list[str], generator: np.random.Generator) -> str:
    return " ".join(generator.choice(vocabulary, 10))


def texts(seed: int, documents: int) -> list[str]:
    generator = np.random.default_rng([seed, 1])
    vocabulary = words(seed)
    return [
        "\n".join(sentence(vocabulary, generator) for _ in range(generator.integers(5, 9)))
        for _ in range(documents)
    ]


def write_folder(folder, documents):
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(documents):
        (folder / f"{number:03}.txt").write_text(text)
    return folder


@pytest.fixture
def paths(tmp_path):
    return {
        name: write_folder(tmp_path / name, texts(seed, count))
        for seed, (name, count) in enumerate([("de", 30), ("ja", 25), ("en", 60)])
    }


def read(paths, **options: Any):
    targets = {name: path for name, path in paths.items() if name != "en"}
    options.setdefault("validation_share", SHARE)
    found, sources = read_corpora(targets, {"en": paths["en"]}, **options)
    return found, sources["en"]


def documents(stream: np.ndarray) -> list[str]:
    assert stream[-1] == 0
    return stream.tobytes().decode().split("\0")[:-1]


def lines(stream: np.ndarray) -> set[str]:
    return {line for text in documents(stream) for line in text.split("\n")}


# ---- streams -----------------------------------------------------------------------------------


def test_every_document_is_in_one_stream_in_order_with_an_end(paths):
    targets, source = read(paths)
    assert list(targets) == ["de", "ja"] and source.name == "en"
    for seed, corpus in enumerate([targets["de"], targets["ja"], source]):
        given_texts = texts(seed, corpus.counts["documents"])
        train, validation = documents(corpus.train), documents(corpus.validation)
        assert train == [text for text in given_texts if text in set(train)]
        assert sorted(train + validation) == sorted(given_texts)
        assert len(validation) > 1 and len(train) > 1
        assert corpus.vocabulary == 256 and corpus.train.dtype == np.uint8 and corpus.starts.dtype == np.int64
        assert [bytes(corpus.train[start : start + 5]) for start in corpus.starts] == [
            t[:5].encode() for t in train
        ]
        assert corpus.counts["training_tokens"] == len(corpus.train)
        assert corpus.counts["training_bytes"] == len(corpus.train) - len(train)
        assert corpus.counts["training_documents"] == len(train)
        assert corpus.counts["validation_documents"] == len(validation)


def test_the_share_of_validation_is_about_the_one_asked_for(tmp_path, paths):
    paths["en"] = write_folder(tmp_path / "much", texts(9, 1000))
    for share in (0.1, 0.5):
        _, source = read(paths, validation_share=share)
        assert source.counts["validation_documents"] == pytest.approx(1000 * share, abs=50)


def test_a_file_is_split_at_blank_lines(tmp_path, paths):
    (tmp_path / "one.text").write_text("\n\n".join(texts(0, 30)))
    from_file, _ = read(paths | {"de": tmp_path / "one.text"})
    from_folder, _ = read(paths)
    assert from_file["de"].fingerprint == from_folder["de"].fingerprint


def test_validation_can_be_capped_and_stays_a_first_part(paths):
    (whole, _), (capped, _) = read(paths), read(paths, validation_tokens=500)
    assert np.array_equal(capped["de"].validation, whole["de"].validation[:500])
    assert np.array_equal(capped["de"].train, whole["de"].train)
    assert capped["de"].counts["kept_validation_tokens"] == 500
    assert capped["de"].counts["validation_tokens"] == len(whole["de"].validation)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(20, 80), more=st.integers(0, 40), first=st.booleans())
def test_documents_that_are_added_move_no_other(tmp_path_factory, count, more, first):
    folder = tmp_path_factory.mktemp("split")
    others = {
        "de": write_folder(folder / "de", texts(5, 30)),
        "en": write_folder(folder / "en", texts(6, 30)),
    }
    ours, added = texts(7, count), texts(8, more)
    before, _ = read(others | {"ja": write_folder(folder / "a", ours)})
    after, _ = read(others | {"ja": write_folder(folder / "b", added + ours if first else ours + added)})
    for side in ("train", "validation"):
        kept = [text for text in documents(getattr(after["ja"], side)) if text in set(ours)]
        assert kept == documents(getattr(before["ja"], side))


def test_the_same_text_gives_the_same_arrays_which_cannot_be_written_to(paths):
    (one, source), (other, again) = read(paths), read(paths)
    assert one["de"].fingerprint == other["de"].fingerprint != one["ja"].fingerprint
    assert source.fingerprint == again.fingerprint
    for array in (source.train, source.starts, source.validation):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_fingerprint_is_of_all_arrays_and_the_vocabulary():
    def corpus(**changes):
        arrays = {
            "train": np.array([1, 0, 2, 0], np.uint8),
            "starts": np.array([0, 2]),
            "validation": np.array([3, 0], np.uint8),
        }
        return Corpus(**({"name": "a", "vocabulary": 256, "counts": {}} | arrays | changes))

    assert corpus().fingerprint == corpus(name="b", counts={"documents": 1}).fingerprint
    assert corpus().fingerprint == corpus(starts=np.array([0, 2], ">i8")).fingerprint
    others = [
        corpus(vocabulary=257),
        corpus(train=np.array([1, 0, 2, 1], np.uint8)),
        corpus(train=np.array([1, 0, 2, 0], np.uint16)),
        corpus(starts=np.array([0, 3])),
        corpus(train=np.array([1, 0, 2, 0, 3], np.uint8), validation=np.array([0], np.uint8)),
    ]
    assert len({corpus().fingerprint, *(other.fingerprint for other in others)}) == 6


# ---- duplicates --------------------------------------------------------------------------------


def test_documents_and_lines_are_kept_once(paths):
    first, second, *_ = texts(0, 30)
    repeated = first.split("\n")[2]
    (paths["de"] / "900.txt").write_text(first)
    (paths["de"] / "901.txt").write_text(f"{second}\n{repeated.upper()}!\nshort\nshort")
    (paths["de"] / "902.txt").write_text("too short for a document")
    before = lines(read(paths)[0]["de"].train) | lines(read(paths)[0]["de"].validation)
    de = read(paths)[0]["de"]
    assert de.counts["documents"] == 33
    assert de.counts["duplicate_documents"] == 1
    assert de.counts["duplicate_lines"] == 1 + len(second.split("\n"))
    assert de.counts["short_documents"] == 2  # of 901 only the short lines are left
    assert repeated in before and repeated.upper() + "!" not in before


def test_lines_of_a_target_are_taken_out_of_the_source_only(paths):
    untranslated = next(text for text in texts(2, 60) if text.count("\n") == 7).split("\n")
    for number, line in enumerate(untranslated[:3]):
        document = f"{texts(20 + number, 1)[0]}\n{line}"
        (paths[["de", "ja", "ja"][number]] / f"9{number}.txt").write_text(document)
    targets, source = read(paths)
    left = lines(source.train) | lines(source.validation)
    assert left.isdisjoint(untranslated[:3]) and left.issuperset(untranslated[3:])
    assert source.counts["lines_of_targets"] == 3
    there = set.union(*(lines(c.train) | lines(c.validation) for c in targets.values()))
    assert there.issuperset(untranslated[:3])
    assert all(corpus.counts["lines_of_targets"] == 0 for corpus in targets.values())


def planted(folder, seed: int):
    """Three corpora of lines that are edits of a few hundred lines that they share."""
    generator = np.random.default_rng(seed)
    vocabulary = words(seed)
    shared = [sentence(vocabulary, generator) for _ in range(120)]

    def line():
        if generator.random() < 0.3:
            return sentence(vocabulary, generator)
        parts = shared[generator.integers(len(shared))].split(" ")
        for _ in range(generator.integers(0, 3)):
            parts[generator.integers(len(parts))] = generator.choice(vocabulary)
        return " ".join(parts)

    return {
        name: write_folder(folder / name, ["\n".join(line() for _ in range(12)) for _ in range(25)])
        for name in ("de", "ja", "en")
    }


@pytest.mark.parametrize("seed", range(3))
def test_no_line_of_validation_is_nearly_one_of_any_training_text(tmp_path, monkeypatch, seed):
    def between_train_and_validation(corpora):
        train, validation = (
            [
                shingles(key)
                for c in corpora
                for line in lines(getattr(c, side))
                for key in line_keys(line)
                if key
            ]
            for side in ("train", "validation")
        )
        return max(jaccard(one, other) for one in validation for other in train)

    paths = planted(tmp_path, seed)
    targets, source = read(paths)
    corpora = [*targets.values(), source]
    assert 0.5 < between_train_and_validation(corpora) < 0.8
    assert all(corpus.counts["near_duplicate_lines"] > 0 for corpus in corpora)

    # and they were there: without the step, and with all that it keeps left as it was
    monkeypatch.setattr(
        "m3bayes.pilot.split.near_duplicates", lambda lines, others: np.zeros(len(lines), bool)
    )
    targets, source = read(paths)
    leaky = [*targets.values(), source]
    assert between_train_and_validation(leaky) >= 0.8
    for clean, before in zip(corpora, leaky, strict=True):
        assert np.array_equal(clean.train, before.train)
        assert lines(clean.validation) < lines(before.validation)


# ---- tokenizers --------------------------------------------------------------------------------


@pytest.fixture
def tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts(0, 30), trainer)
    trained.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    trained.enable_truncation(5)
    trained.enable_padding(length=9)
    path = tmp_path / "tokenizer.json"
    path.write_text(trained.to_str())
    return path


def test_tokens_of_a_tokenizer_decode_to_the_same_text(paths, tokenizer):
    import tokenizers

    (in_bytes, _), (in_tokens, source) = read(paths), read(paths, tokenizer=tokenizer)
    decode = tokenizers.Tokenizer.from_file(str(tokenizer)).decode
    for name, corpus in in_tokens.items():
        assert corpus.vocabulary == source.vocabulary == 321
        assert corpus.train.dtype == np.uint16 and corpus.train.max() < 321
        assert 1 not in corpus.train  # <s>
        pieces = np.split(corpus.train, corpus.starts[1:])
        assert all(piece[-1] == 0 and (piece[:-1] > 0).all() for piece in pieces)
        decoded = [decode((piece[:-1].astype(int) - 1).tolist()) for piece in pieces]
        assert decoded == documents(in_bytes[name].train)
        assert corpus.counts["training_bytes"] == in_bytes[name].counts["training_bytes"]
        assert len(corpus.train) < len(in_bytes[name].train)
    assert in_tokens["de"].fingerprint == read(paths, tokenizer=tokenizer)[0]["de"].fingerprint


def test_large_vocabularies_take_more_bytes_and_batches_change_nothing(paths, tmp_path, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<unk>": 0, "far": 70_000} | {word: number for number, word in enumerate(set(words(0)), 1)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    trained = tokenizers.Tokenizer(model)
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "words.json"
    path.write_text(trained.to_str())
    whole = read(paths, tokenizer=path)[0]["de"]
    assert whole.vocabulary == 70_002 and whole.train.dtype == np.uint32
    monkeypatch.setattr("m3bayes.pilot.tokens._BATCH", 700)
    assert read(paths, tokenizer=path)[0]["de"].fingerprint == whole.fingerprint


def test_tokenizers_that_cannot_be_used_are_named(paths, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    for content in (None, b"{}", b"\xff", b'{"model": 3}'):
        path = tmp_path / "bad.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(
            M3BayesError, match=r"bad.json cannot be read as a tokenizer: .*; give a tokenizer.json"
        ):
            read(paths, tokenizer=path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(M3BayesError, match=r"pip install 'm3bayes\[pilot\]'"):
        read(paths, tokenizer=path)


# ---- subsets -----------------------------------------------------------------------------------

CORPUS = Corpus(
    name="de",
    train=np.concatenate([[*range(1, n + 1), 0] for n in (3, 1, 7, 2, 40, 5)]).astype(np.uint8),
    starts=np.cumsum([0, 4, 2, 8, 3, 41]),
    validation=np.array([1, 0], np.uint8),
    vocabulary=256,
    counts={},
)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 2**32))
def test_subsets_have_the_exact_size_and_are_nested(one, other, seed):
    small, large = sorted([one, other])
    part = subset(CORPUS, large, seed)
    assert len(part) == large and part.dtype == np.uint8
    assert np.array_equal(subset(CORPUS, small, seed), part[:small])


@given(st.integers(0, 1000))
def test_a_subset_is_of_whole_documents_but_for_the_last(seed):
    every = subset(CORPUS, 64, seed)
    lengths = np.diff(np.flatnonzero(every == 0), prepend=-1)
    assert sorted(lengths) == [2, 3, 4, 6, 8, 41]
    assert all(
        np.array_equal(run[:-1], np.arange(1, len(run))) for run in np.split(every, np.cumsum(lengths))[:-1]
    )


def test_subsets_of_other_seeds_are_other_documents(paths):
    de = read(paths)[0]["de"]
    drawn = [subset(de, 3000, seed) for seed in range(5)]
    assert len({part.tobytes() for part in drawn}) == 5
    assert np.array_equal(drawn[0], subset(de, 3000, 0))
    assert len(subset(de, len(de.train), 0)) == len(de.train)


@pytest.mark.parametrize("tokens", [0, -1, 65])
def test_subsets_that_cannot_be_are_refused(tokens):
    with pytest.raises(M3BayesError, match=rf"corpus de has 64 training tokens, {tokens} were asked for"):
        subset(CORPUS, tokens, 0)
    with pytest.raises(M3BayesError, match="seed of a subset is -1, expected 0 or more"):
        subset(CORPUS, 3, -1)


# ---- errors ------------------------------------------------------------------------------------


def test_text_that_cannot_be_split_is_refused_with_counts_and_a_way_out(tmp_path, paths):
    (tmp_path / "one.txt").write_text(texts(30, 1)[0])
    with pytest.raises(
        M3BayesError, match=r"corpus ja: of 1 documents in .*one.txt, 1 are distinct.*blank lines"
    ):
        read(paths | {"ja": tmp_path / "one.txt"})
    short = write_folder(tmp_path / "short", ["short"] * 3)
    with pytest.raises(M3BayesError, match=r"of 3 documents .*, 0 are distinct .* 200 bytes.*0 for training"):
        read(paths | {"ja": short})
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(M3BayesError, match="of 0 documents"):
        read(paths | {"ja": tmp_path / "empty.txt"})
    with pytest.raises(
        M3BayesError, match=r"corpus en: .* 0 are distinct .* and the \d+ lines that a target has too"
    ):
        read(paths | {"en": paths["de"]})


def test_settings_that_make_no_sense_are_refused(paths):
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(M3BayesError, match=rf"validation_share is {share}, expected between 0 and 1"):
            read(paths, validation_share=share)
    with pytest.raises(M3BayesError, match="validation_tokens is 0, expected 1 or more"):
        read(paths, validation_tokens=0)
    with pytest.raises(M3BayesError, match="no target corpus"):
        read_corpora({}, {"en": paths["en"]})
    with pytest.raises(M3BayesError, match="no source corpus"):
        read_corpora({"de": paths["de"]}, {})
    with pytest.raises(M3BayesError, match="'en' names both a target and a source"):
        read_corpora({"en": paths["de"]}, {"en": paths["en"]})


def test_a_source_gives_way_to_the_targets_and_to_the_sources_before_it(paths, tmp_path):
    shared_line, of_target = sentence(words(7), np.random.default_rng(7)), lines_of(paths["de"])[3]
    second = texts(5, 40)
    second[4] += "\n" + shared_line + "\n" + of_target
    write_folder(tmp_path / "fr", second)
    first = (paths["en"] / "002.txt").read_text()
    (paths["en"] / "002.txt").write_text(first + "\n" + shared_line)
    targets = {"de": paths["de"], "ja": paths["ja"]}
    found, sources = read_corpora(targets, {"en": paths["en"], "fr": tmp_path / "fr"}, validation_share=SHARE)
    alone, only = read_corpora(targets, {"en": paths["en"]}, validation_share=SHARE)
    # what a text keeps to train on does not hang on those after it
    assert np.array_equal(only["en"].train, sources["en"].train)
    assert all(np.array_equal(alone[name].train, found[name].train) for name in targets)
    assert sources["fr"].counts["lines_of_targets"] == 2
    assert {shared_line, of_target}.isdisjoint(lines(sources["fr"].train) | lines(sources["fr"].validation))


def lines_of(folder) -> list[str]:
    return (folder / "001.txt").read_text().split("\n")


# ---- cache -------------------------------------------------------------------------------------


def same(one, other):
    (targets, source), (others, again) = one, other
    assert list(targets) == list(others)
    for a, b in zip([*targets.values(), source], [*others.values(), again], strict=True):
        assert a.fingerprint == b.fingerprint
        for field in dataclasses.fields(Corpus):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else x == y
        assert not b.train.flags.writeable


def test_a_cache_gives_the_same_corpora_without_the_work(paths, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "cache"
    fresh = read(paths, cache=folder)
    same(read(paths), fresh)
    assert len(list(folder.iterdir())) == 1

    def fail(*_):
        raise AssertionError("the cache was not used")

    with monkeypatch.context() as patch:
        patch.setattr(module, "split_corpora", fail)
        same(fresh, read(paths, cache=folder))
        for change in ({"validation_share": 0.31}, {"validation_tokens": 7}):
            with pytest.raises(AssertionError, match="not used"):
                read(paths, cache=folder, **change)
        (paths["ja"] / "003.txt").write_text(texts(40, 1)[0])
        with pytest.raises(AssertionError, match="not used"):
            read(paths, cache=folder)
    same(read(paths), read(paths, cache=folder))
    assert len(list(folder.iterdir())) == 2


def test_a_damaged_cache_is_made_again(paths, tmp_path):
    fresh = read(paths, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[:500], b"x" + whole[1:]):
        file.write_bytes(damaged)
        assert corpus_cache.load(file) is None
        same(fresh, read(paths, cache=tmp_path / "cache"))
        assert corpus_cache.load(file) is not None


def test_a_cache_that_cannot_be_made_is_refused(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(M3BayesError, match=r"file/cache cannot be made: .*; choose another folder"):
        read(paths, cache=tmp_path / "file" / "cache")
