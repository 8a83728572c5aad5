"""The ways to run a trellis against the naive one, values and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.layers import TrellisNet
from keras_seq.ops.trellis import fused_inputs, run
from keras_seq.ops.trellis.naive import run_naive
from keras_seq.ops.trellis.step import run_step

WIDE = keras.initializers.RandomNormal(stddev=0.5, seed=5)
SHAPES = {
    "plain": {},
    "one_tap": {"kernel_size": 1},
    "three_taps": {"kernel_size": 3, "dilation_rate": (1, 2)},
    "past_longer_than_input": {"dilation_rate": (1, 4, 2)},
    "sparse_injection": {"injection_frequency": 3, "dilation_rate": (1, 2)},
    "hidden_dropout": {"hidden_dropout": 0.4, "kernel_size": 3},
    "rematerialized": {"rematerialize": True, "dilation_rate": (2, 1), "hidden_dropout": 0.4},
}


def make(**options):
    options = {"kernel_initializer": WIDE, "bias_initializer": WIDE, **options}
    layer = TrellisNet(2, 2, levels=4, auxiliary_frequency=2, dtype="float64", seed=1, **options)
    layer.build((None, None, 3))
    return layer


def random_state(layer, kind, batch):
    zeros = layer.get_initial_state(batch, kind=kind)
    rng = np.random.default_rng(1)
    return keras.tree.map_structure(lambda x: tf.constant(rng.normal(size=x.shape)), zeros)


def loss_of(results):
    """A sum of all outputs with fixed random weights."""
    rng, total = np.random.default_rng(2), 0.0
    for part in keras.tree.flatten(results):
        weights = tf.constant(rng.normal(size=(64, 64, 64, 8)))
        shape = tf.concat([tf.ones(4 - len(part.shape), "int32"), tf.shape(part)], 0)
        weights = tf.reshape(
            weights[: shape[0], : shape[1], : shape[2], : shape[3]], tf.shape(part)
        )
        total += tf.reduce_sum(part * weights)
    return total


def gradients(layer, x, state, training, masks):
    given = [] if state is None else keras.tree.flatten(state)
    sources = [x, *given, *[w.value for w in layer.trainable_variables]]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results = layer(
            x,
            initial_state=state,
            return_state=True,
            return_auxiliary=True,
            training=training,
            masks=masks,
        )
        loss = loss_of(results)
    return loss, tape.gradient(loss, sources, unconnected_gradients="zero")


@pytest.fixture(params=[False, True], ids=["added_input", "folded_input"])
def folded(request, monkeypatch):
    """Whether inputs of any width are folded into the levels, or only narrow ones."""
    if request.param:
        monkeypatch.setattr(fused_inputs, "_FOLDED_SHARE", 0)
    return request.param


def test_only_narrow_inputs_are_folded(folded):
    layer = make()
    assert fused_inputs.folds_input(layer._plan, 3) == folded
    wide = TrellisNet(120, 10, levels=2)
    wide.build((None, None, 1))
    assert fused_inputs.folds_input(wide._plan, 1)
    sparse = make(**SHAPES["sparse_injection"])
    assert not fused_inputs.folds_input(sparse._plan, 3)


def naively(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(run, "choose_runner", lambda *_: run_naive)
        return keras.tree.flatten(gradients(*arguments))


@pytest.mark.parametrize(
    ("kind", "folded"),
    [(None, False), ("history", False), ("exact", False), ("exact", True)],
    indirect=["folded"],
)
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_equals_the_naive_trellis(options, kind, folded, monkeypatch):
    """Outputs, auxiliary outputs and returned state, by inputs, initial state and weights."""
    layer = make(**options)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3)))
    state = None if kind is None else random_state(layer, kind, 2)
    masks = layer.get_masks(2)
    expected = naively(monkeypatch, layer, x, state, True, masks)
    for training in (True,) if folded else (False, True):
        got = keras.tree.flatten(gradients(layer, x, state, training, masks))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["three_taps", "sparse_injection", "hidden_dropout"])
def test_a_step_equals_the_naive_trellis(name, monkeypatch):
    layer = make(**SHAPES[name])
    x, state = tf.ones((2, 1, 3), "float64"), random_state(layer, "exact", 2)
    masks = layer.get_masks(2)
    expected = naively(monkeypatch, layer, x, state, False, masks)
    chosen, choose = [], run.choose_runner

    def recorded(*arguments):
        chosen.append(choose(*arguments))
        return chosen[-1]

    monkeypatch.setattr(run, "choose_runner", recorded)
    got = keras.tree.flatten(gradients(layer, x, state, False, masks))
    assert chosen == [run_step]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        pytest.param("past_longer_than_input", True, marks=pytest.mark.slow),
        pytest.param("past_longer_than_input", False, marks=pytest.mark.slow),
        pytest.param("three_taps", False, marks=pytest.mark.slow),
        pytest.param("three_taps", True, marks=pytest.mark.slow),
        pytest.param("rematerialized", False, marks=pytest.mark.slow),
    ],
    indirect=["folded"],
)
def test_sizes_need_not_be_known(name, folded):
    layer = make(**SHAPES[name])
    x, state = np.random.default_rng(0).normal(size=(2, 3, 3)), random_state(layer, "exact", 2)
    masks = layer.get_masks(2)
    expected = keras.tree.flatten(gradients(layer, tf.constant(x), state, True, masks))
    free = tf.TensorSpec((None, None, 3), "float64")
    run = tf.function(lambda x: gradients(layer, x, state, True, masks), (free,))
    for a, b in zip(keras.tree.flatten(run(x)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_low_precision_sums_are_made_in_float32(folded):
    """The kernel's and the input's gradient add up many levels without losing the small terms."""
    options = {"kernel_initializer": WIDE, "bias_initializer": WIDE}
    x = np.random.default_rng(0).normal(size=(4, 9, 3)).astype("float32")
    results = []
    for dtype in ("float32", "mixed_bfloat16"):
        layer = TrellisNet(3, 3, levels=30, dtype=dtype, **options)
        layer.build(x.shape)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(x, training=True), "float32"))
        results.append(tape.gradient(loss, [w.value for w in layer.trainable_variables]))
    for single, half in zip(*results, strict=True):
        assert half.dtype == "float32"
        error = np.abs(half - single).max() / np.abs(single).max()
        assert error < 0.05


def test_a_second_derivative_is_refused_in_training_only():
    layer = make()
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 3)))

    def penalty(training):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=training) ** 2)
            square = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(square, x)

    assert np.abs(penalty(False)).max() > 0
    with pytest.raises(NotImplementedError, match="training=False"):
        penalty(True)


@pytest.mark.parametrize("rematerialize", [False, True])
def test_a_persistent_tape_gives_the_gradient_twice(rematerialize):
    layer = make(rematerialize=rematerialize)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 3)))
    weights = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
    first, second = (tape.gradient(loss, weights) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
