"""LocalRNN, attention, blocks and the stack of the R-Transformer."""

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
    check_unknown_argument_refused,
)

from keras_seq.layers import (
    FeedForward,
    LocalRNN,
    RTransformer,
    RTransformerBlock,
    SelfAttention,
    UnbiasedLayerNormalization,
)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 9, 8)).astype("float32")


def numpy(value):
    return ops.convert_to_numpy(value)


def stack(**options):
    return RTransformer(**{"units": 8, "levels": 2, "window": 3, "heads": 2, **options})


# LocalRNN


@pytest.mark.parametrize(
    "cell",
    [
        keras.layers.GRUCell(6),
        keras.layers.LSTMCell(6),
        keras.layers.StackedRNNCells([keras.layers.SimpleRNNCell(4), keras.layers.GRUCell(6)]),
    ],
    ids=["gru", "lstm", "stacked"],
)
def test_windows_are_those_of_a_keras_rnn_on_copied_windows(cell, x):
    layer = LocalRNN(6, 4, cell)
    padded = np.pad(x, ((0, 0), (3, 0), (0, 0)))
    windows = np.stack([padded[:, t : t + 4] for t in range(9)], axis=1).reshape(18, 4, 8)
    outputs = numpy(layer(x))
    expected = numpy(keras.layers.RNN(layer.cell)(windows)).reshape(2, 9, 6)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_own_cells_are_those_of_keras(cell, x):
    """The fast path with the weights of a Keras cell, whose gates are in another order."""
    kinds = {"gru": keras.layers.GRUCell, "lstm": keras.layers.LSTMCell}
    reference = LocalRNN(6, 4, kinds.get(cell, keras.layers.SimpleRNNCell)(6))
    reference.build(x.shape)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape) for w in reference.get_weights()]
    reference.set_weights(weights)
    layer = LocalRNN(6, 4, cell)
    layer.build(x.shape)
    order = {"gru": [1, 0, 2], "lstm": [0, 1, 2, 3], "rnn": [0]}[cell]

    def gates(array):
        return np.concatenate([np.split(array, len(order), -1)[i] for i in order], -1)

    kernel, recurrent, bias = (gates(array) for array in weights)
    biases = bias if cell == "gru" else np.stack([bias / 4, 3 * bias / 4])
    layer.set_weights([kernel, recurrent, *biases])
    np.testing.assert_allclose(numpy(layer(x)), numpy(reference(x)), atol=2e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn", keras.layers.GRUCell(5)])
def test_local_rnn_sees_its_window_and_streams(cell, x):
    layer = LocalRNN(5, 4, cell)
    before = numpy(layer(x))
    changed = x.copy()
    changed[:, 2] += 1
    moved = np.abs(numpy(layer(changed)) - before).max(axis=(0, 2)) > 1e-7
    np.testing.assert_array_equal(np.flatnonzero(moved), [2, 3, 4, 5])
    check_chunks(layer, x, [1, 1, 5, 2])
    check_config(layer)


def test_window_of_one_step(x):
    layer = LocalRNN(5, 1)
    assert layer(x).shape == (2, 9, 5)
    check_chunks(layer, x, [4, 5])


def test_local_rnn_keeps_no_copies_of_the_windows():
    """No tensor of the forward pass is larger than a projection of the padded sequence."""
    layer = LocalRNN(4, 16)
    layer.build((None, None, 4))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((2, 64, 4))).graph
    sizes = [
        np.prod(output.shape)
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.dtype.is_floating and output.shape.is_fully_defined()
    ]
    assert max(sizes) <= 2 * (64 + 15) * 3 * 4
    products = [op.name for op in graph.get_operations() if "MatMul" in op.type]
    # One projection, and in all steps but the first a product for the gates and the candidate.
    assert len(products) == 1 + 15 * 2


# Normalisation, attention


def test_unbiased_normalisation(x):
    layer = UnbiasedLayerNormalization()
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / (x.std(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-5, atol=1e-6)
    flat = tf.Variable(np.zeros((1, 8), "float32"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(flat) * x[0, :1])
    assert np.isfinite(tape.gradient(loss, flat)).all()


def test_both_attention_paths_agree(x):
    """Keras' attention, and the one written out for dropout and probabilities."""
    for layer in (SelfAttention(2), SelfAttention(2, span=3), SelfAttention(2, causal=False)):
        outputs, probabilities = layer(x, return_probabilities=True)
        np.testing.assert_allclose(numpy(layer(x)), numpy(outputs), atol=1e-6)
        np.testing.assert_allclose(numpy(probabilities).sum(-1), 1, rtol=1e-5)
    layer = SelfAttention(2, span=3)
    seen = numpy(layer(x, return_probabilities=True)[1])[0, 0] > 0
    rows, columns = np.indices((9, 9))
    np.testing.assert_array_equal(seen, (columns <= rows) & (columns > rows - 3))


# The stack


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"span": 4},
        {"span": 1, "window": 1},
        {"span": 32, "local_layers": 2, "cell": "lstm", "norm_order": "post"},
        {"normalization": "layer", "cell": keras.layers.GRUCell(8), "local_layers": 2},
        {"local_layers": 0, "span": 6, "unused_weights": True},
    ],
    ids=["plain", "span", "ones", "post", "keras", "attention"],
)
def test_stack_is_causal_and_streams(options, x):
    layer = stack(**options)
    check_causal(layer, x, 4)
    check_chunks(layer, x, [1, 1, 5, 2])
    check_config(layer)
    state = layer.get_initial_state(2)
    shapes = {name: value.shape for name, value in state.items()}
    _, after = layer(x, initial_state=state, return_state=True)
    if options.get("span"):  # a state of fixed size
        assert {name: value.shape for name, value in after.items()} == shapes


def test_projects_inputs_of_another_width(x):
    layer = stack(units=6)
    check_chunks(layer, x, [3, 6])
    assert layer(x).shape == (2, 9, 6)
    assert stack(project_input=True)(x).shape == (2, 9, 8)
    with pytest.raises(ValueError, match="must have `units` features"):
        stack(units=6, project_input=False)(x)


def test_full_attention_sees_later_steps_and_has_no_state(x):
    layer = stack(causal=False)
    changed = x.copy()
    changed[:, -1] *= -1
    assert np.abs(numpy(layer(changed)) - numpy(layer(x)))[:, 0].max() > 1e-6
    with pytest.raises(ValueError, match="Attention over all steps has no state"):
        layer(x, return_state=True)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_on_either_side_changes_nothing(causal, x):
    layer = stack(causal=causal, local_layers=2)
    expected = numpy(layer(x))
    rubbish = np.full((2, 3, 8), 7, "float32")
    ones, zeros = np.ones((2, 9), bool), np.zeros((2, 3), bool)
    left = layer(np.concatenate([rubbish, x], 1), mask=np.concatenate([zeros, ones], 1))
    np.testing.assert_allclose(numpy(left)[:, 3:], expected, atol=2e-6)
    right = layer(np.concatenate([x, rubbish], 1), mask=np.concatenate([ones, zeros], 1))
    np.testing.assert_allclose(numpy(right)[:, :9], expected, atol=2e-6)


def test_left_padding_is_carried_in_the_state(x):
    layer = stack(span=16)
    expected = numpy(layer(x))
    padded = np.concatenate([np.full((2, 2, 8), 7, "float32"), x], axis=1)
    mask = np.arange(11)[None].repeat(2, 0) >= 2
    state = layer.get_initial_state(2)
    outputs = []
    for start in (0, 5):
        part = slice(start, start + 6 if start else 5)
        out, state = layer(padded[:, part], state, return_state=True, mask=mask[:, part])
        outputs.append(numpy(out))
    np.testing.assert_allclose(np.concatenate(outputs, 1)[:, 2:], expected, atol=2e-6)


@pytest.mark.parametrize("cell", [pytest.param("gru", marks=pytest.mark.slow), "lstm"])
def test_gradients(cell, x):
    layer = stack(levels=1, cell=cell, dtype="float64", span=5)
    x = x[:, :6].astype("float64")
    layer(x)
    # The bias of the keys shifts all logits of a step alike, so that its gradient is zero.
    check_gradients(layer, x, probes=2)


def test_what_does_not_fit_is_refused():
    for cls, arguments in (
        (LocalRNN, {"units": 4, "window": 2}),
        (SelfAttention, {"heads": 2}),
        (FeedForward, {}),
        (RTransformerBlock, {"window": 2, "heads": 2}),
        (RTransformer, {"units": 4, "levels": 1, "window": 2, "heads": 2}),
        (UnbiasedLayerNormalization, {}),
    ):
        check_unknown_argument_refused(cls, **arguments)
    for cell in (
        keras.layers.GRUCell(6, dropout=0.1),
        keras.layers.StackedRNNCells([keras.layers.LSTMCell(6, recurrent_dropout=0.1)]),
    ):
        with pytest.raises(ValueError, match="`cell` must have no `(recurrent_)?dropout`"):
            LocalRNN(6, 4, cell)
    with pytest.raises(ValueError, match="`cell` must be one of"):
        LocalRNN(4, 2, "gated")
    with pytest.raises(ValueError, match="`cell` must have `units` outputs"):
        LocalRNN(4, 2, keras.layers.GRUCell(5))
    with pytest.raises(ValueError, match="`window` must be an integer of at least 1"):
        LocalRNN(4, 0)
    with pytest.raises(ValueError, match="`heads` must divide"):
        stack(heads=3)
    with pytest.raises(ValueError, match="`norm_order` must be one of"):
        stack(norm_order="both")
    with pytest.raises(ValueError, match="`span` needs `causal=True`"):
        stack(causal=False, span=3)
    with pytest.raises(ValueError, match="`kind` must be"):
        layer = stack()
        layer.build((None, None, 8))
        layer.get_initial_state(2, kind="history")


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_a_persistent_tape_gives_the_written_gradients_twice(cell):
    block = RTransformerBlock(window=3, heads=2, cell=cell)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32"))
    block(x)
    weights = [weight.value for weight in block.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(tf.sin(block(x, training=True)))
    with tf.GradientTape() as other:
        plain = tf.reduce_sum(tf.sin(block(x, training=False)))
    expected = other.gradient(plain, weights)
    for _ in range(2):
        for one, two in zip(tape.gradient(loss, weights), expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
