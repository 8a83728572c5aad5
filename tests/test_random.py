"""Dropout masks."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq._random import DrawnSeed, bernoulli_mask


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1e-3])
def test_values_and_frequency(rate):
    count = 200_001  # no multiple of the four values that a random word gives
    mask = np.asarray(bernoulli_mask((count,), rate, 3))
    keep = 1 - np.round(rate * 2**16) / 2**16  # what 16 bits can say
    np.testing.assert_allclose(np.unique(mask), [0, 1 / keep] if rate else [1], rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate) / count)
    assert abs(np.mean(mask == 0) - rate) <= 5 * spread + 2**-17
    # Neighbours, and values of the same place in two words, are independent.
    dropped = (mask == 0).astype("float64")
    for step in (1, 2, 3, 4):
        both = np.mean(dropped[step:] * dropped[:-step])
        assert abs(both - rate**2) <= 5 * (rate + 1e-9) / np.sqrt(count) + 2**-16


def test_seeds():
    first, again, other = (np.asarray(bernoulli_mask((40, 50), 0.5, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert 0.3 < np.mean(first == other) < 0.7


@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_shapes_and_xla_give_the_same_mask(jit_compile):
    @tf.function(
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([None, 7]), tf.TensorSpec([2], "int32")],
    )
    def draw(x, seed):
        return bernoulli_mask((tf.shape(x)[0], 7), 0.3, DrawnSeed(seed), x.dtype)

    mask = draw(tf.zeros((9, 7)), tf.constant([5, 0]))
    np.testing.assert_allclose(mask, bernoulli_mask((9, 7), 0.3, 5), rtol=1e-6)


def test_types():
    assert bernoulli_mask((3, 4), 0.5, 1, "bfloat16").dtype == tf.bfloat16
    assert not np.asarray(bernoulli_mask((1000,), 1 - 1e-7, 1)).all()  # one in 65,536 is kept
