"""Many sequences in one graph."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_seq.generation.sampling import (
    as_tensor,
    check_length_and_seed,
    check_options,
    sample,
)
from keras_seq.generation.stepping import Stepper, stepper
from keras_seq.generation.token_rules import RULE_SPECS, TokenRules, asks_for_rules


def generate_ids(
    model: keras.Model,
    ids: Any,
    lengths: Any = None,
    length: Any = 100,
    temperature: Any = 1.0,
    top_k: Any = 0,
    top_p: Any = 1.0,
    seed: Any = 0,
    stop: Any = (),
    ban: Any = (),
    repetition_penalty: float = 1.0,
) -> Any:
    """Continues a batch of sequences in one graph (`tf.while_loop`), on the exact state.

    What the sequences have in common in length is read in one pass, and each further token is one
    step. A row's result depends on nothing in the other rows: with one integer `seed`, row i draws
    what a batch of that row alone draws with `seed + i`.

    `length`, `temperature`, `top_k`, `top_p` and `seed` may be numbers, or tensors of shape `()` or
    `(b,)`.

    Args:
        model: a model of the state contract, see `Stepper`.
        ids: (b, t) token ids with t ≥ 1, padded at the end.
        lengths: (b,) number of tokens of each row that count, from 1 to t; `None` for t.
        length: number of tokens to add.
        temperature: see `sample`.
        top_k: see `sample`.
        top_p: see `sample`.
        seed: an integer, or one for each row.
        stop: ids that end a row, and sequences of ids that do: `[1, [2, 3]]`. They are no part of
            it, and must be among what is added.
        ban: ids that never follow.
        repetition_penalty: the power to which the probability of a token is raised that the row
            holds already, `ids` included. Above 1 for less repetition.

    Output shape:
        (b, n) ids in int32, n the largest `length`; -1 after the end of a row that stopped or asked
        for fewer.

    Raises:
        ValueError: for a number out of range, and ids of `stop` or `ban` outside the vocabulary.
        tf.errors.InvalidArgumentError: for a tensor that holds a value out of range.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=20, embedding_dim=8, core=core)
    >>> keras_seq.generation.generate_ids(model, [[1, 2], [3, 4]], length=5).shape
    TensorShape([2, 5])
    """
    check_options(temperature, top_k, top_p)
    check_length_and_seed(length, seed, tensors=True)
    ids, lengths = padded_rows(ids, lengths)
    steps = stepper(model)
    rules = ()
    if asks_for_rules(stop, ban, repetition_penalty):
        rules = (TokenRules.of(steps.vocabulary_size, stop, ban, repetition_penalty),)
    kinds = (tf.int32, tf.int32, tf.float32, tf.int32, tf.float32, tf.int32)
    loop = steps.compiled(
        ("batched", len(rules)),
        lambda *arguments: generation_loop(steps, *arguments),
        [
            tf.TensorSpec((None, None), tf.int32),
            *(tf.TensorSpec((None,), kind) for kind in kinds),
            *(RULE_SPECS for _ in rules),
        ],
    )
    batch = tf.shape(ids)[0]
    rows = [
        tf.broadcast_to(as_tensor(value, dtype), [batch])
        for value, dtype in (
            (lengths, tf.int32),
            (length, tf.int32),
            (temperature, tf.float32),
            (top_k, tf.int32),
            (top_p, tf.float32),
        )
    ]
    return loop(ids, *rows, row_seeds(seed, batch), *rules)


def padded_rows(ids, lengths) -> Any:
    """(b, t) ids in int32, and the (b,) lengths of their rows.

    Raises:
        ValueError: for ids of another rank.
    """
    ids = tf.cast(ids, tf.int32)
    if ids.shape.rank != 2:
        raise ValueError(
            "`ids` must be of shape (batch, time). "
            f"Received: ids.shape={ids.shape}. Pad shorter rows and give their `lengths`."
        )
    batch, width = tf.unstack(tf.shape(ids))
    lengths = width if lengths is None else tf.cast(lengths, tf.int32)
    return ids, tf.broadcast_to(lengths, [batch])


def row_seeds(seed, batch) -> Any:
    """(b,) seeds: given ones as they are; one integer counts up with the rows."""
    seed = tf.cast(seed, tf.int32)
    step = tf.cast(tf.equal(tf.rank(seed), 0), tf.int32)
    return tf.broadcast_to(seed, [batch]) + step * tf.range(batch)


def generation_loop(
    steps: Stepper,
    ids,
    lengths,
    length,
    temperature,
    top_k,
    top_p,
    seed,
    rules: TokenRules | None = None,
):
    """The graph of `generate_ids`. All but `ids` (b, t) and the rules are of shape (b,).

    Returns:
        (b, n) ids, -1 after the end of a row.
    """
    start = Start.of(ids, lengths, length)
    total = tf.reduce_max(lengths) - start.common + start.added

    def token(index, values, held):
        """Token `common + index` of each row, given or drawn; what the rows hold with it."""
        position = start.common + index
        place = position - lengths  # of the token among a row's own
        pairs = tf.stack([seed, position - lengths], axis=1)
        log_probs = steps.last_log_probs(values)
        if rules is not None:
            log_probs = rules.apply(log_probs, held["seen"])
        drawn = sample(log_probs, temperature, top_k, top_p, pairs)
        own = place >= 0
        chosen = tf.where(own, drawn, start.given(position))
        if rules is not None:
            ended = tf.gather(rules.end_lengths(held["last"]), chosen, batch_dims=1)
            ends = own & (place < length) & (ended > 0) & ~held["ended"]
            last = tf.concat([held["last"], tf.where(own, chosen, -1)[:, None]], axis=1)
            held = {
                "seen": rules.seen_with(held["seen"], chosen),
                "ended": held["ended"] | ends,
                "last": last[:, 1:],
                "kept": tf.where(ends, place + 1 - ended, held["kept"]),
            }
        return chosen, held

    def written(chosen, held):
        return chosen if rules is None else tf.where(held["ended"], -1, chosen)

    def wanted(index, last, tokens, held, *_):
        more = index < total
        return more if rules is None else more & ~tf.reduce_all(held["ended"])

    def body(index, last, tokens, held, *state):
        values, state = steps.advance(last[:, None], *state)
        last, held = token(index, values, held)
        return (index + 1, last, tokens.write(index, written(last, held)), held, *state)

    held = {}
    if rules is not None:
        held = {
            "seen": rules.seen_in(ids, lengths),
            "ended": tf.zeros_like(lengths, tf.bool),
            "last": tf.fill([tf.size(lengths), rules.width - 1], -1),  # of a row's own tokens
            "kept": length,  # tokens of a row
        }
    # The first pass is not skipped for `total = 0`: its token is cut off below.
    values, state = start.read(steps)
    first, held = token(tf.constant(0), values, held)
    tokens = tf.TensorArray(
        tf.int32, tf.maximum(total, 1), element_shape=(ids.shape[0],), clear_after_read=False
    ).write(0, written(first, held))
    count, _, tokens, held, *_ = tf.while_loop(
        wanted, body, (tf.constant(1), first, tokens, held, *state)
    )
    made = tf.transpose(tokens.gather(tf.range(count)))

    place = tf.range(start.added)[None]
    source = (lengths - start.common)[:, None] + place
    kept = length if rules is None else held["kept"]
    inside = (place < kept[:, None]) & (source < count)
    made = tf.gather(made, tf.where(inside, source, 0), batch_dims=1)
    return tf.where(inside, made, -1)


class Start(NamedTuple):
    """Where a batch of rows begins: what they have in common in length is read in one pass.

    Attributes:
        ids: (b, t) the given ids, padded.
        common: length of the shortest row.
        added: the most tokens that a row asks for.
    """

    ids: Any
    common: Any
    added: Any

    @classmethod
    def of(cls, ids, lengths, length) -> "Start":
        """From ids (b, t), their lengths (b,), and the number (b,) of tokens to add."""
        checks = [
            _assertion(
                (lengths >= 1) & (lengths <= tf.shape(ids)[1]),
                "`lengths` must be from 1 to t.",
                lengths,
            ),
            _assertion(length >= 0, "`length` must be 0 or more.", length),
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            return cls(ids, tf.reduce_min(lengths), tf.reduce_max(length))

    def read(self, steps: Stepper):
        """What the model makes of the common part, and its state."""
        return steps.advance(
            self.ids[:, : self.common], *steps.initial_state(tf.shape(self.ids)[0])
        )

    def given(self, position):
        """(b,) ids at a position; any where a row has none there."""
        return tf.gather(self.ids, tf.minimum(position, tf.shape(self.ids)[1] - 1), axis=1)


def _assertion(condition, message: str, value):
    return tf.debugging.Assert(tf.reduce_all(condition), [message, value])
