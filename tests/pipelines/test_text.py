"""Texts of the user."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest
from pipeline_files import scored_ids

from keras_seq import pipelines
from keras_seq.pipelines import DataError, MissingDataError

TEXT = "Alle Vögel sind schon da,\nalle Vögel, alle!\nWelch ein Singen …\n" * 20


def load(folder=None, **options):
    return pipelines.load("text", folder, **{"batch_size": 2, "length": 8, **options})


def test_one_file_is_cut_by_characters(tmp_path):
    (tmp_path / "song.txt").write_text(TEXT, encoding="utf-8")
    data = load(tmp_path, eval_batch_size=1, fractions=[0.8, 0.1, 0.1])
    total = len(TEXT)
    counts = {"train": int(0.8 * total), "validation": int(0.9 * total) - int(0.8 * total)}
    counts["test"] = total - sum(counts.values())
    assert data.info["tokens"] == counts
    assert data.vocabulary.size == len(set(TEXT)) and data.vocabulary.unk_id is None
    assert data.vocabulary.decode(scored_ids(data.test)).numpy().decode() == TEXT[-counts["test"] :]
    x, y, _ = next(iter(data.validation))
    assert x.numpy()[0, 0] == data.vocabulary.eos_id == data.vocabulary.id_of("\n")


@pytest.mark.parametrize("fractions", [(0.9, 0.1), (0.9, 0, 0.1), (1,)])
def test_parts_that_are_left_out(tmp_path, fractions):
    path = tmp_path / "song.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    data = load(path, fractions=fractions)
    names = [n for n, f in zip(("train", "validation", "test"), fractions, strict=False) if f]
    assert list(data.info["tokens"]) == names
    assert (data.validation is not None) == ("validation" in names)
    assert (data.test is not None) == ("test" in names)


def test_words(tmp_path):
    (tmp_path / "train.txt").write_text("a b c\na b\n" * 20)
    (tmp_path / "valid.txt").write_text("a d\n\nb")
    data = load(tmp_path, level="word", eval_batch_size=1)
    assert data.info["tokens"] == {"train": 140, "validation": 6}
    assert set(data.vocabulary.tokens) == {b"a", b"b", b"<eos>", b"c", b"<unk>"}
    ids = scored_ids(data.validation)
    assert data.vocabulary.to_tokens(ids).numpy().tolist() == (
        [b"a", b"<unk>", b"<eos>", b"<eos>", b"b", b"<eos>"]
    )
    assert data.test is None


def test_files_by_name(tmp_path):
    for name in "xyz":
        (tmp_path / f"{name}.text").write_text(name + "\n" + TEXT)
    data = load(tmp_path, train_file="x.text", test_file=tmp_path / "z.text", unk=True)
    assert list(data.info["tokens"]) == ["train", "test"]
    assert data.vocabulary.unk_id is not None and data.vocabulary.unk_id == scored_ids(data.test)[0]
    assert load(file=tmp_path / "y.text").info["tokens"]["train"] > 0


def test_unseen_characters_need_unk(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "test.txt").write_text("Ω da\n")
    assert b"<unk>" in load(tmp_path).vocabulary
    with pytest.raises(DataError, match="<unk>") as caught:
        load(tmp_path, unk=False)
    assert caught.value.place == "character 0" and "test.txt" in str(caught.value)


def test_undecodable_bytes(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"line\nl\xe9ger\n" * 10)
    for options in ({}, {"file": path}):
        with pytest.raises(DataError, match="0xe9 is not valid UTF-8") as caught:
            load(tmp_path, **options)
        assert caught.value.place == "byte 6, line 2"
    assert load(tmp_path, level="word").vocabulary.id_of(b"l\xe9ger") != 99


def test_words_are_any_bytes(tmp_path):
    """Latin-1, in one file that is cut."""
    path = tmp_path / "song.txt"
    path.write_bytes("Vögel über Bäume und léger\n".encode("latin-1") * 40)
    data = load(path, level="word", fractions=(0.5, 0.5))
    assert sum(data.info["tokens"].values()) >= 240
    assert "Vögel".encode("latin-1") in data.vocabulary


@pytest.mark.parametrize("level", ["word", "character"])
def test_a_byte_order_mark_is_no_token(tmp_path, level):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / f"{encoding}.txt").write_text(TEXT, encoding=encoding)
    plain, marked = (
        load(tmp_path / f"{encoding}.txt", level=level) for encoding in ("utf-8", "utf-8-sig")
    )
    assert marked.info["tokens"] == plain.info["tokens"]
    assert marked.vocabulary.tokens == plain.vocabulary.tokens
    (tmp_path / "utf-16.txt").write_text("漢字" * 90, encoding="utf-16")
    with pytest.raises(DataError, match=r"byte order mark of UTF-16.*iconv"):
        load(tmp_path / "utf-16.txt", level=level)


def test_windows_line_ends(tmp_path):
    """They are those of Unix, but for a vocabulary that has the carriage return."""
    (tmp_path / "unix.txt").write_bytes(TEXT.encode())
    (tmp_path / "windows.txt").write_bytes(TEXT.replace("\n", "\r\n").encode())
    unix, windows = load(tmp_path / "unix.txt"), load(tmp_path / "windows.txt")
    assert windows.info["tokens"] == unix.info["tokens"]
    assert windows.vocabulary.tokens == unix.vocabulary.tokens
    by_split = load(tmp_path, train_file="windows.txt", test_file="windows.txt")
    assert by_split.info["tokens"] == {"train": len(TEXT), "test": len(TEXT)}
    kept = pipelines.Vocabulary([*unix.vocabulary.tokens, b"\r"], "character")
    for vocabulary in (kept, tmp_path / "vocabulary.txt"):
        kept.save(tmp_path / "vocabulary.txt")
        data = load(tmp_path / "windows.txt", vocabulary=vocabulary)
        assert sum(data.info["tokens"].values()) == len(TEXT) + TEXT.count("\n")


def test_line_ends_between_blocks(tmp_path, monkeypatch):
    """A block ends anywhere: in a line end, in a character, in a word."""
    text = "a\r\n\r\rbé\n漢 longer words\r\n\tx \ny" * 12
    (tmp_path / "song.txt").write_bytes(text.encode())
    expected = {level: load(tmp_path, level=level) for level in ("word", "character")}
    for size in (1, 3):
        monkeypatch.setattr("keras_seq.pipelines.text_source.CHUNK", size)
        monkeypatch.setattr("keras_seq.pipelines.text.CHUNK", size)
        for level, data in expected.items():
            again = load(tmp_path, level=level, cache_dir=False)
            assert again.info["tokens"] == data.info["tokens"]
            assert again.vocabulary.tokens == data.vocabulary.tokens
            np.testing.assert_array_equal(scored_ids(again.test), scored_ids(data.test))
    plain = text.replace("\r\n", "\n")
    assert sum(expected["character"].info["tokens"].values()) == len(plain)


def test_a_text_too_short_for_its_parts(tmp_path):
    (tmp_path / "song.txt").write_text("la la la")
    with pytest.raises(DataError, match=r"8 characters are too few.*none is left for validation"):
        load(tmp_path)
    (tmp_path / "song.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match=r"song.txt: the file is empty\. Give"):
        load(tmp_path)


def test_texts_in_sub_folders_are_not_read_in_silence(tmp_path, caplog):
    (tmp_path / "song.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    load(tmp_path)
    assert not caplog.records
    for name, file in (("deep", "more.txt"), ("run", "vocabulary.txt"), ("run", "recipe.json")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text(TEXT)
    load(tmp_path)
    (record,) = caplog.records
    assert "song.txt.gz is read alone" in record.getMessage()
    assert "deep/more.txt" in record.getMessage()
    assert "vocabulary" not in record.getMessage()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no text was given"):
        load()
    with pytest.raises(MissingDataError, match="no such file or folder"):
        load(tmp_path / "none")
    with pytest.raises(MissingDataError, match="nor a single text file"):
        load(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(TEXT)
    with pytest.raises(MissingDataError, match=r"a\.txt, b\.txt"):
        load(tmp_path)
    with pytest.raises(MissingDataError, match="no such file"):
        load(tmp_path, file="c.txt")
    with pytest.raises(MissingDataError, match="test split"):
        load(tmp_path, train_file="a.txt", splits=["train", "test"])


def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "text.txt"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match=r"text\.txt: it is a pipe, not a file\. Copy"):
        load(file=pipe)


def test_options_are_checked(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    for options, word in (
        ({"level": "byte"}, "level"),
        ({"fractions": (0.5, 0.4)}, "fractions"),
        ({"fractions": (1.1, -0.1)}, "fractions"),
        ({"file": "a.txt", "train_file": "a.txt"}, "not both"),
        ({"unk": False, "min_count": 30}, "unk=False"),
    ):
        with pytest.raises(ValueError, match=word):
            load(tmp_path, **options)
    with pytest.raises(DataError, match="too few"):
        load(tmp_path, batch_size=500)


def test_tiny_shakespeare(shared_data):
    data = load(shared_data / "tiny_shakespeare", fractions=(0.9, 0.1), length=128)
    assert data.info["tokens"] == {"train": 1_003_854, "validation": 111_540}
    assert data.vocabulary.size == 65
    assert sum(float(w.numpy().sum()) for _, _, w in data.validation) == 111_540


def test_a_long_text_takes_little_memory(tmp_path, monkeypatch):
    """Beside the text itself, memory for a block of it; the text is one line, as text8 is."""
    for module in ("text", "text_source"):
        monkeypatch.setattr(f"keras_seq.pipelines.{module}.CHUNK", 1 << 15)
    letters = np.random.default_rng(0).integers(ord("a"), ord("z"), 1_000_000, "uint8")
    (tmp_path / "long.txt").write_bytes(letters.tobytes())
    tracemalloc.start()
    try:
        data = load(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(data.info["tokens"].values()) == letters.size
    assert peak < 9 * letters.size  # of which a table of all characters is 4.5
