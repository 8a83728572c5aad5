"""Vocabulary: order, files, tokenisation in the graph."""

import collections
import copy
import json
import os
import pickle
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import pipelines
from keras_seq.pipelines import DataError, MissingDataError, Vocabulary
from keras_seq.pipelines.vocabulary_file import escape, unescape

ODD = [
    b"\n",
    b"\r",
    b"\\",
    b"\\n",
    b"\xff\xfe",
    b"\xc3",
    "é".encode(),
    b"#",
    b" ",
    b"\t",
    b"a\nb\r\\",
]


def test_order_is_frequency_then_bytes():
    counts = collections.Counter({b"b": 3, b"a": 3, b"c": 5, b"\xff": 3})
    assert Vocabulary.from_counts(counts).tokens == [b"c", b"a", b"b", b"\xff"]


def test_order_of_appearance():
    counts = collections.Counter([b"z", b"a", b"z", b"m", b"a", b"a"])
    assert Vocabulary.from_counts(counts, order="appearance").tokens == [b"z", b"a", b"m"]


@pytest.mark.parametrize(
    "settings, tokens",
    [
        ({"min_count": 1}, [b"c", b"a", b"d", b"e"]),
        ({"min_count": 2}, [b"c", b"<unk>", b"a"]),  # <unk> stands for d and e: 2
        ({"max_size": 3}, [b"c", b"<unk>", b"a"]),
        ({"max_size": 2}, [b"<unk>", b"c"]),  # 4 and 4
        ({"specials": ["<eos>", "e"], "min_count": 4}, [b"c", b"<unk>", b"e", b"<eos>"]),
    ],
)
def test_rare_tokens_become_unk(settings, tokens):
    vocabulary = Vocabulary.from_counts({b"c": 4, b"a": 2, b"d": 1, b"e": 1}, **settings)
    assert vocabulary.tokens == tokens
    if b"<unk>" in tokens:
        assert vocabulary.oov_id == vocabulary.unk_id == tokens.index(b"<unk>")


def test_escapes_round_trip():
    for token in ODD:
        line = escape(token)
        assert b"\n" not in line and b"\r" not in line
        assert unescape(line) == token
    assert len({escape(token) for token in ODD}) == len(ODD)


@pytest.mark.parametrize("level", ["word", "character"])
def test_file_round_trip_of_any_bytes(tmp_path, level):
    vocabulary = Vocabulary(ODD, level=level)
    vocabulary.save(tmp_path / "v.txt")
    loaded = Vocabulary.load(tmp_path / "v.txt")
    assert loaded.tokens == ODD
    assert loaded.level == level
    with tf.io.gfile.GFile(str(tmp_path / "v.txt"), "rb") as file:
        assert len(file.read().split(b"\n")) == len(ODD) + 1


def test_file_without_description_is_guessed(tmp_path):
    (tmp_path / "c.txt").write_bytes("<unk>\na\né\n\\n\n".encode())
    characters = Vocabulary.load(tmp_path / "c.txt")
    assert (characters.level, characters.tokens[3]) == ("character", b"\n")
    (tmp_path / "w.txt").write_bytes(b"the\r\ncat\r\n")
    words = Vocabulary.load(tmp_path / "w.txt")
    assert (words.level, words.tokens) == ("word", [b"the", b"cat"])
    (tmp_path / "m.txt").write_text("the\ncat\n", encoding="utf-8-sig")
    assert Vocabulary.load(tmp_path / "m.txt").tokens == [b"the", b"cat"]
    Vocabulary(["\ufeff", "a"], "character").save(tmp_path / "own.txt")  # a token like any other
    assert Vocabulary.load(tmp_path / "own.txt").tokens == ["\ufeff".encode(), b"a"]


@pytest.mark.parametrize(
    "content, place, word",
    [
        (b"a\nb\na\n", "line 3", "line 1"),
        (b"a\n\nb\n", "line 2", "empty"),
        (b"a\n\\x\n", "line 2", "escape"),
        (b"", "line 1", "empty"),
    ],
)
def test_bad_file(tmp_path, content, place, word):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=word) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value) and caught.value.place == place


def test_cut_file_is_noticed(tmp_path):
    path = tmp_path / "v.txt"
    Vocabulary(["a", "b", "c"]).save(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="cut short or was changed"):
        Vocabulary.load(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(DataError, match="not the description"):
        Vocabulary.load(path)
    with pytest.raises(FileNotFoundError, match="no vocabulary file"):
        Vocabulary.load(tmp_path / "none.txt")


def test_words_split_on_ascii_white_space_only():
    text = "a\u00a0b \tc\x0bd\x0ce\r\nf  \u3000 g\x85h"
    vocabulary = Vocabulary(["<eos>"])
    split = vocabulary.split(text).numpy().tolist()
    assert split == text.encode().replace(b"\n", b" <eos> ").split()
    assert "a\u00a0b".encode() in split


@pytest.mark.parametrize("backslash", [False, True])
def test_word_encoding(backslash):
    tokens = ["the", "<unk>", "cat", "<eos>", *(["\\", "a\\n", "\\\\"] if backslash else [])]
    vocabulary = Vocabulary(tokens)
    encode = tf.function(vocabulary.encode)
    ids = encode(tf.constant("the cat\nsat \\ a\\n \\\\ <eos>\n"))
    tail = [4, 5, 6] if backslash else [1, 1, 1]
    assert ids.dtype == tf.int32
    assert ids.numpy().tolist() == [0, 2, 3, 1, *tail, 3, 3]
    rows = encode(tf.constant(["the", "cat the", ""]))
    assert rows.to_list() == [[0], [2, 0], []]


def test_word_decoding_is_the_inverse():
    vocabulary = Vocabulary(["the", "<eos>", "cat", "\\n"])
    text = b"the cat\nthe \\n\n\ncat"
    ids = vocabulary.encode(text)
    assert tf.function(vocabulary.decode)(ids).numpy() == text
    two = vocabulary.decode(tf.constant([[0, 2], [2, 1]]))
    assert two.numpy().tolist() == [b"the cat", b"cat\n"]


def test_character_encoding():
    vocabulary = Vocabulary(["a", "\n", "\\", "é", "<unk>", "\r", " "], level="character")
    text = "aé\\\n\r b".encode()
    ids = tf.function(vocabulary.encode)(tf.constant(text))
    assert ids.numpy().tolist() == [0, 3, 2, 1, 5, 6, 4]
    assert vocabulary.decode(ids[:-1]).numpy() == text[:-1]
    assert vocabulary.encode(b"a\xffa").numpy().tolist() == [0, 4, 0]  # invalid UTF-8
    assert vocabulary.eos_id == 1


def test_space_and_line_end_of_ptb_characters():
    vocabulary = Vocabulary(["a", "_", "<eos>", "b"], level="character", space="_")
    ids = vocabulary.encode("a b\nb_a")
    assert ids.numpy().tolist() == [0, 1, 3, 2, 3, 1, 0]
    assert vocabulary.decode(ids).numpy() == b"a b\nb a"


def test_unknown_tokens_never_leave_the_range():
    for tokens, oov in ((["x", "<unk>"], 1), (["x", "<eos>"], 1), (["x", "y"], 0)):
        vocabulary = Vocabulary(tokens)
        assert vocabulary.oov_id == oov
        assert vocabulary.encode("zzz").numpy().tolist() == [oov]
        assert vocabulary.id_of("zzz") == oov


def test_saved_model_carries_the_vocabulary(tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.vocabulary = Vocabulary(["the", "<unk>", "cat\\", "<eos>"])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def ids(self, text):
            return self.vocabulary.encode(text).to_tensor(-1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def text(self, ids):
            return self.vocabulary.decode(ids)

    tf.saved_model.save(Served(), str(tmp_path / "m"))
    assets = list((tmp_path / "m" / "assets").iterdir())
    assert [a.read_bytes() for a in assets] == [b"the\n<unk>\ncat\\\\\n<eos>\n"]
    (tmp_path / "m").rename(tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    assert loaded.ids(tf.constant(["the cat\\ x\n"])).numpy().tolist() == [[0, 2, 1, 3]]
    assert loaded.text(tf.constant([0, 2])).numpy() == b"the cat\\"


def test_bad_arguments():
    for tokens, settings, word in (
        (["a", "a"], {}, "twice"),
        ([], {}, "at least one"),
        (["a", ""], {}, "at least one"),
        (["a"], {"level": "byte"}, "level"),
        (["a"], {"space": "a"}, "space"),
        (["a"], {"level": "character", "space": "_"}, "space"),
    ):
        with pytest.raises(ValueError, match=word):
            Vocabulary(tokens, **settings)
    with pytest.raises(ValueError, match="order"):
        Vocabulary.from_counts({b"a": 1}, order="random")
    with pytest.raises(ValueError, match="max_size"):
        Vocabulary.from_counts({b"a": 1, b"b": 1}, max_size=1, specials=["x", "y"])


def test_id_out_of_range_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        Vocabulary(["a", "b"]).decode([0, 2])


def test_python_and_graph_agree():
    random = np.random.default_rng(0)
    tokens = [bytes(random.integers(33, 127, random.integers(1, 5), np.uint8)) for _ in range(300)]
    vocabulary = Vocabulary(dict.fromkeys([*tokens[:200], b"<unk>"]))
    ids = vocabulary.encode_tokens(tokens)
    graph = vocabulary.encode(b" ".join(tokens)).numpy()
    assert np.array_equal(np.where(ids < 0, vocabulary.oov_id, ids), graph)
    assert json.dumps(int(graph[0]))


def test_pickles_and_copies_after_use():
    vocabulary = Vocabulary([b"_", b"a", b"\xff", b"<eos>"], "character", space="_")
    ids = vocabulary.encode("a a\n").numpy()
    for other in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary)):
        assert (other.tokens, other.level, other.space) == (vocabulary.tokens, "character", b"_")
        np.testing.assert_array_equal(other.encode("a a\n"), ids)


@pytest.mark.parametrize(
    ("key", "value"),
    [("level", "word"), ("level", 3), ("space", "a"), ("space", []), ("size", 9), ("sha256", None)],
)
def test_a_changed_description_is_refused(tmp_path, key, value):
    path = tmp_path / "vocabulary.txt"
    Vocabulary(["_", "a", "b"], "character", space="_").save(path)
    beside = path.with_suffix(".json")
    settings = json.loads(beside.read_text())
    beside.write_text(json.dumps({**settings, key: value}))
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        Vocabulary.load(path)
    del settings["settings_sha256"]  # as it was written before there was one
    beside.write_text(json.dumps(settings))
    assert Vocabulary.load(path).space == b"_"


@pytest.mark.parametrize("moment", range(2))
def test_killed_while_it_is_saved(tmp_path, moment, monkeypatch):
    """Whatever is there after a kill loads as it was saved, or not at all."""
    path, count = tmp_path / "vocabulary.txt", iter(range(9))
    replace = os.replace

    def killed(source, target):
        if next(count) == moment:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        Vocabulary(["a", "b"], "word").save(path)
    with pytest.raises(MissingDataError, match="no vocabulary file here"):
        Vocabulary.load(path)


def test_a_cached_vocabulary_needs_its_description(tmp_path):
    """One-letter words would be taken for characters."""
    (tmp_path / "text.txt").write_text("a b c b a\n" * 20)
    cache = tmp_path / "cache"
    options = {"level": "word", "batch_size": 2, "length": 3, "cache_dir": cache}

    def load():
        return pipelines.load("text", tmp_path, **options).vocabulary

    made = load()
    (beside,) = cache.glob("*.vocabulary.*.json")
    for damage in (beside.unlink, lambda: beside.write_text("[]")):
        damage()
        again = load()
        assert (again.level, again.tokens) == ("word", made.tokens)
        assert beside.is_file()
