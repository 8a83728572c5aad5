"""Many sequences in one graph."""

from typing import Any

import keras
import tensorflow as tf

from keras_seq.generation.sampling import check_options, sample
from keras_seq.generation.stepping import Stepper, stepper


def generate_ids(
    model: keras.Model,
    ids,
    lengths=None,
    length: Any = 100,
    temperature: Any = 1.0,
    top_k: Any = 0,
    top_p: Any = 1.0,
    seed: Any = 0,
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

    Output shape:
        (b, n) ids in int32, n the largest `length`; -1 after the end of a row that asked for fewer.

    Raises:
        ValueError: for a number out of range.
        tf.errors.InvalidArgumentError: for a tensor that holds a value out of range.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=20, embedding_dim=8, core=core)
    >>> keras_seq.generation.generate_ids(model, [[1, 2], [3, 4]], length=5).shape
    TensorShape([2, 5])
    """
    check_options(temperature, top_k, top_p)
    if not tf.is_tensor(length) and length < 0:
        raise ValueError(f"`length` must be 0 or more. Received: length={length!r}.")
    ids = tf.cast(ids, tf.int32)
    if ids.shape.rank != 2:
        raise ValueError(
            "`ids` must be of shape (batch, time). "
            f"Received: ids.shape={ids.shape}. Pad shorter rows and give their `lengths`."
        )
    steps = stepper(model)
    if steps.batched is None:
        kinds = (tf.int32, tf.int32, tf.float32, tf.int32, tf.float32, tf.int32)
        steps.batched = tf.function(
            lambda *arguments: generation_loop(steps, *arguments),
            input_signature=[
                tf.TensorSpec((None, None), tf.int32),
                *(tf.TensorSpec((None,), kind) for kind in kinds),
            ],
            autograph=False,
        )
    batch, width = tf.shape(ids)[0], tf.shape(ids)[1]
    rows = [
        tf.broadcast_to(tf.cast(value, dtype), [batch])
        for value, dtype in (
            (width if lengths is None else lengths, tf.int32),
            (length, tf.int32),
            (temperature, tf.float32),
            (top_k, tf.int32),
            (top_p, tf.float32),
        )
    ]
    return steps.batched(ids, *rows, row_seeds(seed, batch))


def row_seeds(seed, batch) -> Any:
    """(b,) seeds: given ones as they are; one integer counts up with the rows."""
    seed = tf.cast(seed, tf.int32)
    step = tf.cast(tf.equal(tf.rank(seed), 0), tf.int32)
    return tf.broadcast_to(seed, [batch]) + step * tf.range(batch)


def generation_loop(steps: Stepper, ids, lengths, length, temperature, top_k, top_p, seed):
    """The graph of `generate_ids`. All but `ids` (b, t) are of shape (b,).

    Returns:
        (b, n) ids, -1 after the end of a row.
    """
    width = tf.shape(ids)[1]
    checks = [
        _assertion((lengths >= 1) & (lengths <= width), "`lengths` must be from 1 to t.", lengths),
        _assertion(length >= 0, "`length` must be 0 or more.", length),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        common = tf.reduce_min(lengths)
        added = tf.reduce_max(length)
        total = tf.reduce_max(lengths) - common + added

    def token(index, values):
        """Token `common + index` of each row: given, or drawn."""
        position = common + index
        pairs = tf.stack([seed, position - lengths], axis=1)
        drawn = sample(steps.last_log_probs(values), temperature, top_k, top_p, pairs)
        given = tf.gather(ids, tf.minimum(position, width - 1), axis=1)
        return tf.where(position < lengths, given, drawn)

    def body(index, last, tokens, *state):
        values, state = steps.advance(last[:, None], *state)
        last = token(index, values)
        return (index + 1, last, tokens.write(index, last), *state)

    # The first pass is not skipped for `total = 0`: its token is cut off below.
    values, state = steps.advance(ids[:, :common], *steps.initial_state(tf.shape(ids)[0]))
    first = token(tf.constant(0), values)
    tokens = tf.TensorArray(
        tf.int32, tf.maximum(total, 1), element_shape=(ids.shape[0],), clear_after_read=False
    ).write(0, first)
    tokens = tf.while_loop(
        lambda index, *_: index < total, body, (tf.constant(1), first, tokens, *state)
    )[2]
    made = tf.transpose(tokens.stack())

    place = tf.range(added)[None]
    inside = place < length[:, None]
    source = (lengths - common)[:, None] + place
    made = tf.gather(made, tf.where(inside, source, 0), batch_dims=1)
    return tf.where(inside, made, -1)


def _assertion(condition, message: str, value):
    return tf.debugging.Assert(tf.reduce_all(condition), [message, value])
