"""TrellisNet: the checks that every layer passes, its options and its two kinds of state."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_causal,
    check_chunks,
    check_config,
    check_gradients,
    check_unknown_argument_refused,
    wrap,
)

from keras_seq.layers import TrellisNet

WIDE = keras.initializers.RandomNormal(stddev=0.4, seed=3)


def make(units=3, output_units=2, levels=4, **options) -> TrellisNet:
    options = {"kernel_initializer": WIDE, "bias_initializer": WIDE, **options}
    return TrellisNet(units, output_units, levels, **options)


def inputs(batch=2, length=11, features=3, dtype="float32", seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, length, features)).astype(dtype)


SHAPES = {
    "plain": {},
    "three_taps": {"kernel_size": 3, "dilation_rate": (1, 2)},
    "dilated": {"dilation_rate": [1, 2, 4]},
    "normalised": {"weight_normalization": True},
    "gru": {"activation": "gru"},
    "rnn": {"activation": "rnn"},
    "sparse_injection": {"injection_frequency": 2},
    "one_tap": {"kernel_size": 1},
    "groups": {"groups": (3, 2), "activation": "lstm"},
    "loop": {"unroll": False},
    "rematerialized": {"rematerialize": True},
}


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_shapes_causality_and_configuration(options):
    layer, x = make(**options), inputs()
    assert layer(x).shape == (2, 11, 2)
    assert layer.compute_output_shape(x.shape) == (2, 11, 2)
    check_causal(layer, x, at=5)
    check_config(layer)


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_chunks_and_single_steps_equal_the_full_pass(options):
    layer = make(**options)
    check_chunks(layer, inputs(length=9), [4, 1, 1, 3])


def test_single_steps_far_beyond_the_receptive_field():
    layer = make(dilation_rate=(1, 2, 4))
    check_chunks(layer, inputs(length=40), [1] * 40)
    state = layer.get_initial_state(2)
    assert {name: value.shape[1] for name, value in state.items()} == {
        "hidden": 8,
        "cell": 8,
        "input": 4,
    }


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_receptive_field_is_what_the_outputs_depend_on(options):
    layer = make(**options)
    x = tf.constant(inputs(length=20))
    with tf.GradientTape() as tape:
        tape.watch(x)
        last = tf.reduce_sum(layer(x)[0, -1])
    reached = np.abs(tape.gradient(last, x).numpy()[0]).max(-1) > 0
    assert 20 - np.argmax(reached) == layer.receptive_field


def test_history_pads_every_level_with_the_last_state():
    """From the returned pair, the next call continues as a hand-written level-by-level run does."""
    layer = make(levels=3, state="history")
    first, second = inputs(seed=1), inputs(seed=2)
    outputs, (h, c) = layer(first, return_state=True)
    np.testing.assert_allclose(outputs[:, -1], h[:, -2:], atol=1e-6)
    got, final = layer(second, initial_state=[h, c], return_state=True)

    kernel_x, kernel_z = (np.asarray(k) for k in (layer.kernel_input, layer.kernel_hidden))
    bias, h, c = np.asarray(layer.bias), h.numpy(), c.numpy()
    padded = np.concatenate([np.zeros((2, 1, 3)), second], 1)
    injected = padded[:, :-1] @ kernel_x[0] + padded[:, 1:] @ kernel_x[1] + bias
    z = cell = np.zeros((2, 11, 5))
    for _ in range(3):
        z_in = np.concatenate([h[:, None], z], 1)
        pre = injected + z_in[:, :-1] @ kernel_z[0] + z_in[:, 1:] @ kernel_z[1]
        i, o, g, f = np.split(pre, 4, -1)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        cell = f * np.concatenate([c[:, None], cell], 1)[:, :-1] + i * np.tanh(g)
        z = o * np.tanh(cell)
    np.testing.assert_allclose(got, z[..., -2:], atol=1e-5)
    np.testing.assert_allclose(final[0], z[:, -1], atol=1e-5)
    np.testing.assert_allclose(final[1], cell[:, -1], atol=1e-5)


def test_auxiliary_outputs_are_those_of_a_shallower_network():
    layer, x = make(levels=6, auxiliary_frequency=2), inputs()
    outputs, auxiliary = layer(x, return_auxiliary=True)
    assert layer.auxiliary_levels == (2, 4, 6)
    assert auxiliary.shape == (2, 3, 11, 2)
    np.testing.assert_array_equal(auxiliary[:, -1], outputs)
    shallow = make(levels=4)
    shallow.build(x.shape)
    shallow.set_weights(layer.get_weights())
    np.testing.assert_allclose(auxiliary[:, 1], shallow(x), atol=1e-6)


GRADIENTS = ("plain", "three_taps", "dilated", "normalised", "gru", "sparse_injection", "groups")


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_with_finite_differences(name):
    layer = make(dtype="float64", **SHAPES[name])
    x = inputs(length=6, dtype="float64")
    layer.build(x.shape)
    check_gradients(layer, x)


def gradients(layer, x, **arguments):
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, **arguments)
        loss = tf.reduce_sum(
            outputs * tf.cos(tf.range(tf.size(outputs), dtype=outputs.dtype)[: outputs.shape[-1]])
        )
    sources = [x, *[w.value for w in layer.trainable_variables]]
    return outputs, tape.gradient(loss, sources)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 3, "dilation_rate": (1, 2)},
        {"weight_normalization": True, "hidden_dropout": 0.3, "weight_dropout": 0.3},
        {"injection_frequency": 2},
    ],
)
@pytest.mark.parametrize("change", [{"rematerialize": True}, {"unroll": False}])
def test_memory_and_loop_options_change_nothing(options, change):
    """The training path, with its written-out gradient, equals every other way to compute it."""
    x = tf.constant(inputs(dtype="float64"))
    reference = make(levels=5, dtype="float64", **options)
    other = make(levels=5, dtype="float64", **options, **change)
    for layer in (reference, other):
        layer.build(x.shape)
    other.set_weights(reference.get_weights())
    masks = reference.get_masks(2)
    expected = gradients(reference, x, masks=masks)
    for training in (False, True):
        got = gradients(other, x, masks=masks, training=training)
        for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_hidden_dropout_is_one_mask_and_off_in_evaluation():
    layer, x = make(hidden_dropout=0.5, seed=1), inputs()
    plain = layer(x)
    np.testing.assert_array_equal(plain, layer(x, training=False))
    dropped = [layer(x, training=True).numpy() for _ in range(2)]
    assert np.abs(dropped[0] - plain).max() > 1e-3
    assert np.abs(dropped[0] - dropped[1]).max() > 1e-3
    mask = layer.get_masks(2)["hidden"]
    assert mask.shape == (2, 1, 5)
    assert set(np.unique(mask)) <= {0.0, 2.0}
    # Masking the rows of the kernel by hand is the same for a single sample.
    twin = make()
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    kernel = np.array(twin.kernel_hidden) * np.asarray(mask)[0, 0][None, :, None]
    twin.kernel_hidden.assign(kernel)
    np.testing.assert_allclose(layer(x[:1], masks={"hidden": mask[:1]}), twin(x[:1]), atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("temporal", [False, True])
def test_weight_dropout_drops_the_right_taps(temporal, normalise):
    layer = make(
        kernel_size=3,
        weight_dropout=0.5,
        temporal_weight_dropout=temporal,
        weight_normalization=normalise,
        seed=1,
    )
    x = inputs()
    layer.build(x.shape)
    masks = layer.get_masks(2)
    assert masks["weight_hidden"].shape == (2 if temporal else 3, 5, 20)
    expected = make(kernel_size=3)
    expected.build(x.shape)
    kernels = []
    for name in ("input", "hidden"):
        kernel = np.array(getattr(layer, f"kernel_{name}"))
        mask = np.asarray(masks[f"weight_{name}"])
        kernel[: len(mask)] *= mask
        if normalise:
            norm = np.maximum(np.sqrt(np.square(kernel).sum((0, 1))), 1e-12)  # all dropped: 0
            kernel = kernel / norm * np.asarray(getattr(layer, f"gain_{name}"))
        kernels.append(kernel)
    expected.set_weights([*kernels, np.asarray(layer.bias)])
    np.testing.assert_allclose(layer(x, masks=masks), expected(x), atol=1e-5)


def test_weight_normalisation_starts_as_the_identity():
    layer, plain, x = make(weight_normalization=True), make(), inputs()
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(
        [np.asarray(w) for w in (layer.kernel_input, layer.kernel_hidden, layer.bias)]
    )
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)


@keras.saving.register_keras_serializable("test_trellis")
def leaky(pre, previous_hidden, previous_cell):
    return 0.9 * previous_hidden + 0.1 * keras.ops.tanh(pre)


def test_a_function_as_gates(tmp_path):
    layer, x = make(activation=leaky), inputs()
    check_config(layer)
    check_chunks(layer, x, [5, 6])
    model = wrap(layer, (None, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)


def test_gradients_under_jit_equal_the_graph():
    layer, x = make(levels=5, rematerialize=True), tf.constant(inputs())
    layer.build(x.shape)

    def run(jit_compile):
        function = tf.function(lambda: gradients(layer, x, training=True), jit_compile=jit_compile)
        return keras.tree.flatten(function())

    for a, b in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_errors_name_the_argument():
    for message, options in {
        "`levels` must be an integer of at least 1": {"levels": 0},
        "`dilation_rate` must be an integer of at least 1": {"dilation_rate": (1, 0)},
        r"`hidden_dropout` must be a number in \[0, 1\)": {"hidden_dropout": 1.0},
        "`auxiliary_frequency` must be at most `levels`": {"auxiliary_frequency": 9},
        r"`groups` must sum to `units \+ output_units`": {"groups": (1, 2)},
        "`state` must be one of": {"state": "both"},
    }.items():
        with pytest.raises(ValueError, match=message):
            make(**options)
    with pytest.raises(ValueError, match="activation"):
        make(activation="lstn")
    check_unknown_argument_refused(TrellisNet, units=2, output_units=2, levels=2)
    with pytest.raises(ValueError, match="must be built first"):
        make().get_initial_state(2)
    layer = make()
    with pytest.raises(ValueError, match="set `auxiliary_frequency`"):
        layer(inputs(), return_auxiliary=True)
    with pytest.raises(ValueError, match="`initial_state` must be a dict"):
        layer(inputs(), initial_state=1.0)
