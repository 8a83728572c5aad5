"""Shifts in time against naive ones, their gradients by hand against those of the backend."""

import numpy as np
import pytest
import tensorflow as tf
from naive_checks import check_equals_naive

from keras_seq.ops import naive
from keras_seq.ops import time_shift as shift

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("length", [2, 5])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_delay_and_its_gradients(steps, length):
    """Of sequences longer and shorter than the shift, with and without a past."""
    sequence, past = RNG.normal(size=(2, length, 3)), RNG.normal(size=(2, steps, 3))
    check_equals_naive(lambda x: shift.delay(x, steps), lambda x: naive.delay(x, steps), sequence)
    check_equals_naive(
        lambda x, past: shift.delay(x, steps, past),
        lambda x, past: naive.delay(x, steps, past),
        sequence,
        past,
    )
    given, upstream = (tf.constant(sequence), tf.constant(past)), RNG.normal(size=sequence.shape)
    with tf.GradientTape() as tape:
        tape.watch(given)
        delayed = naive.delay(given[0], steps, given[1])
    by_sequence, by_past = tape.gradient(delayed, given, upstream)
    np.testing.assert_array_equal(shift.delay_gradient(tf.constant(upstream), steps), by_sequence)
    if steps:
        by_hand = shift.delay_past_gradient(tf.constant(upstream), steps)
        np.testing.assert_array_equal(by_hand, by_past)


@pytest.mark.parametrize("length", [2, 5])
def test_the_last_steps_and_their_gradients(length):
    steps = 3
    given = [tf.constant(RNG.normal(size=(2, size, 3))) for size in (steps, length)]
    upstream = tf.constant(RNG.normal(size=(2, steps, 3)))
    with tf.GradientTape() as tape:
        tape.watch(given)
        expected = tf.concat(given, axis=1)[:, -steps:]
    np.testing.assert_array_equal(shift.last(given[1], steps, given[0]), expected)
    by_past, by_sequence = tape.gradient(expected, given, upstream)
    d_past, d_sequence = shift.last_gradient(upstream, given[1], steps)
    np.testing.assert_array_equal(tf.zeros_like(by_past) if d_past is None else d_past, by_past)
    np.testing.assert_array_equal(d_sequence, by_sequence)
