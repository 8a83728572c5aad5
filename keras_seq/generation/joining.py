"""Tokens to text: words with spaces between them, characters as they are, `<eos>` as a line end."""

import codecs
from typing import Any

import tensorflow as tf

WHITE_SPACE = b" \t\n\v\f\r"


class Joiner:
    """Turns tokens into pieces of text, one after the other.

    Args:
        vocabulary: the vocabulary.
        before: the text that the pieces continue. A word that follows a word gets a space in front.
    """

    def __init__(self, vocabulary, before: bytes = b""):
        self._tokens: list[bytes] = vocabulary.tokens
        self._words = vocabulary.level == "word"
        self._names = shown_as(vocabulary)
        self._glue = self._words and before[-1:] not in (b"", *_bytes_of(WHITE_SPACE))
        # A character may be spread over several tokens.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that a token adds."""
        name = self._tokens[token]
        text = self._names.get(name, name)
        if self._words:
            ends = text == b"\n"
            text = text if ends or not self._glue else b" " + text
            self._glue = not ends
        return self._decoder.decode(text)

    def finish(self) -> str:
        """What is left of an unfinished character."""
        return self._decoder.decode(b"", final=True)


def join(vocabulary, tokens, keep, before) -> Any:
    """The same for a batch, in the graph.

    Args:
        vocabulary: the vocabulary.
        tokens: (b, t) tokens, as strings.
        keep: (b, t) booleans; false for padding at the end.
        before: (b,) the text that each row continues.

    Returns:
        (b,) valid UTF-8 text.
    """
    pieces = tokens
    for name, text in shown_as(vocabulary).items():
        pieces = tf.where(tokens == name, text, pieces)
    if vocabulary.level == "word":
        ends = pieces == b"\n"
        last = tf.strings.substr(tf.strings.join([b"\n", before]), -1, 1)
        opens = tf.reduce_any(last[:, None] == tf.constant(_bytes_of(WHITE_SPACE))[None], axis=1)
        opens = tf.concat([opens[:, None], ends], axis=1)[:, : tf.shape(ends)[1]]
        pieces = tf.where(ends | opens, pieces, tf.strings.join([b" ", pieces]))
    text = tf.strings.reduce_join(tf.where(keep, pieces, b""), axis=1)
    return valid_text(text)


def valid_text(text) -> Any:
    """Strings of the same shape, with U+FFFD in place of bytes that are not UTF-8."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


def shown_as(vocabulary) -> dict[bytes, bytes]:
    """Tokens that stand for white space, and it."""
    names: dict[bytes, bytes] = {b"<eos>": b"\n"}
    if getattr(vocabulary, "space", None) is not None:
        names[vocabulary.space] = b" "
    return names


def _bytes_of(text: bytes) -> list[bytes]:
    return [bytes([value]) for value in text]
