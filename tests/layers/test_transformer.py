"""The causal Transformer encoder."""

import keras
import numpy as np
import pytest
from keras import ops
from layer_checks import (
    check_causal,
    check_chunks,
    check_gradients,
)

from keras_seq.layers import Transformer, TransformerBlock
from keras_seq.layers.transformer import sinusoids


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 13, 8)).astype("float32")


def numpy(value):
    return ops.convert_to_numpy(value)


def make(**options):
    return Transformer(**{"units": 8, "levels": 2, "heads": 2, **options})


def test_positions_are_the_papers():
    made = numpy(sinusoids(np.array([0, 5], "int32"), 4, 7))
    for row, start in enumerate((0, 5)):
        for step in range(4):
            for feature in range(7):
                angle = (start + step) / 10_000 ** (2 * (feature // 2) / 7)
                want = np.cos(angle) if feature % 2 else np.sin(angle)
                np.testing.assert_allclose(made[row, step, feature], want, atol=1e-5)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_block_is_that_of_keras_attention(order, x):
    """Keras' own multi-head attention with the same weights, put together by the definition."""
    block = TransformerBlock(heads=2, norm_order=order)
    block.build(x.shape)
    rng = np.random.default_rng(1)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    attention = keras.layers.MultiHeadAttention(2, 4)
    attention.build(x.shape, x.shape)
    kernels = np.split(numpy(block.attention.kernel), 3, axis=1)
    biases = np.split(numpy(block.attention.bias), 3)
    attention.set_weights(
        [
            value
            for kernel, bias in zip(kernels, biases, strict=True)
            for value in (kernel.reshape(8, 2, 4), bias.reshape(2, 4))
        ]
        + [
            numpy(block.attention.output_kernel).reshape(2, 4, 8),
            numpy(block.attention.output_bias),
        ]
    )

    def attend(values):
        return attention(values, values, use_causal_mask=True)

    expected = x
    for norm, function in zip(block.norms, (attend, block.feed_forward), strict=True):
        if order == "pre":
            expected = expected + function(norm(expected))
        else:
            expected = norm(expected + function(expected))
    np.testing.assert_allclose(numpy(block(x)), numpy(expected), rtol=1e-4, atol=1e-5)


def test_knows_the_order_by_its_positions(x):
    """Without positions the last output is the same whatever the order of the steps before."""
    turned = np.concatenate([x[:, :-1][:, ::-1], x[:, -1:]], axis=1)
    for positions in (True, False):
        layer = make(levels=1, positions=positions)
        change = np.abs(numpy(layer(x))[:, -1] - numpy(layer(turned))[:, -1]).max()
        assert change > 1e-3 if positions else change < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"norm_order": "post", "scale_input": True}, {"units": 6, "span": 20}],
    ids=str,
)
def test_streams_exactly(options, x):
    layer = make(**options)
    # Layer normalisation does not see what is added to all features alike.
    uneven = np.arange(8, dtype="float32")
    check_causal(lambda x: layer(x * uneven), x, 6)
    check_chunks(layer, x, [1, 1, 4, 7])


def test_span_holds_the_state(x):
    layer = make(span=5)
    layer.build(x.shape)
    state = layer.get_initial_state(2)
    for step in range(3):
        after = layer(x[:, step : step + 1], initial_state=state, return_state=True)[1]
        for name, part in after.items():
            assert part.shape == state[name].shape and part.dtype == state[name].dtype, name
        state = after
    np.testing.assert_array_equal(numpy(state["position"]), [3, 3])
    whole, spanned = make(seed=1), make(seed=1, span=13)
    whole.build(x.shape)
    spanned.build(x.shape)
    spanned.set_weights(whole.get_weights())
    np.testing.assert_allclose(numpy(whole(x)), numpy(spanned(x)), atol=1e-6)


def test_gradients():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = make(units=4, levels=1, dtype="float64")
    layer.build(x.shape)
    check_gradients(layer, x, probes=2)


def test_wrong_sizes_are_refused(x):
    with pytest.raises(ValueError, match="`heads` must divide `units`"):
        make(heads=3)
    with pytest.raises(ValueError, match="`norm_order` must be one of"):
        make(norm_order="both")
    with pytest.raises(ValueError, match="Without `project_input`"):
        make(project_input=False)(x[..., :5])
    with pytest.raises(ValueError, match="built first"):
        make().get_initial_state(3)
