"""Which tokens may follow, which end a text, and how repetition is held down."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.generation.joining import shown_as
from keras_seq.generation.sampling import check

TINIEST_PENALTY, LARGEST_PENALTY = 1e-3, 1e3


class TokenRules(NamedTuple):
    """Rules of a vocabulary of v tokens, as tensors, for every way of generating.

    Attributes:
        banned: (v,) booleans: tokens that never follow.
        ends: (v,) booleans: tokens that end a row and are no part of it.
        penalty: () the power to which the probability of a token is raised that the row holds
            already, its prompt included.
    """

    banned: Any
    ends: Any
    penalty: Any

    @classmethod
    def of(cls, size: int, stop=(), ban=(), repetition_penalty: float = 1.0) -> "TokenRules":
        """Rules from ids.

        Args:
            size: size of the vocabulary.
            stop: an id or ids.
            ban: an id or ids.
            repetition_penalty: see `TokenRules.penalty`; 1 for none.

        Raises:
            ValueError: for an id outside the vocabulary, a penalty out of range, or where all
                tokens are banned.
        """
        check_penalty(repetition_penalty)
        masks = []
        for name, ids in (("ban", ban), ("stop", stop)):
            mask = np.zeros(size, bool)
            mask[_checked_ids(ids, size, name)] = True
            masks.append(mask)
        if masks[0].all():
            raise ValueError(f"`ban` must leave a token to choose. Received: all {size} tokens.")
        banned, ends = map(tf.constant, masks)
        return cls(banned, ends, tf.constant(float(repetition_penalty), tf.float32))

    def apply(self, log_probs, seen) -> Any:
        """Log-probabilities (b, v) under the rules.

        Args:
            log_probs: (b, v) log-probabilities.
            seen: (b, v) booleans: the tokens that each row holds.
        """
        penalised = tf.where(seen, log_probs * tf.cast(self.penalty, log_probs.dtype), log_probs)
        # Minus infinity is the logarithm of zero here: a constant would be in every graph.
        return penalised + tf.math.log(tf.cast(~self.banned, log_probs.dtype))

    def seen_in(self, ids, lengths) -> Any:
        """(b, v) booleans: the tokens among the first `lengths` (b,) of ids (b, t)."""
        batch, width = tf.unstack(tf.shape(ids))
        held = tf.range(width) < lengths[:, None]
        rows = tf.broadcast_to(tf.range(batch)[:, None], [batch, width])
        places = tf.stack([rows, tf.where(held, ids, 0)], axis=2)
        shape = [batch, tf.size(self.banned)]
        return tf.scatter_nd(places, tf.cast(held, tf.int32), shape) > 0

    def seen_with(self, seen, token) -> Any:
        """`seen` with one more token (b,) of each row."""
        return seen | (tf.range(tf.size(self.banned)) == token[:, None])


RULE_SPECS = TokenRules(
    tf.TensorSpec((None,), tf.bool), tf.TensorSpec((None,), tf.bool), tf.TensorSpec((), tf.float32)
)


def asks_for_rules(stop, ban, repetition_penalty) -> bool:
    """Whether any rule is asked for; without one nothing is computed for them."""
    check_penalty(repetition_penalty)
    return bool(np.size(stop) or np.size(ban) or repetition_penalty != 1)


def check_penalty(repetition_penalty) -> None:
    """Refuses a penalty out of range.

    Raises:
        ValueError: for what is no number from 0.001 to 1000.
    """
    check(
        "repetition_penalty",
        repetition_penalty,
        lambda x: TINIEST_PENALTY <= x <= LARGEST_PENALTY,
        f"must be a number from {TINIEST_PENALTY:g} to {LARGEST_PENALTY:g}",
        "1 for none, above 1 for less repetition",
    )


def token_ids(vocabulary, tokens, name: str) -> list[int]:
    r"""Ids of tokens that are given by name.

    Args:
        vocabulary: the vocabulary.
        tokens: a token or tokens: `str`, `bytes`, or ids. `"\n"` and `" "` stand for the tokens
            that are shown so, and `"<eos>"` for a line end.
        name: the argument, for messages.

    Raises:
        ValueError: for what is no token of the vocabulary.
    """
    if isinstance(tokens, str | bytes | Integral):
        tokens = [tokens]
    written = {text: token for token, text in shown_as(vocabulary).items()}
    ids = []
    for token in tokens:
        if isinstance(token, Integral):
            ids.append(token)
            continue
        text = token.encode() if isinstance(token, str) else bytes(token)
        found = vocabulary.index.get(text, vocabulary.index.get(written.get(text, b"")))
        if found is None and text == b"<eos>":
            found = vocabulary.eos_id  # of characters, that of a line end
        if found is None:
            raise ValueError(
                f"`{name}` must hold tokens of the vocabulary. Received: {token!r}, which is none "
                f"of its {vocabulary.size} {vocabulary.level}s."
            )
        ids.append(found)
    return _checked_ids(ids, vocabulary.size, name)


def _checked_ids(ids, size: int, name: str) -> list[int]:
    listed = [ids] if isinstance(ids, Integral) else ids
    if isinstance(listed, str | bytes) or not isinstance(listed, Iterable):
        raise ValueError(f"`{name}` must be an id or ids. Received: {name}={ids!r}.")
    listed = list(listed)
    for i in listed:
        if isinstance(i, bool) or not isinstance(i, Integral) or not 0 <= int(i) < size:
            raise ValueError(
                f"`{name}` must hold ids from 0 to {size - 1}, the vocabulary's. Received: {i!r}."
            )
    return [int(i) for i in listed]
