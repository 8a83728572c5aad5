"""The text corpora: files in every accepted place and form, counts, cache, errors."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from pipeline_files import (
    LINES,
    WORDS,
    character_count,
    character_file,
    scored_ids,
    word_count,
    word_file,
)

from keras_seq import pipelines
from keras_seq.pipelines import DataError, MissingDataError, Vocabulary

SETTINGS = {"batch_size": 2, "length": 8}


def load(name, folder, **options):
    return pipelines.load(name, folder, **{**SETTINGS, **options})


def scored(dataset):
    """Number of scored tokens, and the batches against the cardinality."""
    total = steps = 0
    for _, _, weight in dataset:
        total += float(weight.numpy().sum())
        steps += 1
    assert steps == int(dataset.cardinality())
    return total


def expected_counts(count):
    return {
        "train": count(LINES["train"]),
        "validation": count(LINES["valid"]),
        "test": count(LINES["test"]),
    }


@pytest.mark.parametrize("name, count", [("ptb_word", word_count), ("ptb_char", character_count)])
@pytest.mark.parametrize("history", [0, 5])
def test_counts_coverage_and_cardinality(ptb_folder, name, count, history):
    data = load(name, ptb_folder, history=history, eval_batch_size=3)
    assert data.info["tokens"] == expected_counts(count)
    assert json.loads(json.dumps(data.info)) == data.info
    assert scored(data.validation) == data.info["tokens"]["validation"]
    assert scored(data.test) == data.info["tokens"]["test"]
    steps = len(list(data.train))
    lane = data.info["tokens"]["train"] // 2
    assert steps == data.steps_per_epoch == (lane - 1 - history) // 8
    x, y = next(iter(data.train))
    assert x.shape == y.shape == (2, 8 + history)


def test_words_and_characters_are_the_text(ptb_folder):
    text = "\n".join(LINES["test"]) + "\n"
    for name, size in (("ptb_word", len(WORDS) + 1), ("ptb_char", None)):
        data = load(name, ptb_folder, eval_batch_size=1)
        ids = scored_ids(data.test)
        assert data.vocabulary.decode(ids).numpy().decode() == text
        assert np.array_equal(data.vocabulary.encode(text).numpy(), ids)
        assert next(iter(data.test))[0].numpy()[0, 0] == data.vocabulary.eos_id
        if size:
            assert data.vocabulary.size == size
        else:
            characters = set("".join(LINES["train"]).replace(" ", "_"))
            assert set(data.vocabulary.tokens) == {c.encode() for c in characters} | {b"<eos>"}
            assert data.vocabulary.unk_id is None


@pytest.mark.parametrize(
    "layout",
    ["folder", "parent", "original", "gz", "tar", "no_final_newline", "crlf"],
)
def test_accepted_layouts_of_ptb(tmp_path, layout):
    contents = {split: word_file(lines) for split, lines in LINES.items()}
    if layout == "no_final_newline":
        contents = {split: content.rstrip() for split, content in contents.items()}
    if layout == "crlf":
        contents = {split: c.replace(b"\n", b"\r\n") for split, c in contents.items()}
    folder = tmp_path / "ptb" if layout == "parent" else tmp_path
    folder.mkdir(exist_ok=True)
    for split, content in contents.items():
        if layout == "original":
            (folder / f"ptb.{split}.txt").write_bytes(content)
        elif layout == "gz":
            (folder / f"{split}.txt.gz").write_bytes(gzip.compress(content))
        elif layout != "tar":
            (folder / f"{split}.txt").write_bytes(content)
    if layout == "tar":
        with tarfile.open(folder / "simple-examples.tgz", "w:gz") as archive:
            for split, content in contents.items():
                entry = tarfile.TarInfo(f"./simple-examples/data/ptb.{split}.txt")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    assert load("ptb_word", tmp_path).info["tokens"] == expected_counts(word_count)


def test_characters_are_spelt_out_from_words(ptb_folder):
    spelt = load("ptb_char", ptb_folder / "ptb")
    given = load("ptb_char", ptb_folder / "ptb_char")
    assert spelt.info["tokens"] == given.info["tokens"]
    assert spelt.vocabulary.tokens == given.vocabulary.tokens
    for a, b in zip(spelt.train, given.train, strict=True):
        assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


@pytest.mark.parametrize("name, size", [("wikitext2", "2"), ("wikitext103", "103")])
@pytest.mark.parametrize("packed", [False, True])
def test_wikitext(tmp_path, name, size, packed):
    contents = {
        split: b" \n = Title = \n \n" + word_file(lines) + b" \n" for split, lines in LINES.items()
    }
    if packed:
        with zipfile.ZipFile(tmp_path / f"wikitext-{size}-v1.zip", "w") as archive:
            for split, content in contents.items():
                archive.writestr(f"wikitext-{size}/wiki.{split}.tokens", content)
    else:
        (tmp_path / f"wikitext-{size}").mkdir()
        for split, content in contents.items():
            (tmp_path / f"wikitext-{size}" / f"wiki.{split}.tokens").write_bytes(content)
    tokens = load(name, tmp_path).info["tokens"]
    blank_and_title = 1 + 4 + 1 + 1  # one <eos> for each blank line
    counts = expected_counts(word_count)
    assert tokens == {split: n + blank_and_title for split, n in counts.items()}


def test_missing_training_split(ptb_folder):
    (ptb_folder / "ptb" / "train.txt").unlink()
    with pytest.raises(MissingDataError) as caught:
        load("wikitext2", ptb_folder / "ptb")
    message = str(caught.value)
    for part in ("train", "wiki.train.tokens", "splits=('validation', 'test')", "vocabulary"):
        assert part in message
    held_out = ("validation", "test")
    with pytest.raises(DataError, match="vocabulary"):
        load("wikitext2", ptb_folder / "ptb", splits=held_out)
    data = load("wikitext2", ptb_folder / "ptb", splits=held_out, vocabulary="splits")
    assert data.train is None and scored(data.test) == word_count(LINES["test"])
    with pytest.raises(ValueError, match="without a training split"):
        data.epoch(0)
    with pytest.raises(ValueError, match="without a training split"):
        _ = data.steps_per_epoch


def test_given_vocabulary(ptb_folder, tmp_path):
    own = load("ptb_word", ptb_folder).vocabulary
    own.save(tmp_path / "v.txt")
    for given in (own, tmp_path / "v.txt", str(tmp_path / "v.txt")):
        data = load("ptb_word", ptb_folder, splits=["test"], vocabulary=given)
        assert data.vocabulary.tokens == own.tokens
    small = Vocabulary(["<unk>", "the", "<eos>"])
    x, _ = next(iter(load("ptb_word", ptb_folder, vocabulary=small).train))
    assert int(x.numpy().max()) <= 2
    with pytest.raises(ValueError, match="level 'character'"):
        load("ptb_char", ptb_folder, vocabulary=small)


def test_unknown_word_without_unk(ptb_folder):
    with pytest.raises(DataError, match="has no <unk>") as caught:
        load("ptb_word", ptb_folder, splits=["test"], vocabulary=Vocabulary([*WORDS[:-2], "<eos>"]))
    assert caught.value.place == "line 1" and "test.txt" in str(caught.value)


def test_order_of_appearance(ptb_folder):
    tokens = load("ptb_word", ptb_folder, vocabulary_order="appearance").vocabulary.tokens
    assert tokens == [word.encode() for word in [*WORDS, "<eos>"]]


def test_max_size_and_min_count(ptb_folder):
    assert load("ptb_word", ptb_folder, max_size=6).vocabulary.size == 6
    rare = load("ptb_word", ptb_folder, min_count=10_000).vocabulary
    assert rare.tokens == [b"<unk>"]
    assert rare.eos_id is None and rare.oov_id == 0


def test_cache_is_used_and_never_trusted(ptb_folder, cache):
    first = load("ptb_word", ptb_folder)
    files = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len([n for n in files if n.endswith(".ids")]) == 3
    load("ptb_word", ptb_folder)
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == files
    for path in [*cache.glob("*.ids"), *cache.glob("*.txt")]:  # cut every file short
        path.write_bytes(path.read_bytes()[:-3])
    again = load("ptb_word", ptb_folder)
    assert again.info == first.info and again.vocabulary.tokens == first.vocabulary.tokens
    for a, b in zip(first.test, again.test, strict=True):
        assert np.array_equal(a[1], b[1])


def test_changed_source_is_encoded_again(ptb_folder):
    load("ptb_word", ptb_folder)
    path = ptb_folder / "ptb" / "test.txt"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"the", b"cat", 1))
    data = load("ptb_word", ptb_folder, eval_batch_size=1)
    text = data.vocabulary.decode(scored_ids(data.test)).numpy()
    assert text.split() == path.read_bytes().split()


@pytest.mark.parametrize("how", ["false", "unwritable"])
def test_without_a_cache(ptb_folder, cache, tmp_path, how):
    (tmp_path / "file").write_bytes(b"")
    option = False if how == "false" else tmp_path / "file" / "cache"
    data = load("ptb_word", ptb_folder, cache_dir=option)
    assert scored(data.test) == word_count(LINES["test"])
    assert not list(cache.iterdir())


def test_cache_dir_option(ptb_folder, cache, tmp_path):
    load("ptb_word", ptb_folder, cache_dir=tmp_path / "here")
    assert len(list((tmp_path / "here").glob("*.ids"))) == 3 and not list(cache.iterdir())


def test_data_folder_from_the_environment(ptb_folder, monkeypatch):
    monkeypatch.setenv("KERAS_SEQ_DATA", str(ptb_folder))
    assert load("ptb_word", None).info["tokens"] == expected_counts(word_count)


@pytest.mark.parametrize(
    "spoil, word, place",
    [
        (lambda c: gzip.compress(c), "gzip data", "byte 0"),
        (lambda c: b"PK\x03\x04" + c, "zip data", "byte 0"),
        (lambda c: c[:40] + b"\0" + c[41:], "zero byte", "byte 40"),
        (lambda c: c.decode().encode("utf-16"), "UTF-16", "byte 0"),
        (lambda c: c.decode().encode("utf-16-le"), "zero byte", "byte 1"),
        (lambda c: b"", "empty", None),
        (lambda c: b"   ", "no tokens", None),
    ],
)
def test_bad_text_files(ptb_folder, spoil, word, place):
    path = ptb_folder / "ptb" / "valid.txt"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=word) as caught:
        load("ptb_word", ptb_folder)
    error = caught.value
    assert str(path) in str(error) and error.place == place and error.remedy


def test_damaged_archives(tmp_path):
    content = gzip.compress(word_file(LINES["train"] * 50))
    for split in LINES:
        (tmp_path / f"{split}.txt.gz").write_bytes(content)
    path = tmp_path / "test.txt.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut short or damaged") as caught:
        load("ptb_word", tmp_path)
    assert str(path) in str(caught.value) and "after byte" in str(caught.value)
    path.write_bytes(content[:200] + b"????" + content[204:])
    with pytest.raises(DataError, match="cut short or damaged"):
        load("ptb_word", tmp_path)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "wikitext-2-v1.zip").write_bytes(b"PK\x03\x04 and no end")
    with pytest.raises(DataError, match="cut short or damaged"):
        load("wikitext2", tmp_path / "w")


def test_missing_files_and_folders(tmp_path):
    for folder, word in ((tmp_path / "none", "no such folder"), (tmp_path, "ptb.train.txt")):
        with pytest.raises(MissingDataError, match=word) as caught:
            load("ptb_word", folder)
        assert isinstance(caught.value, FileNotFoundError) and caught.value.remedy


def test_options_are_checked(ptb_folder):
    for options, word in (
        ({"length": None}, "length"),
        ({"splits": ()}, "splits"),
        ({"splits": ("dev",)}, "splits"),
        ({"source": "web"}, "source"),
        ({"vocabulary": "/none/v.txt"}, "no vocabulary file"),
    ):
        with pytest.raises(ValueError, match=word):
            load("ptb_word", ptb_folder, **options)
    with pytest.raises(ValueError, match="data_dir"):
        load("ptb_word", None, source="files")
    with pytest.raises(ValueError, match="skip"):
        load("ptb_word", ptb_folder).epoch(0, skip=10_000)
    with pytest.raises(ValueError, match="epoch"):
        load("ptb_word", ptb_folder).epoch(-1)


def test_character_file_helper():
    assert character_file(["a b", "c"]) == b"a _ b \n c \n "


@pytest.mark.parametrize(
    "name, tokens, size",
    [
        ("ptb_word", (929_589, 73_760, 82_430), 10_000),
        ("ptb_char", (5_017_482, 393_042, 442_423), 50),
    ],
)
def test_published_counts_of_ptb(shared_data, name, tokens, size):
    data = load(name, shared_data, batch_size=20, eval_batch_size=10, length=110, history=40)
    assert tuple(data.info["tokens"].values()) == tokens
    assert data.vocabulary.size == size
    assert scored(data.validation) == tokens[1] and scored(data.test) == tokens[2]
    assert data.steps_per_epoch == (tokens[0] // 20 - 41) // 110
    if name == "ptb_word":
        assert data.vocabulary.tokens[:3] == [b"the", b"<unk>", b"<eos>"]


def test_published_counts_of_wikitext2(shared_data):
    data = load(
        "wikitext2", shared_data, splits=("validation", "test"), vocabulary="splits", length=100
    )
    assert data.info["tokens"] == {"validation": 217_646, "test": 245_569}
    assert scored(data.validation) == 217_646 and scored(data.test) == 245_569
