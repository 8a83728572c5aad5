"""The temporal convolutional network: its convolutions, its state, its dropout."""

import keras
import numpy as np
import pytest
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
    with pytest.raises(ValueError, match="built first"):
        TCN(4, 2).get_initial_state(3)
    with pytest.raises(ValueError, match="with d known"):
        TCN(4, 2).build((None, None, None))
