"""Weight normalisation."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.layers import weight_normalize
from keras_seq.ops.weight_norm import direction_norm


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_each_output_channel_has_the_length_of_its_gain(shape):
    rng = np.random.default_rng(0)
    direction, gain = rng.normal(size=shape), rng.uniform(0.5, 2, size=4)
    kernel = np.asarray(weight_normalize(direction, gain))
    np.testing.assert_allclose(direction_norm(kernel), gain, rtol=1e-6)
    scaled = np.asarray(weight_normalize(direction * 7, gain))
    np.testing.assert_allclose(scaled, kernel, rtol=1e-6)
    same = weight_normalize(direction, direction_norm(direction))
    np.testing.assert_allclose(same, direction, rtol=1e-6)


def test_the_gradient_is_orthogonal_to_the_direction():
    rng = np.random.default_rng(0)
    direction = tf.constant(rng.normal(size=(2, 3, 4)))
    weights = rng.normal(size=(2, 3, 4))
    with tf.GradientTape() as tape:
        tape.watch(direction)
        loss = tf.reduce_sum(weight_normalize(direction, np.ones(4)) * weights)
    gradient = tape.gradient(loss, direction)
    np.testing.assert_allclose(tf.reduce_sum(gradient * direction, (0, 1)), np.zeros(4), atol=1e-12)


def test_a_direction_of_zeros_gives_zeros_and_a_finite_gradient():
    direction = tf.zeros((2, 3))
    with tf.GradientTape() as tape:
        tape.watch(direction)
        kernel = weight_normalize(direction, tf.ones(3))
    np.testing.assert_array_equal(kernel, np.zeros((2, 3)))
    assert np.isfinite(tape.gradient(kernel, direction)).all()
