"""The temporal convolutional network: its convolutions, its state, its dropout."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_checks import (
    check_causal,
    check_chunks,
    check_config,
    check_gradients,
)

from keras_seq.layers import TCN, TemporalBlock
from keras_seq.models import FrameModel


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 23, 4)).astype("float32")


def numpy(value):
    return ops.convert_to_numpy(value)


def plain_convolution(x, kernel, bias, dilation):
    """A causal convolution by its definition, in float64."""
    taps = len(kernel)
    outputs = np.zeros((*x.shape[:2], kernel.shape[-1])) + bias
    for t in range(x.shape[1]):
        for tap in range(taps):
            place = t - (taps - 1 - tap) * dilation
            if place >= 0:
                outputs[:, t] += x[:, place] @ kernel[tap]
    return outputs


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("units", [4, 6])
def test_block_is_the_papers(normalized, units, x):
    """Figure 1b, written out; the residual is projected where the widths differ."""
    block = TemporalBlock(units, 3, dilation_rate=2, weight_normalization=normalized)
    block.build(x.shape)
    rng = np.random.default_rng(1)
    block.set_weights([rng.normal(size=w.shape) for w in block.get_weights()])
    weights = {w.name: numpy(w).astype("float64") for w in block.weights}

    def kernel(name):
        direction = weights[f"{name}_kernel"]
        if not normalized:
            return direction
        norms = np.sqrt((direction**2).sum((0, 1)))
        return direction / norms * weights[f"{name}_gain"]

    def relu(values):
        return np.maximum(values, 0)

    inner = relu(plain_convolution(x, kernel("first"), weights["first_bias"], 2))
    inner = relu(plain_convolution(inner, kernel("second"), weights["second_bias"], 2))
    residual = x if units == 4 else x @ weights["residual_kernel"] + weights["residual_bias"]
    np.testing.assert_allclose(numpy(block(x)), relu(inner + residual), rtol=1e-4, atol=1e-5)


def test_gains_start_at_the_norms(x):
    """So that a new layer computes the same with weight normalisation and without."""
    block = TemporalBlock(4, 3)
    block.build(x.shape)
    weights = {w.name: numpy(w) for w in block.weights}
    plain = TemporalBlock(4, 3, weight_normalization=False)
    plain.build(x.shape)
    for weight in plain.weights:
        weight.assign(weights[weight.name])
    np.testing.assert_allclose(numpy(block(x)), numpy(plain(x)), rtol=1e-5, atol=1e-6)


def test_is_keras_causal_convolution(x):
    block = TemporalBlock(4, 3, dilation_rate=4, weight_normalization=False)
    block.build(x.shape)
    layers = [
        keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=4, activation="relu")
        for _ in range(2)
    ]
    inner = x
    for layer, weights in zip(layers, (block.first, block.second), strict=True):
        layer.build(x.shape)
        layer.set_weights([numpy(w) for w in weights])
        inner = layer(inner)
    np.testing.assert_allclose(numpy(block(x)), numpy(ops.relu(inner + x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"kernel_size": 3}, {"dilation_rates": (1, 3)}], ids=str)
def test_receptive_field_is_what_changes(options, x):
    layer = TCN(5, 2, activation="tanh", **options)
    before = numpy(layer(x))
    changed = x.copy()
    changed[:, 2] += 1
    moved = np.flatnonzero(np.abs(numpy(layer(changed)) - before).max(axis=(0, 2)) > 1e-9)
    assert moved[0] == 2 and moved[-1] == 2 + layer.receptive_field - 1


@pytest.mark.parametrize("taps", [2, 3])
def test_same_padding_is_keras(taps, x):
    """With an even number of steps to pad, or one more behind."""
    block = TemporalBlock(4, taps, dilation_rate=3, weight_normalization=False, padding="same")
    block.build(x.shape)
    inner = x
    for weights in (block.first, block.second):
        layer = keras.layers.Conv1D(4, taps, padding="same", dilation_rate=3, activation="relu")
        layer.build(x.shape)
        layer.set_weights([numpy(w) for w in weights])
        inner = layer(inner)
    np.testing.assert_allclose(numpy(block(x)), numpy(ops.relu(inner + x)), rtol=1e-5, atol=1e-6)


def test_skip_connections_are_the_sum_of_the_branches(x):
    layer = TCN(5, 2, 3, activation="tanh", stacks=2, skip_connections=True, branch_activation=True)
    outputs, hidden, branches = layer(x), x, []
    assert [block.dilation_rate for block in layer.blocks] == [1, 2, 1, 2]
    assert layer.receptive_field == 1 + 2 * 2 * (1 + 2 + 1 + 2)
    for block in layer.blocks:
        before = hidden
        hidden, branch, _ = block(hidden, return_branch=True, return_state=True)
        shortcut = before if block.residual is None else before @ block.residual[0]
        shortcut = shortcut + (0 if block.residual is None else block.residual[1])
        np.testing.assert_allclose(hidden, np.tanh(shortcut + branch), rtol=1e-4, atol=1e-5)
        branches.append(numpy(branch))
    np.testing.assert_allclose(outputs, sum(branches), rtol=1e-5, atol=1e-6)
    inputs = keras.Input((None, 5))
    symbolic = layer.blocks[1](inputs, return_branch=True, return_state=True)
    assert [part.shape for part in symbolic[:2]] == [(None, None, 5)] * 2 and len(symbolic) == 3


MASK = np.array([[1] * 3 + [0] * 4, [0] * 2 + [1] * 5, [1, 0] * 3 + [1]], "bool")


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_batch_normalization_counts_valid_steps_alone(padding):
    """In training: outputs and moving statistics are those of the valid steps in one long row."""
    rng = np.random.default_rng(0)
    x = np.where(MASK[..., None], rng.normal(size=(*MASK.shape, 3)), np.nan).astype("float32")
    taps = 1 if padding == "causal" else 2  # a row of all steps is then one of each row

    def made():
        layer = TemporalBlock(3, taps, normalization="batch", padding=padding, activation="tanh")
        layer.build((None, None, 3))
        for weight in layer.trainable_weights:
            weight.assign(rng_weights.normal(size=weight.shape))
        return layer

    rng_weights = np.random.default_rng(1)
    layer = made()
    outputs = numpy(layer(x, training=True, mask=MASK))
    rng_weights = np.random.default_rng(1)
    other = made()
    if padding == "causal":
        wanted = numpy(other(x[MASK][None], training=True))[0]
        np.testing.assert_allclose(outputs[MASK], wanted, rtol=1e-4, atol=1e-5)
    else:  # the same rows with other padding
        longer = np.pad(x, [[0, 0], [3, 2], [0, 0]], constant_values=np.nan)
        mask = np.pad(MASK, [[0, 0], [3, 2]])
        wanted = numpy(other(longer, training=True, mask=mask))
        np.testing.assert_allclose(outputs[MASK], wanted[mask], rtol=1e-4, atol=1e-5)
    for norm, same in zip(layer.norms, other.norms, strict=True):
        for got, want in zip(norm.weights, same.weights, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        assert np.abs(numpy(norm.moving_mean)).max() > 0


def test_batches_without_steps_leave_batch_normalization_as_it_is(x):
    layer = TemporalBlock(4, 2, normalization="batch")
    layer(x, training=True)
    kept = [numpy(weight).copy() for weight in layer.non_trainable_weights]

    def run(x, mask=None):
        return layer(x, training=True, mask=mask)

    free = tf.function(run, input_signature=[tf.TensorSpec((None, None, 4))], autograph=False)
    for call in (
        lambda: run(x[:0]),
        lambda: free(x[:0]),
        lambda: run(x, np.zeros((2, 23), "bool")),
    ):
        call()
        for was, weight in zip(kept, layer.non_trainable_weights, strict=True):
            np.testing.assert_array_equal(was, weight)
    free(x)
    assert np.abs(numpy(layer.norms[0].moving_mean) - kept[0]).max() > 1e-4


def test_batch_normalization_streams_once_trained(x):
    layer = TCN(6, 2, 3, normalization="batch")
    layer(x, training=True)
    check_chunks(layer, x, [1, 1, 3, 10, 8])
    assert not layer.blocks[0].weight_normalization


def test_ahead_and_back(x):
    """With a look-ahead; and both ways with the whole row seen at once."""
    layer = TCN(6, 2, 2, lookahead=2)
    layer.build(x.shape)
    later = TCN.from_config({**layer.get_config(), "lookahead": 0})
    later.build(x.shape)
    later.set_weights(layer.get_weights())
    longer = np.pad(x, [[0, 0], [0, 2], [0, 0]])
    np.testing.assert_allclose(layer(x), later(longer)[:, 2:], rtol=1e-5, atol=1e-6)
    layer = TCN(6, 2, 2, padding="same", return_sequences=False)
    assert layer(x).shape == (2, 6) and not layer.is_causal


@pytest.mark.parametrize(
    "options", [{"units": (5, 3), "dilation_rates": [1, 3]}, {"kernel_size": 1}], ids=str
)
def test_streams_exactly(options, x):
    layer = TCN(**{"units": 6, "levels": 2, "kernel_size": 3, **options})
    check_config(layer)
    check_causal(layer, x, 9)
    check_chunks(layer, x, [1, 1, 3, 10, 8])
    state = layer.get_initial_state(2)
    shapes = keras.tree.map_structure(lambda part: part.shape, state)
    after = layer(x[:, :1], return_state=True)[1]
    assert keras.tree.map_structure(lambda part: part.shape, after) == shapes


def test_gradients():
    x = np.random.default_rng(0).normal(size=(2, 7, 3))
    layer = TCN(4, 2, 3, activation="tanh", dtype="float64")
    layer.build(x.shape)
    check_gradients(layer, x, probes=2)


@pytest.mark.parametrize("spatial", [False, True])
def test_dropout(spatial, x):
    layer = TCN(64, 2, 2, dropout=0.4, spatial_dropout=spatial, input_dropout=0.1, seed=1)
    plain = numpy(layer(x))
    np.testing.assert_array_equal(plain, numpy(layer(x, training=False)))
    masks = layer.get_masks(2)
    dropped = numpy(layer(x, masks=masks))
    np.testing.assert_array_equal(dropped, numpy(layer(x, masks=masks)))
    assert np.abs(dropped - numpy(layer(x, training=True))).max() > 1e-3
    # The mean over draws is that without dropout where nothing is bent: one linear convolution.
    block = TemporalBlock(512, 1, dropout=0.4, spatial_dropout=spatial, activation="linear", seed=1)
    ones = np.ones((2, 50, 4), "float32")
    block.build(ones.shape)
    for weight in block.residual or ():
        weight.assign(np.zeros(weight.shape))
    dropped = numpy(block(ones, training=True))
    assert abs((dropped == 0).mean() - 0.4) < 0.06
    same_at_all_steps = (np.ptp((dropped == 0).astype(int), axis=1) == 0).mean()
    assert same_at_all_steps == 1 if spatial else same_at_all_steps < 0.1


@pytest.mark.slow
def test_trains_as_a_frame_model():
    model = FrameModel(TCN(16, 2, 3, dropout=0.1, seed=1), notes=5, seed=1)
    model.compile("adam", jit_compile=False)
    tunes = np.tile(np.eye(5, dtype="float32"), (4, 6, 1))
    history = model.fit(tunes[:, :-1], tunes[:, 1:], epochs=15, verbose=0).history
    assert history["nll_per_frame"][-1] < 0.9 * history["nll_per_frame"][0]


def test_wrong_sizes_are_refused(x):
    with pytest.raises(ValueError, match="`levels` must be given"):
        TCN(4)
    with pytest.raises(ValueError, match="an entry for each of `levels`"):
        TCN((4, 5), 3)
    with pytest.raises(ValueError, match="an entry for each block"):
        TCN(4, 3, dilation_rates=(1, 2))
    with pytest.raises(ValueError, match="`kernel_size` must be an integer"):
        TemporalBlock(4, 0)
    with pytest.raises(ValueError, match="`stacks` must be an integer of at least 1"):
        TCN(4, 2, stacks=0)
    with pytest.raises(ValueError, match="`units` must be one number with `skip_connections`"):
        TCN((4, 5), skip_connections=True)
    with pytest.raises(ValueError, match="`normalization` must be one of 'layer', 'batch'"):
        TCN(4, 2, normalization="weight")
    with pytest.raises(ValueError, match="`padding` must be one of 'causal', 'same'"):
        TemporalBlock(4, 2, padding="valid")
    with pytest.raises(ValueError, match="`lookahead` must be 0 with padding='same'"):
        TCN(4, 2, padding="same", lookahead=1)
    with pytest.raises(ValueError, match="built first"):
        TCN(4, 2).get_initial_state(3)
    with pytest.raises(ValueError, match="with d known"):
        TCN(4, 2).build((None, None, None))
