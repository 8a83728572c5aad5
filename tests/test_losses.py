"""Activation regularisers."""

import numpy as np
import tensorflow as tf

from keras_seq.losses import activation_regularization, temporal_activation_regularization


def test_values_and_types():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(activation_regularization(x, 2.0), 2 * np.mean(x**2), rtol=1e-6)
    want = 3 * np.mean((x[:, 1:] - x[:, :-1]) ** 2)
    np.testing.assert_allclose(temporal_activation_regularization(x, 3.0), want, rtol=1e-6)
    assert temporal_activation_regularization(x[:, :1], 3.0) == 0  # and not a mean of nothing
    half = tf.cast(x, "bfloat16")
    assert activation_regularization(half, 1.0).dtype == tf.float32
    assert temporal_activation_regularization(half, 1.0).dtype == tf.float32
    assert activation_regularization(x.astype("float64"), 1.0).dtype == tf.float64


def test_unknown_length():
    @tf.function(input_signature=[tf.TensorSpec((None, None, 2))])
    def both(x):
        return temporal_activation_regularization(x, 1.0), activation_regularization(x, 1.0)

    ramp = np.arange(4, dtype="float32").reshape(1, 4, 1) * np.ones((1, 1, 2), "float32")
    np.testing.assert_allclose(both(ramp), [1.0, 3.5])
    assert both(ramp[:, :1])[0].numpy() == 0
