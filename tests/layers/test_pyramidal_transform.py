"""The pyramidal transform and the grouped linear transform, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_config,
    check_gradients,
    check_mixed_precision,
    check_unknown_argument_refused,
)

from keras_seq.layers import GroupedLinear, PyramidalTransform


def pooled(x, size, how, window=None):
    """Every other window of `size` features, reaching beyond the ends."""
    reach = size // 2
    rows = []
    for centre in range(0, x.shape[-1], 2):
        places = range(centre - reach, centre + reach + 1)
        values = [x[:, p] if 0 <= p < x.shape[-1] else None for p in places]
        if how == "skip":
            rows.append(x[:, centre])
        elif how == "max":
            rows.append(np.max([v for v in values if v is not None], axis=0))
        elif how == "average":
            rows.append(sum(v for v in values if v is not None) / size)
        else:
            pairs = zip(np.tanh(np.asarray(window)), values, strict=True)
            rows.append(sum(w * v for w, v in pairs if v is not None))
    return np.stack(rows, axis=-1)


def numpy_transform(layer, x):
    sizes = {1: [], 2: [3], 3: [5, 3], 4: [7, 5, 3]}[layer.levels]
    parts, source = [], x
    for level in range(layer.levels):
        if level:
            window = layer.windows[level - 1].numpy() if layer.windows else None
            source = pooled(source, sizes[level - 1], layer.subsampling, window)
        y = source @ layer.kernels[level].numpy() + layer.biases[level].numpy()
        parts.append(y.reshape(len(x), layer.blocks, -1))
    blocks = np.concatenate(parts, axis=-1)
    if layer.residual and x.shape[-1] == layer.units:
        blocks = blocks + x[:, None]
    return blocks.reshape(len(x), -1)


@pytest.mark.parametrize("subsampling", ["average", "max", "skip", "convolution"])
@pytest.mark.parametrize(("levels", "features", "units"), [(1, 5, 5), (2, 6, 6), (4, 19, 12)])
def test_equals_numpy(subsampling, levels, features, units):
    layer = PyramidalTransform(
        units,
        levels,
        subsampling=subsampling,
        blocks=2,
        bias_initializer="normal",
        dtype="float64",
    )
    x = np.random.default_rng(0).normal(size=(3, features)) - 1.0
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y, numpy_transform(layer, x), rtol=1e-10, atol=1e-12)
    check_gradients(layer, x, probes=1)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("subsampling", ["average", "max"])
def test_single_precision_equals_double(subsampling, jit_compile):
    """In float32 without XLA the features are halved in another way."""
    x = np.random.default_rng(0).normal(size=(3, 7))
    weights, found = None, []
    for dtype in ("float64", "float32"):
        layer = PyramidalTransform(7, levels=3, subsampling=subsampling, dtype=dtype)
        layer.build((None, 7))
        weights = weights or layer.get_weights()
        layer.set_weights(weights)

        @tf.function(jit_compile=jit_compile)
        def values_and_gradient(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
                loss = tf.reduce_sum(y * tf.cast(tf.range(7), y.dtype))
            return y, tape.gradient(loss, x)

        found.append(values_and_gradient(tf.constant(x, dtype)))
    for double, single in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)


def test_splits_of_the_outputs():
    released = PyramidalTransform(600, levels=4)
    assert released.level_units == (337, 150, 75, 38)
    assert released.window_sizes == (7, 5, 3)
    assert PyramidalTransform(600, levels=4, split="uniform").level_units == (150,) * 4
    assert PyramidalTransform(14, levels=3, split="uniform").level_units == (6, 4, 4)
    # Table 3: 600 units with K = 4 have 2.5M parameters with this split, and not with the other.
    for split, low, high in (("released", 2_450_000, 2_550_000), ("uniform", 2_100_000, 2_200_000)):
        layer = PyramidalTransform(600, levels=4, blocks=4, split=split)
        layer.build((None, 600))
        assert low < layer.count_params() + 600 * 2400 + 2400 < high, split


def test_residual_only_where_the_widths_agree():
    x = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")
    with_input, without = PyramidalTransform(6, 2), PyramidalTransform(6, 2, residual=False)
    for layer in (with_input, without):
        layer.build((None, 6))
    without.set_weights(with_input.get_weights())
    np.testing.assert_allclose(with_input(x) - without(x), x, atol=1e-6)
    wider = PyramidalTransform(8, 2)
    wider.build((None, 6))
    assert not wider.adds_input


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_linear_equals_numpy(groups):
    layer = GroupedLinear(
        8, groups, blocks=3, bias_initializer="normal", kernel_initializer="normal", dtype="float64"
    )
    x = np.random.default_rng(2).normal(size=(2, 5, 12))
    y = keras.ops.convert_to_numpy(layer(x)).reshape(2, 5, 3, groups, -1)
    for group, part in enumerate(np.split(x, groups, axis=-1)):
        want = part @ layer.kernel.numpy()[group] + layer.bias.numpy()[group]
        np.testing.assert_allclose(y[:, :, :, group], want.reshape(2, 5, 3, -1), atol=1e-12)
    check_gradients(layer, x, probes=1)


def test_grouped_kernel_starts_as_one_orthogonal_row_a_group():
    layer = GroupedLinear(24, groups=4, blocks=4)
    layer.build((None, 24))
    rows = layer.kernel.numpy().reshape(4, -1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-5)


def test_both_keep_the_layer_contract():
    x = np.random.default_rng(3).normal(size=(2, 5, 8)).astype("float32")
    pyramid = PyramidalTransform(6, 3, subsampling="convolution", split="uniform", blocks=2)
    grouped = GroupedLinear(6, 2, kernel_initializer="glorot_uniform", use_bias=False)
    for layer in (pyramid, grouped):
        check_config(layer)
    check_mixed_precision(lambda dtype: PyramidalTransform(8, 2, dtype=dtype), x)
    check_unknown_argument_refused(PyramidalTransform, units=4)
    check_unknown_argument_refused(GroupedLinear, units=4)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"`units` must be divisible by `groups`.*units=10"):
        GroupedLinear(10, groups=4)
    with pytest.raises(ValueError, match="features must be divisible by `groups`"):
        GroupedLinear(8, groups=4).build((None, 6))
    with pytest.raises(ValueError, match="`subsampling` must be one of 'average'"):
        PyramidalTransform(8, subsampling="median")
    with pytest.raises(ValueError, match="at least one output.*levels=5"):
        PyramidalTransform(4, levels=5, split="uniform")
    with pytest.raises(ValueError, match="halved `levels - 1` times"):
        PyramidalTransform(32, levels=4).build((None, 7))
    with pytest.raises(ValueError, match="`levels` must be an integer of at least 1"):
        PyramidalTransform(8, levels=0)
