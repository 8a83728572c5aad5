"""`Vocabulary`: tokens to ids and back, in Python and in a TensorFlow graph."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq import _files
from keras_seq.pipelines.scratch import scratch_folder
from keras_seq.pipelines.vocabulary_file import (
    ESCAPES,
    LEVELS,
    description,
    description_file,
    file_content,
    read_description,
    read_tokens,
)

UNK = b"<unk>"
EOS = b"<eos>"


def _bytes(token: str | bytes) -> bytes:
    return token.encode() if isinstance(token, str) else bytes(token)


class Vocabulary(tf.Module):
    """An ordered set of tokens. Tokens are bytes; the position of a token is its id.

    Words are what lies between ASCII white space, as bytes, so that no Unicode rule has a say.
    Characters are Unicode code points of UTF-8 text. A line end is the token `<eos>`
    where the vocabulary has one, else (words) nothing or (characters) the character itself.

    Tokens that are not in the vocabulary get `oov_id`: the id of `<unk>` where there is one, else
    of `<eos>`, else 0. `encode` and `decode` are core TensorFlow ops and work in a graph; the table
    is built from a text file, which a SavedModel copies into its `assets` when the vocabulary
    (or its `table`) is tracked.

    Args:
        tokens: the tokens, `str` or `bytes`, all different.
        level: `"word"` or `"character"`.
        space: a token that stands for a space (characters): PTB writes `_`.

    Raises:
        ValueError: for duplicate or empty tokens, or an unknown level.

    Example:

    >>> from keras_seq.pipelines import Vocabulary
    >>> vocabulary = Vocabulary(["the", "<eos>", "<unk>", "cat"])
    >>> vocabulary.encode("the cat sat").numpy()
    array([0, 3, 2], dtype=int32)
    >>> vocabulary.decode([0, 3]).numpy()
    b'the cat'
    """

    def __init__(
        self,
        tokens: Iterable[str | bytes],
        level: str = "word",
        space: str | bytes | None = None,
    ):
        super().__init__(name="vocabulary")
        if level not in LEVELS:
            raise ValueError(f"`level` must be one of {LEVELS}. Received: level={level!r}.")
        listed = [_bytes(token) for token in tokens]
        index = {token: i for i, token in enumerate(listed)}
        if not listed or b"" in index:
            raise ValueError("A vocabulary needs at least one token, and none may be empty.")
        if len(index) != len(listed):
            seen: set[bytes] = set()
            double = next(t for t in listed if t in seen or seen.add(t))
            raise ValueError(f"Tokens must differ. Received twice: {double!r}.")
        self.level = level
        self.space = None if space is None else _bytes(space)
        if self.space is not None and (level != "character" or self.space not in index):
            raise ValueError(
                "`space` must be a token of a character vocabulary. "
                f"Received: space={space!r}, level={level!r}."
            )
        # One object, so that tf.Module does not wrap (and slow down) 270,000 list elements.
        self._data = _Tokens(listed, index)
        self._built: dict[str, Any] | None = None

    # Building, saving, loading

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[bytes, int],
        level: str = "word",
        *,
        max_size: int | None = None,
        min_count: int = 1,
        specials: Iterable[str | bytes] = (),
        order: str = "frequency",
        space: str | bytes | None = None,
    ) -> "Vocabulary":
        """Builds a vocabulary from token counts.

        Args:
            counts: token to number of occurrences, in order of first appearance.
            level: see the class.
            max_size: largest size; the rarest tokens go. `<unk>` is added where any go.
            min_count: tokens seen less often go. `<unk>` is added where any go.
            specials: tokens that are in the vocabulary whatever their count.
            order: `"frequency"` (descending, ties by bytes) or `"appearance"` (the order in which
                the original programs number tokens).
            space: see the class.
        """
        if order not in ("frequency", "appearance"):
            raise ValueError(
                f"`order` must be 'frequency' or 'appearance'. Received: order={order!r}."
            )
        fixed: dict[bytes, None] = dict.fromkeys(_bytes(token) for token in specials)
        kept = {t: n for t, n in counts.items() if n >= min_count or t in fixed or t == UNK}
        for token in fixed:
            kept.setdefault(token, 0)
        if len(kept) < len(counts.keys() | fixed.keys()):
            kept.setdefault(UNK, 0)
            fixed.setdefault(UNK)
        if max_size is not None and len(kept) > max_size:
            kept.setdefault(UNK, 0)
            fixed.setdefault(UNK)
            ranked = sorted(kept, key=lambda t: (t not in fixed, -kept[t], t))[:max_size]
            if len(fixed) > max_size:
                raise ValueError(
                    f"`max_size` must be at least {len(fixed)}, the number of special tokens. "
                    f"Received: max_size={max_size}."
                )
            chosen = set(ranked)
            kept = {t: n for t, n in kept.items() if t in chosen}
        if UNK in fixed or UNK in kept:
            kept[UNK] += sum(n for t, n in counts.items() if t not in kept)
        tokens = list(kept)
        if order == "frequency":
            tokens.sort(key=lambda t: (-kept[t], t))
        return cls(tokens, level, space)

    def save(self, path: str | Path) -> None:
        r"""Writes one token a line to `path`, and the level to the `.json` file beside it.

        Backslash, line end and carriage return are written as `\\`, `\n` and `\r`; all other
        bytes as they are.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The description comes first: tokens without one would be read as of a guessed level.
        _files.write_bytes(description_file(path), description(self.tokens, self.level, self.space))
        _files.write_bytes(path, file_content(self.tokens))

    @classmethod
    def load(
        cls, path: str | Path, level: str | None = None, space: str | bytes | None = None
    ) -> "Vocabulary":
        """Reads what `save` wrote, or any file of one token a line.

        Args:
            path: the text file.
            level, space: used where there is no `.json` file beside it that tells. `level` then
                defaults to `"character"` where every token but `<unk>` and `<eos>` is one
                character, else to `"word"`.

        Raises:
            DataError: for a file that is missing, cut short or changed since it was saved, or whose
                lines are no tokens.
        """
        path = Path(path)
        described = read_description(path)
        if described is not None:
            level, space = described
        tokens = read_tokens(path, foreign=described is None)
        if level is None:
            plain = (t.decode("utf-8", "replace") for t in tokens if t not in (UNK, EOS))
            level = "character" if all(len(token) == 1 for token in plain) else "word"
        return cls(tokens, level, space)

    # Facts

    @property
    def tokens(self) -> list[bytes]:
        """The tokens, by id."""
        return self._data.tokens

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self._data.tokens)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, token: str | bytes) -> bool:
        return _bytes(token) in self._data.index

    def id_of(self, token: str | bytes) -> int:
        """Id of a token, `oov_id` for one that is not in the vocabulary."""
        return self._data.index.get(_bytes(token), self.oov_id)

    @property
    def index(self) -> Mapping[bytes, int]:
        """Token to id."""
        return self._data.index

    @property
    def unk_id(self) -> int | None:
        """Id of `<unk>`, `None` where there is none."""
        return self._data.index.get(UNK)

    @property
    def eos_id(self) -> int | None:
        """Id of the line end: of `<eos>`, or of the character `"\\n"`, else `None`."""
        return self._data.index.get(EOS, self._data.index.get(b"\n"))

    @property
    def oov_id(self) -> int:
        """Id that unknown tokens get."""
        unk, eos = self.unk_id, self.eos_id
        return unk if unk is not None else eos if eos is not None else 0

    # In the graph

    @property
    def table(self) -> tf.lookup.StaticHashTable:
        """Lookup table from escaped tokens to ids (int64), built from a text file."""
        return self._graph()["table"]

    def _graph(self) -> dict[str, Any]:
        if self._built is None:
            path = scratch_folder() / "vocabulary.txt"
            path.write_bytes(file_content(self.tokens))
            with tf.init_scope():
                initializer = tf.lookup.TextFileInitializer(
                    str(path),
                    key_dtype=tf.string,
                    key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                    value_dtype=tf.int64,
                    value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                    vocab_size=self.size,
                )
                self._built = {"table": tf.lookup.StaticHashTable(initializer, self.oov_id)}
        return self._built

    def split(self, text) -> Any:
        """Splits strings into tokens, in the graph.

        Args:
            text: string tensor, `()` or `(b,)`.

        Returns:
            String tensor `(t,)`, or ragged `(b, t)`.
        """
        text = tf.convert_to_tensor(text)
        if self.level == "word":
            if EOS in self:
                text = tf.strings.regex_replace(text, "\n", " <eos> ")
            return tf.strings.split(text)
        tokens = tf.strings.unicode_split(text, "UTF-8", errors="replace")
        aliases = {b"\n": EOS} if EOS in self else {}
        if self.space is not None:
            aliases[b" "] = self.space
        return _replace(tokens, aliases)

    def encode(self, text) -> Any:
        """Strings to ids, in the graph.

        Args:
            text: string tensor, `()` or `(b,)`.

        Returns:
            int32 ids `(t,)`, or ragged `(b, t)`. Unknown tokens get `oov_id`.
        """
        return self.lookup(self.split(text))

    def lookup(self, tokens) -> Any:
        """Tokens to ids of the same shape (int32), in the graph."""
        used = {c for c in ESCAPES if any(c in token for token in self._data.escaped)}
        if self.level == "character":
            tokens = _replace(tokens, {c: ESCAPES[c] for c in used})
        elif used:  # a word holds no line end; a backslash it may
            tokens = _map_values(lambda v: tf.strings.regex_replace(v, r"\\", r"\\\\"), tokens)
        return tf.cast(self.table.lookup(tokens), tf.int32)

    def decode(self, ids) -> tf.Tensor:
        """Ids to strings, in the graph.

        Words are joined by spaces, characters as they are; `<eos>` becomes a line end.

        Args:
            ids: integer tensor `(..., t)`.

        Returns:
            String tensor `(...)`.
        """
        tokens = _replace(self.to_tokens(ids), {EOS: b"\n"})
        if self.level == "word":
            text = tf.strings.reduce_join(tokens, axis=-1, separator=" ")
            return tf.strings.regex_replace(text, " ?\n ?", "\n")
        if self.space is not None:
            tokens = _replace(tokens, {self.space: b" "})
        return tf.strings.reduce_join(tokens, axis=-1)

    def to_tokens(self, ids) -> Any:
        """Ids to tokens of the same shape, in the graph."""
        with tf.device("CPU:0"):
            return tf.gather(tf.constant(self._data.array), ids)

    # In Python

    def encode_tokens(self, tokens: Iterable[bytes]) -> np.ndarray:
        """Tokens to ids, -1 for unknown ones (Python; the graph has `encode`)."""
        get = self._data.index.get
        return np.fromiter(map(get, tokens, itertools.repeat(-1)), np.int64)

    def __reduce__(self):
        return type(self), (self.tokens, self.level, self.space)  # the table is made anew

    def __repr__(self) -> str:
        return f"Vocabulary(size={self.size}, level={self.level!r})"


class _Tokens:
    """The tokens and their index, opaque to TensorFlow's tracking."""

    def __init__(self, tokens: list[bytes], index: dict[bytes, int]):
        self.tokens = tokens
        self.index = index
        self.escaped = [t for t in tokens if b"\\" in t or b"\n" in t or b"\r" in t]
        self.array = np.array(tokens, dtype=object)


def _map_values(function, tokens):
    if isinstance(tokens, tf.RaggedTensor):
        return tf.ragged.map_flat_values(function, tokens)
    return function(tokens)


def _replace(tokens, mapping: Mapping[bytes, bytes]):
    """Replaces whole tokens."""

    def replace(values):
        result = values
        for old, new in mapping.items():
            result = tf.where(tf.equal(values, old), new, result)
        return result

    return _map_values(replace, tokens)
