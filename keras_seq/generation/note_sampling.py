"""Draws of frames of notes."""

from typing import Any

import tensorflow as tf

from keras_seq.generation.sampling import as_tensor, check, check_options, usable_temperature


def sample_notes(logits: Any, temperature: Any = 1.0, top_notes: Any = 0, seed: Any = 0) -> Any:
    """Draws frames: every note sounds or not, independently of the others.

    A note of logit a sounds with probability σ(a / temperature).

    Args:
        logits: (b, notes).
        temperature: not negative; towards 0 a note sounds where its logit is positive.
        top_notes: only the so many likeliest notes of a frame may sound; 0 for all. Of equal ones
            the first are kept.
        seed: an integer, or a pair of integers.

    Output shape:
        (b, notes) zeros and ones in float32.

    Raises:
        ValueError: for a number out of range.
        tf.errors.InvalidArgumentError: for logits that are NaN.

    Example:

    >>> keras_seq.generation.sample_notes([[9.0, 8.0, -9.0]], temperature=0.0).numpy()
    array([[1., 1., 0.]], dtype=float32)
    >>> keras_seq.generation.sample_notes([[9.0, 8.0, -9.0]], top_notes=1).numpy()
    array([[1., 0., 0.]], dtype=float32)
    """
    check_note_options(temperature, top_notes)
    logits = tf.cast(logits, tf.float32)
    sane = tf.debugging.Assert(
        tf.reduce_all(tf.equal(logits, logits)),
        ["`logits` must not be NaN: did training diverge?"],
    )
    with tf.control_dependencies([] if sane is None else [sane]):
        logits = tf.identity(logits)
    cold, temperature = usable_temperature(as_tensor(temperature, tf.float32))
    chance = tf.sigmoid(logits / temperature)
    pair = tf.cast(seed, tf.int32)
    pair = tf.stack([pair, 0]) if pair.shape.rank == 0 else pair
    uniform = tf.random.stateless_uniform(tf.shape(logits), pair, alg="philox")
    sounds = tf.where(cold, logits > 0, uniform < chance)
    count = tf.shape(logits)[1]
    top_notes = as_tensor(top_notes, tf.int32)
    kept = tf.where(top_notes > 0, tf.minimum(top_notes, count), count)
    order = tf.argsort(logits, axis=1, direction="DESCENDING", stable=True)
    rank = tf.argsort(order, axis=1)
    return tf.cast(sounds & (rank < kept), tf.float32)


def check_note_options(temperature, top_notes) -> None:
    """Refuses values out of range.

    Raises:
        ValueError: for a number out of range.
    """
    check_options(temperature, 0, 1.0)
    check(
        "top_notes",
        top_notes,
        lambda x: x >= 0,
        "must be an integer, 0 or more",
        "0 lets all notes be drawn",
        integer=True,
    )
