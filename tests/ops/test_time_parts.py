"""Layers cut in two along time, for products of few rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.ops.time_parts import time_parts

WIDTH = 16


def test_where_sequences_are_cut(monkeypatch):
    @tf.function
    def in_a_graph(batch, length, width):
        return time_parts(batch, length, width)

    threads = "tensorflow.config.threading.get_inter_op_parallelism_threads"
    assert time_parts(1, 200, 160) == [(0, 200)]  # eager operations follow one another
    monkeypatch.setattr(threads, lambda: 1)
    assert len(in_a_graph(1, 200, 160)) == 1  # and so do these
    monkeypatch.setattr(threads, lambda: 0)
    cut = [[int(place) for place in part] for part in in_a_graph(1, 201, 160)]
    assert cut == [[0, 100], [100, 201]]
    assert len(in_a_graph(1, 20, 160)) == 1  # too few rows
    assert len(in_a_graph(8, 784, 32)) == 1  # enough for every thread
    assert len(in_a_graph(tf.constant(8), 784, 32)) == 1  # not known, and narrow
    assert len(in_a_graph(tf.constant(8), tf.constant(9), 160)) == 2


def _gradients(layer, x, in_graph, options):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = layer(x, training=True, **options)
            flat = keras.tree.flatten(result)
            loss = sum(tf.reduce_sum(part * tf.cos(part)) for part in flat)
        return result, tape.gradient(loss, [x, *layer.trainable_variables])

    return tf.function(run)(x) if in_graph else run(x)


@pytest.mark.parametrize("shape", [(1, 75), (3, 60)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_seq.layers.LocalRNN(WIDTH, window=5, cell="gru"),
        lambda: keras_seq.layers.LocalRNN(WIDTH, window=5, cell="lstm"),
        lambda: keras_seq.layers.LocalRNN(WIDTH, window=1, cell="rnn"),
        lambda: keras_seq.layers.FeedForward(dropout=0.3),
        lambda: keras_seq.layers.RTransformer(WIDTH, 2, 4, heads=2, dropout=0.2),
    ],
    ids=["gru", "lstm", "rnn", "feed_forward", "r_transformer"],
)
def test_parts_give_what_the_whole_gives(make, shape, monkeypatch):
    keras.utils.set_random_seed(1)
    layer = make()
    rng = np.random.default_rng(2)
    x = tf.constant(rng.standard_normal((*shape, WIDTH)).astype("float32"))
    layer.build(x.shape)
    seed = tf.constant([4, 5])
    options: dict = {}
    if isinstance(layer, keras_seq.layers.FeedForward):
        options = {"dropout_seed": seed}
    elif isinstance(layer, keras_seq.layers.RTransformer):
        options = {"masks": {"seed": seed}, "return_state": True}
        options["mask"] = tf.constant(rng.random(shape) < 0.9)
    else:
        past = layer.window - 1
        options = {"initial_state": tf.ones((shape[0], past, WIDTH)), "return_state": True}
        options["mask"] = tf.constant(rng.random(shape) < 0.9)
    cuts = []
    for module in ("local_rnn", "feed_forward"):

        def counted(*sizes):
            parts = time_parts(*sizes)
            cuts.append(len(parts))
            return parts

        monkeypatch.setattr(f"keras_seq.layers.{module}.time_parts", counted)
    whole, expected = _gradients(layer, x, False, options)
    assert set(cuts) == {1}
    parts, found = _gradients(layer, x, True, options)
    assert 2 in cuts
    for one, other in zip(keras.tree.flatten(whole), keras.tree.flatten(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_length_of_one_that_was_not_known():
    """One half is empty then."""
    layer = keras_seq.layers.RTransformer(64, 1, 4, heads=2, dropout=0.2, seed=1)
    layer.build((None, None, 64))

    @tf.function(input_signature=[tf.TensorSpec([None, None, 64])])
    def run(x):
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True, masks={})
            loss = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(loss, layer.trainable_variables)

    x = tf.constant(np.random.default_rng(0).standard_normal((2, 1, 64)).astype("float32"))
    outputs, gradients = run(x)
    np.testing.assert_allclose(outputs, layer(x), rtol=1e-5, atol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
