"""The pyramidal recurrent unit: cell, fast layer, LSTM."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_causal,
    check_chunks,
    check_config,
    check_gradients,
)

import keras_seq
from keras_seq.layers import (
    LSTM,
    PRU,
    PRUCell,
)

KINDS = {
    "groups": {"levels": 2, "groups": 2},
    "one_group": {"levels": 3, "groups": 1, "subsampling": "max"},
    "grouped_input": {"groups": 4, "input_transform": "grouped", "context_transform": "linear"},
    "pyramidal_context": {"input_transform": "linear", "context_transform": "pyramidal"},
    "residual": {"groups": 2, "units": 4},
}


def layer_of(kind, **changes):
    settings = {"units": 8, "bias_initializer": "normal", **KINDS[kind], **changes}
    settings.setdefault("recurrent_initializer", keras.initializers.RandomNormal(stddev=0.4))
    return PRU(**settings)


def inputs(batch=3, steps=6, features=4, dtype="float32"):
    return np.random.default_rng(0).normal(size=(batch, steps, features)).astype(dtype)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def steps_of(layer, x):
    """The cell's equations step by step in NumPy, with the transforms' own products."""
    h, c = np.zeros((len(x), layer.units)), np.zeros((len(x), layer.units))
    outputs = []
    for step in np.moveaxis(x, 1, 0):
        pre = layer.cell.input_transform(step) + layer.cell.context_transform(h)
        f, g, i, o = np.split(keras.ops.convert_to_numpy(pre), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1), [h, c]


@pytest.mark.parametrize("kind", KINDS)
def test_layer_equals_its_steps_and_its_cell(kind):
    layer, x = layer_of(kind, dtype="float64"), inputs(dtype="float64")
    y, state = layer(x, return_state=True)
    want, final = steps_of(layer, x)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-12)
    for got, expected in zip(state, final, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    rnn = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True, dtype="float64")
    by_cell = rnn(x)
    for got, expected in zip(by_cell, (want, *final), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    layer, x = layer_of(kind, dtype="float64"), inputs(2, 4, dtype="float64")
    layer.build(x.shape)
    check_gradients(layer, x, probes=1)


def in_our_order(array, axis=-1):
    """Keras' gates i, f, g, o as f, g, i, o."""
    i, f, g, o = np.split(array, 4, axis=axis)
    return np.concatenate([f, g, i, o], axis=axis)


@pytest.mark.parametrize("make", [LSTM, "pru"])
def test_equals_keras_lstm_weight_for_weight(make):
    x = inputs(features=5)
    theirs = keras.layers.LSTM(6, return_sequences=True, return_state=True)
    theirs.build(x.shape)
    kernel, recurrent, bias = (weight.numpy() for weight in theirs.weights)
    bias = np.random.default_rng(2).normal(size=bias.shape)
    theirs.set_weights([kernel, recurrent, bias])
    ours = LSTM(6) if make is LSTM else PRU(6, levels=1, groups=1, residual=False)
    ours.build(x.shape)
    lead = ours.cell.input_transform.kernels[0].shape[:-2]
    ours.set_weights(
        [
            in_our_order(kernel).reshape(*lead, *kernel.shape),
            in_our_order(bias).reshape(*lead, -1) * 0.25,
            in_our_order(recurrent)[None],
            in_our_order(bias)[None] * 0.75,
        ]
    )
    y, (h, c) = ours(x, return_state=True)
    for got, want in zip((y, h, c), theirs(x), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)
    assert ours.count_params() == theirs.count_params() + 24  # the second bias


def test_cell_in_keras_wrappers():
    x = inputs(batch=2)
    cells = [PRUCell(8, groups=2), PRUCell(4, levels=1)]
    stacked = keras.layers.RNN(cells, return_sequences=True)
    assert stacked(x).shape == (2, 6, 4)
    both = keras.layers.Bidirectional(keras.layers.RNN(PRUCell(8, groups=4)))
    assert both(x).shape == (2, 16)

    cell = PRUCell(8, groups=2, recurrent_initializer="glorot_uniform")
    forward, backward = (
        keras.layers.RNN(cell, return_sequences=True, go_backwards=g) for g in (False, True)
    )
    np.testing.assert_allclose(forward(x[:, ::-1]), backward(x), atol=1e-6)

    # A masked step leaves the state alone: as if it were not there.
    mask = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 1]], bool)
    masked = keras.layers.RNN(cell)(x, mask=mask)
    for row in range(2):
        want = keras.layers.RNN(cell)(x[row : row + 1, mask[row]])
        np.testing.assert_allclose(masked[row : row + 1], want, atol=1e-6)

    stateful = keras.layers.RNN(cell, stateful=True, return_sequences=True)
    parts = np.concatenate([stateful(x[:, :2]), stateful(x[:, 2:])], axis=1)
    np.testing.assert_allclose(parts, forward(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["one_group", "pyramidal_context"])
def test_causal_and_chunks(kind):
    layer, x = layer_of(kind), inputs()
    layer.build(x.shape)
    check_causal(layer, x, at=3)
    check_chunks(layer, x, [2, 1, 3])


def test_configuration_of_the_cell():
    check_config(PRUCell(4, subsampling="skip", split="uniform", recurrent_regularizer="l2"))


def test_weight_dropout_is_one_mask_a_call():
    layer, x = layer_of("groups", weight_dropout=0.5, seed=1), inputs()
    layer.build(x.shape)
    (mask,) = layer.get_masks(3)["weight"]
    assert mask.shape == layer.cell.context_transform.kernel.shape
    assert set(np.unique(mask)) == {0.0, 2.0}
    kernel = layer.cell.context_transform.kernel
    dropped = layer(x, masks={"weight": [mask]})
    before = kernel.numpy()
    kernel.assign(before * mask)
    np.testing.assert_allclose(dropped, layer(x), atol=1e-6)
    kernel.assign(before)
    first, second = layer(x, training=True), layer(x, training=True)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 1e-4
    np.testing.assert_allclose(layer(x, training=True, masks={}), layer(x), atol=1e-6)
    plain = layer_of("pyramidal_context", weight_dropout=0.5)
    plain.build(x.shape)
    assert len(plain.get_masks(3)["weight"]) == 2
    plain(x, training=True)


def test_the_graph_does_not_grow_with_time():
    layer = layer_of("groups")
    layer.build((None, None, 4))
    sizes = []
    for steps in (7, 400):

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x))
            return tape.gradient(loss, [w.value for w in layer.trainable_variables])

        graph = step.get_concrete_function(tf.TensorSpec((2, steps, 4))).graph.as_graph_def()
        sizes.append(len(graph.node) + sum(len(f.node_def) for f in graph.library.function))
    assert abs(sizes[0] - sizes[1]) < 10 < sizes[0]


def test_state_kinds_and_errors():
    layer = layer_of("groups")
    assert [s.shape for s in layer.get_initial_state(3, kind="exact")] == [(3, 8), (3, 8)]
    with pytest.raises(ValueError, match="`kind` must be 'exact' or None"):
        layer.get_initial_state(3, kind="history")
    with pytest.raises(ValueError, match="`context_transform` must be one of"):
        PRU(8, context_transform="dense")
    with pytest.raises(ValueError, match=r"`units` must be divisible by `groups`"):
        PRU(10, groups=4)
    with pytest.raises(ValueError, match="`weight_dropout` must be a number"):
        PRU(8, weight_dropout=1.0)
    with pytest.raises(ValueError, match=r"must have shape \(b, t, d\)"):
        PRU(8).build((2, 4))


def test_the_old_format_of_keras(tmp_path):
    """It hands over `keras.layers.average` for the word."""
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras_seq.layers.PRU(4)(inputs))
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)
