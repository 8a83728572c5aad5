"""Recurrences with written-out gradients against naive loops."""

import numpy as np
import pytest
import tensorflow as tf
from naive_checks import check_equals_naive

from keras_seq.ops import naive
from keras_seq.ops.gated_recurrence import gated_recurrence
from keras_seq.ops.lstm import Gates, lstm_step, lstm_step_gradient
from keras_seq.ops.windowed_cells import BLOCKS
from keras_seq.ops.windowed_recurrence import windowed_recurrence

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("lead", "mode"), [((), "eager"), ((), "graph"), ((2,), "xla")])
def test_gated_recurrence(lead, mode):
    shapes = ((5, *lead, 3, 16), (*lead, 4, 16), (*lead, 3, 4), (*lead, 3, 4))
    tensors = [RNG.normal(size=shape) for shape in shapes]
    check_equals_naive(gated_recurrence, naive.gated_recurrence, *tensors, mode=mode)


@pytest.mark.parametrize(("window", "mode"), [(1, "eager"), (3, "graph")])
@pytest.mark.parametrize("cell", BLOCKS)
def test_windowed_recurrence(cell, window, mode):
    channels, length = BLOCKS[cell] * 4, 5
    tensors = [RNG.normal(size=(2, window - 1 + length, channels)), RNG.normal(size=(4, channels))]
    if cell == "gru":
        tensors.append(RNG.normal(size=4))

    def run(function, written_gradient):
        def of(projected, kernel, bias=None):
            return function(cell, projected, kernel, bias, window, length, written_gradient)

        return of

    plain = run(naive.windowed_recurrence, False)
    for written_gradient in (True, False):
        fast = run(windowed_recurrence, written_gradient)
        check_equals_naive(fast, plain, *tensors, mode=mode)


@pytest.mark.parametrize("with_cell", [True, False])
def test_gradient_of_an_lstm_step(with_cell):
    """The gradient by hand, as a function, is what differentiation gives."""
    pre = [tf.constant(RNG.normal(size=(2, 3))) for _ in range(4)]
    cell = tf.constant(RNG.normal(size=(2, 3))) if with_cell else None
    d_hidden, d_cell = (tf.constant(RNG.normal(size=(2, 3))) for _ in range(2))
    sources = [*pre, *([cell] if with_cell else [])]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        h, c, kept = lstm_step(Gates(*pre), cell)
        loss = tf.reduce_sum(h * d_hidden) + tf.reduce_sum(c * d_cell)
    expected = tape.gradient(loss, sources, unconnected_gradients="zero")
    d_pre, d_before = lstm_step_gradient(kept, d_hidden, d_cell)
    got = [*d_pre, *([] if d_before is None else [d_before])]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
