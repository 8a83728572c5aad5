"""Which tokens may follow, which end a text, and how repetition is held down."""

from collections.abc import Iterable, Iterator, Sequence, Sized
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
        endings: (s, w) ids: sequences of several tokens that do so, -1 in front of shorter ones. Of
            a row only what was added counts, not its prompt.
        penalty: () the power to which the probability of a token is raised that the row holds
            already, its prompt included.
    """

    banned: Any
    ends: Any
    endings: Any
    penalty: Any

    @classmethod
    def of(cls, size: int, stop=(), ban=(), repetition_penalty: float = 1.0) -> "TokenRules":
        """Rules from ids.

        Args:
            size: size of the vocabulary.
            stop: an id, or ids and sequences of ids.
            ban: an id or ids.
            repetition_penalty: see `TokenRules.penalty`; 1 for none.

        Raises:
            ValueError: for an id outside the vocabulary, a penalty out of range, or where all
                tokens are banned.
        """
        check_penalty(repetition_penalty)
        endings = checked_endings(stop, size)
        single = [ids[0] for ids in endings if len(ids) == 1]
        longer = [ids for ids in endings if len(ids) > 1]
        masks = []
        for ids in (_checked_ids(ban, size, "ban"), single):
            mask = np.zeros(size, bool)
            mask[ids] = True
            masks.append(mask)
        if masks[0].all():
            raise ValueError(f"`ban` must leave a token to choose. Received: all {size} tokens.")
        width = max(map(len, longer), default=1)
        padded = np.full((len(longer), width), -1, np.int32)
        for row, ids in zip(padded, longer, strict=True):
            row[-len(ids) :] = ids
        banned, ends = map(tf.constant, masks)
        penalty = tf.constant(float(repetition_penalty), tf.float32)
        return cls(banned, ends, tf.constant(padded), penalty)

    def apply(self, log_probs, seen) -> Any:
        """Log-probabilities (b, v) under the rules.

        Args:
            log_probs: (b, v) log-probabilities.
            seen: (b, v) booleans: the tokens that each row holds.
        """
        penalised = tf.where(seen, log_probs * tf.cast(self.penalty, log_probs.dtype), log_probs)
        # Minus infinity is the logarithm of zero here: a constant would be in every graph.
        return penalised + tf.math.log(tf.cast(~self.banned, log_probs.dtype))

    @property
    def width(self) -> Any:
        """() tokens of the longest end."""
        return tf.shape(self.endings)[1]

    def end_lengths(self, before) -> Any:
        """How many tokens the end has that a token would complete, were it the next one.

        Args:
            before: (b, w - 1) the last tokens that each row has got, -1 where there are fewer.

        Returns:
            (b, v) tokens of the longest such end, the next one included; 0 for none.
        """
        heads, last = self.endings[:, :-1], self.endings[:, -1]
        fits = tf.reduce_all((heads < 0) | (heads == before[:, None]), axis=2)
        lengths = tf.reduce_sum(tf.cast(self.endings >= 0, tf.int32), axis=1)
        completes = fits[:, :, None] & (last[:, None] == tf.range(tf.size(self.ends)))
        longest = tf.reduce_max(tf.where(completes, lengths[:, None], 0), axis=1)
        return tf.maximum(longest, tf.cast(self.ends, tf.int32))  # of none, the former is negative

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
    tf.TensorSpec((None,), tf.bool),
    tf.TensorSpec((None,), tf.bool),
    tf.TensorSpec((None, None), tf.int32),
    tf.TensorSpec((), tf.float32),
)


def asks_for_rules(stop, ban, repetition_penalty) -> bool:
    """Whether any rule is asked for; without one nothing is computed for them."""
    check_penalty(repetition_penalty)
    none = [
        isinstance(tokens, Sized) and not isinstance(tokens, str | bytes) and not len(tokens)
        for tokens in (stop, ban)
    ]
    return not all(none) or repetition_penalty != 1


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


def until_end(tokens: Iterable[int], endings: Sequence[Sequence[int]]) -> Iterator[int]:
    """Tokens up to the first end, which is left out.

    Each comes as soon as it cannot be a part of one: what may be the beginning of an end is held
    back until that is known, or until there are no more tokens.

    Args:
        tokens: ids, as they are made. No more are asked for once there is an end.
        endings: sequences of ids.
    """
    held: list[int] = []
    for token in tokens:
        held.append(token)
        ended = max((len(end) for end in endings if held[-len(end) :] == list(end)), default=0)
        if ended:
            yield from held[:-ended]
            return
        begun = max(
            (n for end in endings for n in range(1, len(end)) if held[-n:] == list(end[:n])),
            default=0,
        )
        ready = len(held) - begun
        yield from held[:ready]
        del held[:ready]
    yield from held


def stop_ids(vocabulary, stop) -> list[int | list[int]]:
    r"""Ids of what ends a text.

    Args:
        vocabulary: the vocabulary.
        stop: a token as for `token_ids`, a text of several tokens, or a list of such; in it, a
            list of tokens stands for their sequence.

    Returns:
        An id for each token, and a list of ids for each text of several ones. A text is split
        as the data are: in words or characters, `"\n\n"` is two line ends.

    Raises:
        ValueError: for what is no token of the vocabulary, or has none.
    """
    if isinstance(stop, str | bytes | Integral):
        stop = [stop]
    found: list[int | list[int]] = []
    for end in stop:
        parts = _parts(vocabulary, end)
        try:
            ids = token_ids(vocabulary, parts, "stop")
        except ValueError as error:
            if len(parts) == 1:
                raise
            raise ValueError(f"{error} It is a part of {end!r}.") from None
        found.append(ids[0] if len(ids) == 1 else ids)
    return found


def _parts(vocabulary, end) -> list[Any]:
    """The tokens that an end has, by name or id."""
    if not isinstance(end, str | bytes):
        parts = list(end) if isinstance(end, Iterable) else [end]
        if not parts:
            raise ValueError(f"`stop` must hold tokens. Received: {end!r}, which has none.")
        return parts
    text = end.encode() if isinstance(end, str) else end
    written = {*shown_as(vocabulary).values(), b"<eos>"}
    if text in vocabulary.index or text in written:
        return [end]
    if vocabulary.level == "word":
        parts = text.replace(b"\n", b" <eos> ").split()
        return [part.decode("utf-8", "surrogateescape") for part in parts] or [end]
    return list(text.decode("utf-8", "replace")) or [end]


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
        if not isinstance(token, str | bytes):
            raise ValueError(f"`{name}` must hold tokens by name or id. Received: {token!r}.")
        text = token.encode("utf-8", "surrogateescape") if isinstance(token, str) else token
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


def checked_endings(stop, size: int) -> list[list[int]]:
    """The sequences that end a row, each token alone as a sequence of one.

    Args:
        stop: an id, or ids and sequences of ids.
        size: size of the vocabulary.

    Raises:
        ValueError: for what is none.
    """
    if isinstance(stop, str | bytes) or not isinstance(stop, Iterable):
        return [[i] for i in _checked_ids(stop, size, "stop")]
    endings = []
    for end in stop:
        ids = end if isinstance(end, Iterable) and not isinstance(end, str | bytes) else [end]
        endings.append(_checked_ids(ids, size, "stop"))
        if not endings[-1]:
            raise ValueError("`stop` must hold ids and sequences of ids. Received: an empty one.")
    return endings


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
