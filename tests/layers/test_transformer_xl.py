"""The Transformer-XL against its equations, its memory, and the contract of layers."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_chunks,
    check_config,
    check_gradients,
)

from keras_seq.layers import TransformerXL
from keras_seq.models import LanguageModel

RNG = np.random.default_rng(4)
SIZES: dict[str, Any] = {"levels": 2, "heads": 2, "inner_units": 12}


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def by_levels(layer, x):
    """The equations without a memory, on the layer's own attention (tested by itself)."""
    first = layer.norm_order == "pre"
    for level in range(layer.levels):
        vectors = layer.vectors or None
        query = norm(x) if first else x
        a = x + np.asarray(layer.attentions[level](query, vectors=vectors))
        a = a if first else norm(a)
        part = layer.feed_forwards[level]
        w1, b1, w2, b2 = (w.numpy() for w in part.trainable_weights)
        inner = norm(a) if first else a
        x = a + np.maximum(inner @ w1 + b1, 0) @ w2 + b2
        x = x if first else norm(x)
    return x


@pytest.mark.parametrize("norm_order", ["pre", "post"])
@pytest.mark.parametrize("share_vectors", [False, True])
def test_equations(norm_order, share_vectors):
    layer = TransformerXL(
        **SIZES, norm_order=norm_order, share_vectors=share_vectors, dtype="float64"
    )
    x = RNG.normal(size=(2, 5, 6))
    np.testing.assert_allclose(layer(x), by_levels(layer, x), atol=1e-9)


def test_size_of_two_levels_of_the_released_base_model():
    # A level has width 410, 10 heads of 41, inner width 2100: qkv, position, output, two norms,
    # feed-forward with biases; one pair of vectors.
    layer = TransformerXL(2, heads=10, head_units=41, inner_units=2100)
    layer.build((None, None, 410))
    level = 5 * 410 * 410 + 4 * 410 + 2 * 410 * 2100 + 2100 + 410
    assert layer.count_params() == 2 * level + 2 * 410


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_chunks_equal_the_whole(norm_order):
    x = RNG.normal(size=(2, 9, 6)).astype("float32")
    options: dict[str, Any] = {**SIZES, "norm_order": norm_order}
    layer = TransformerXL(**options, memory_length=9)
    layer(x)
    check_chunks(layer, x, [4, 1, 4], rtol=1e-4)
    # With a span, a memory of span - 1 steps is enough for any length.
    layer = TransformerXL(**options, memory_length=2, span=3)
    layer(x)
    check_chunks(layer, x, [4, 1, 1, 3], rtol=1e-4)


def test_a_longer_memory_in_inference():
    layer = TransformerXL(**SIZES, memory_length=2, inference_memory_length=5)
    x = RNG.normal(size=(1, 4, 6)).astype("float32")
    _, state = layer(x, return_state=True)
    assert state["hidden"].shape == (1, 2, 5, 6)
    np.testing.assert_array_equal(state["valid"], [[0, 1, 1, 1, 1]])
    far = {**state, "hidden": np.array(state["hidden"])}
    far["hidden"][:, :, :3] += RNG.normal(size=(1, 2, 3, 6))  # beyond the memory of training
    for training, equal in ((True, True), (False, False)):
        one = layer(x, initial_state=state, training=training)
        other = layer(x, initial_state=far, training=training)
        assert np.allclose(one, other, atol=1e-6) == equal


def test_no_gradient_into_the_memory_in_training():
    layer = TransformerXL(**SIZES, memory_length=3)
    x = tf.constant(RNG.normal(size=(1, 3, 6)), tf.float32)
    layer(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, state = layer(x, return_state=True, training=True)
        y = layer(tf.zeros_like(x), initial_state=state, training=True)
    assert tape.gradient(y, x) is None


def test_gradients_and_configuration():
    layer = TransformerXL(**SIZES, memory_length=3, dtype="float64")
    x = RNG.normal(size=(2, 6, 6))
    layer(x)
    check_gradients(layer, x, probes=1)
    check_config(TransformerXL(**SIZES, head_units=5, clamp_length=7, dropout=0.1))


def test_clamped_distances_look_alike():
    x = np.zeros((1, 6, 6), "float32")
    x[0, :, 0] = [1, 2, 3, 4, 5, 6]
    free, clamped = TransformerXL(**SIZES), TransformerXL(**SIZES, clamp_length=2)
    free.build(x.shape)
    clamped.build(x.shape)
    for layer in (free, clamped):
        rng = np.random.default_rng(0)
        for weight in layer.trainable_weights:
            weight.assign(rng.normal(size=weight.shape))
    one, other = np.asarray(free(x)), np.asarray(clamped(x))
    np.testing.assert_allclose(one[:, :3], other[:, :3], atol=1e-5)
    assert np.abs(one[:, 3:] - other[:, 3:]).max() > 1e-3


@pytest.mark.slow
def test_language_model_trains_with_the_memory_carried(tmp_path):
    keras.utils.set_random_seed(0)
    core = TransformerXL(**SIZES, memory_length=4, dropout=0.1, attention_dropout=0.1, seed=1)
    model = LanguageModel(11, 6, core, carry_state=True)
    model.compile(keras.optimizers.Adam(1e-2))
    ids = np.tile(np.arange(11), 30)[: 8 * 33].reshape(8, 33)
    x = np.concatenate([ids[:, i : i + 8] for i in range(0, 32, 8)])
    y = np.concatenate([ids[:, i + 1 : i + 9] for i in range(0, 32, 8)])
    history = model.fit(x, y, batch_size=8, epochs=6, verbose=0, shuffle=False).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)["tokens"] == x.size
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "`levels` must be"),
        ({"memory_length": -1}, "`memory_length` must be"),
        ({"clamp_length": 0}, "`clamp_length` must be"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerXL(**{**SIZES, **options})
    with pytest.raises(ValueError, match="built first"):
        TransformerXL(**SIZES).get_initial_state(2)
