"""Variational dropout and embedding dropout."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq.layers import EmbeddingDropout, VariationalDropout


def test_variational_mask_is_constant_over_time():
    x = np.ones((64, 7, 40), "float32")
    y = ops.convert_to_numpy(VariationalDropout(0.25, seed=1)(x, training=True))
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 7, axis=1))
    values = np.unique(y)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(np.mean(y == 0) - 0.25) < 0.03
    assert np.any(y[0] != y[1])
    four = ops.convert_to_numpy(VariationalDropout(0.5)(np.ones((2, 3, 7, 40)), training=True))
    np.testing.assert_array_equal(four[:, :, 0], four[:, :, -1])
    assert np.any(four[:, 0] != four[:, 1])


def test_embedding_mask_drops_words():
    ids = np.random.default_rng(0).integers(0, 50, (8, 200))
    table = np.random.default_rng(1).normal(size=(50, 4)) + 10
    layer = EmbeddingDropout(0.3, 50, seed=1)
    y = ops.convert_to_numpy(layer(table[ids], ids, training=True))
    dropped = {word: np.unique(y[ids == word] == 0) for word in range(50)}
    assert all(len(states) == 1 for states in dropped.values())  # all of a word, or nothing
    gone = [word for word, states in dropped.items() if states[0]]
    assert 5 < len(gone) < 25
    kept = ~np.isin(ids, gone)
    np.testing.assert_allclose(y[kept], table[ids[kept]] / 0.7, rtol=1e-5)


@pytest.mark.parametrize("kind", ["variational", "embedding"])
def test_training_seeds_and_given_masks(kind):
    ids = np.arange(12).reshape(3, 4)
    x = np.ones((3, 4, 5), "float32")

    def make(rate=0.5, seed=7):
        if kind == "variational":
            layer = VariationalDropout(rate, seed=seed)
            return layer, (x,), lambda: layer.get_mask(3, 5)
        layer = EmbeddingDropout(rate, 12, seed=seed)
        return layer, (x, ids), layer.get_mask

    layer, arguments, draw = make()
    np.testing.assert_array_equal(layer(*arguments), x)
    np.testing.assert_array_equal(layer(*arguments, training=False), x)
    first, second = draw(), draw()
    assert np.any(ops.convert_to_numpy(first) != ops.convert_to_numpy(second))
    again, _, draw_again = make()
    np.testing.assert_array_equal(draw_again(), first)  # the same seed, the same masks
    np.testing.assert_array_equal(again(*arguments, training=True), _apply(kind, x, ids, second))
    for training in (True, False, None):  # a given mask is used as it is
        got = layer(*arguments, training=training, dropout_mask=first)
        np.testing.assert_array_equal(got, _apply(kind, x, ids, first))
    zero, arguments, _ = make(rate=0.0)
    np.testing.assert_array_equal(zero(*arguments, training=True), x)

    @tf.function(jit_compile=True)
    def compiled():
        return layer(*arguments, training=True)

    draws = [ops.convert_to_numpy(compiled()) for _ in range(2)]
    assert np.any(draws[0] != draws[1])  # a new mask every call, not one for the graph


def _apply(kind, x, ids, mask):
    mask = ops.convert_to_numpy(mask)
    return x * (mask if kind == "variational" else mask[ids])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_types(policy):
    x = np.ones((2, 3, 8))
    layer = VariationalDropout(0.5, dtype=policy)
    assert layer(x, training=True).dtype == layer.compute_dtype
    assert layer.get_mask(2, 8).dtype == layer.compute_dtype
    words = EmbeddingDropout(0.5, 9, dtype=policy)
    assert words(x, np.ones((2, 3), "int32"), training=True).dtype == words.compute_dtype


def test_keras_mask_passes():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = VariationalDropout(0.5)(EmbeddingDropout(0.5, 9)(x, inputs))
    assert x._keras_mask is not None
    model = keras.Model(inputs, keras.layers.LSTM(2)(x))
    assert model(np.array([[1, 2, 0]])).shape == (1, 2)


def test_config_and_errors():
    layer_checks.check_config(VariationalDropout(0.3, seed=4))
    layer_checks.check_config(EmbeddingDropout(0.3, 10, seed=4))
    for rate in (-0.1, 1.0, "half"):
        with pytest.raises(ValueError, match="`rate` must be a number in"):
            VariationalDropout(rate)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="vocabulary_size=0"):
        EmbeddingDropout(0.1, 0)
    with pytest.raises(ValueError, match=r"must have shape \(..., t, d\)"):
        VariationalDropout(0.1)(np.ones(3))
    layer_checks.check_unknown_argument_refused(VariationalDropout, rate=0.1)
