"""What is not finite stays where it is: earlier steps, masked steps and other samples do not see
it, nor do gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq import layers, solvers

T, AT = 9, 6  # steps, and the first bad one


def makers():
    return {
        "SelfAttention": lambda: layers.SelfAttention(2),
        "SelfAttention span": lambda: layers.SelfAttention(2, span=3),
        "Transformer": lambda: layers.Transformer(4, 2, 2),
        "RelativeAttention": lambda: layers.RelativeAttention(2),
        "TransformerXL": lambda: layers.TransformerXL(2, 2, 8, memory_length=3),
        "RTransformer": lambda: layers.RTransformer(4, 2, 2, 1, 3),
        "LocalRNN gru": lambda: layers.LocalRNN(4, 3, cell="gru"),
        "LocalRNN lstm": lambda: layers.LocalRNN(4, 3, cell="lstm"),
        "LocalRNN rnn": lambda: layers.LocalRNN(4, 3, cell="rnn"),
        "LSTM": lambda: layers.LSTM(4),
        "PRU": lambda: layers.PRU(4),
        "PRU groups": lambda: layers.PRU(4, groups=2),
        "RecurrentStack": lambda: layers.RecurrentStack([layers.LSTM(4), layers.PRU(4)]),
        "KerasRecurrent": lambda: layers.KerasRecurrent(keras.layers.GRU(4)),
        "TCN": lambda: layers.TCN([4, 4], 2),
        "TrellisNet": lambda: layers.TrellisNet(4, 4, levels=3),
    }


def answers(layer, x, state, training, graph):
    """Outputs, and the gradient of a loss of the outputs before the bad step, by x."""

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            options = {} if state is None else {"initial_state": state}
            y = layer(x, training=training, **options)
            loss = tf.reduce_sum(tf.square(y[:, :AT]))
        return y, tape.gradient(loss, x)

    return [part.numpy() for part in (tf.function(run) if graph else run)(tf.constant(x))]


CASES = [  # training, with a state, what later steps hold, in a graph
    (True, False, np.nan, False),
    (True, True, np.inf, False),
    (True, False, 1e15, False),
    (False, True, np.nan, False),
    (False, False, np.nan, True),
]


SLOW = ("RTransformer", "RecurrentStack", "Transformer", "PRU groups", "LocalRNN lstm")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in sorted(makers())]
)
def test_later_steps_reach_neither_earlier_outputs_nor_their_gradients(name):
    layer, rng = makers()[name](), np.random.default_rng(0)
    x = rng.normal(size=(2, T, 4)).astype("float32")
    layer(x)
    for training, with_state, bad, graph in CASES:
        state = None
        if with_state and hasattr(layer, "get_initial_state"):
            _, state = layer(x[:, :3], return_state=True)
        given = np.array(x)
        given[0, AT:] = bad
        clean = answers(layer, x, state, training, False)
        outputs, gradient = answers(layer, given, state, training, graph)
        case = f"training={training}, state={with_state}, {bad}, graph={graph}"
        close = {"rtol": 1e-4, "atol": 1e-5, "err_msg": case}
        np.testing.assert_allclose(outputs[:, :AT], clean[0][:, :AT], **close)
        np.testing.assert_allclose(outputs[1], clean[0][1], **close)
        assert bad is not np.nan or np.isnan(outputs[0, AT:]).any(-1).all(), case
        np.testing.assert_allclose(gradient[:, :AT], clean[1][:, :AT], **close)


def test_a_span_ends_what_is_lost():
    layer = layers.SelfAttention(2, span=3)
    x = np.random.default_rng(0).normal(size=(1, T, 4)).astype("float32")
    want, given = np.asarray(layer(x)), np.array(x)
    given[0, 2] = np.nan
    got = np.asarray(layer(given))
    assert np.isnan(got[0, 2:5]).all()
    np.testing.assert_allclose(got[0, 5:], want[0, 5:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_masked_steps_contribute_nothing_whatever_they_hold(causal):
    layer = layers.SelfAttention(2, causal=causal)
    x = np.random.default_rng(0).normal(size=(2, T, 4)).astype("float32")
    mask = np.ones((2, T), bool)
    mask[0, 3:5] = False
    zeros = np.where(mask[..., None], x, 0).astype("float32")
    given = np.where(mask[..., None], x, np.nan).astype("float32")

    def run(x, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.boolean_mask(layer(x, mask=tf.constant(mask), training=training), mask)
            loss = tf.reduce_sum(tf.square(y))
        return y, tf.boolean_mask(tape.gradient(loss, x), mask)

    for training in (True, False):
        for got, want in zip(
            run(tf.constant(given), training), run(tf.constant(zeros), training), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_absent_steps_of_a_memory_contribute_nothing_whatever_they_hold():
    layer, rng = layers.RelativeAttention(2), np.random.default_rng(0)
    x, memory = (rng.normal(size=(2, n, 4)).astype("float32") for n in (5, 3))
    valid = np.array([[0, 0, 1], [1, 1, 1]], "float32")
    want = layer(x, memory=np.where(valid[..., None] > 0, memory, 0), valid=valid)
    got = layer(x, memory=np.where(valid[..., None] > 0, memory, np.nan), valid=valid)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_sample_that_is_not_finite_leaves_others_of_a_solve_alone():
    z = np.zeros((3, 4), "float32")
    c = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    bad = np.array(c)
    bad[1] = np.nan
    for solver in ("broyden", "anderson", "fixed_point", {"name": "broyden", "memory": 2}):
        want = solvers.solve(lambda z: 0.5 * ops.tanh(z) + c, z, solver)
        got = solvers.solve(lambda z: 0.5 * ops.tanh(z) + bad, z, solver)
        assert int(got.status[1]) == solvers.Status.NOT_FINITE and np.isinf(got.residual[1])
        np.testing.assert_allclose(
            np.asarray(got.value)[[0, 2]], np.asarray(want.value)[[0, 2]], rtol=1e-5
        )


@pytest.mark.parametrize("name", ["LSTM", "PRU", "TrellisNet", "TransformerXL"])
def test_a_state_in_variables_that_are_assigned_afterwards(name):
    layer = makers()[name]()
    x = tf.constant(np.random.default_rng(0).normal(size=(2, T, 4)), "float32")
    _, state = layer(x, return_state=True)

    def gradients(state, assign):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x, initial_state=state, training=True)))
        if assign:
            for variable in keras.tree.flatten(state):
                variable.assign(variable + 1)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    want = gradients(state, False)
    got = gradients(keras.tree.map_structure(tf.Variable, state), True)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_checks_for_infinities_are_silent_about_healthy_graphs():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 4)), "float32")
    cell = layers.DEQTrellisCell(4, 4)
    tried = {
        "DeepEquilibrium": layers.DeepEquilibrium(cell, max_steps=4),
        "line search": layers.DeepEquilibrium(
            layers.DEQTrellisCell(4, 4), solver={"name": "broyden", "line_search": True}
        ),
        "max pooling": layers.PRU(4, subsampling="max"),
        "SelfAttention": layers.SelfAttention(2),
    }
    for layer in tried.values():
        layer(x)
    model = keras_seq.models.LanguageModel(9, 4, layers.LSTM(4))
    model.build((None, None))

    @tf.function
    def gradient(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x, training=True)))
        return tape.gradient(loss, x)

    tf.debugging.enable_check_numerics()
    try:
        for name, layer in tried.items():
            assert np.isfinite(gradient(layer, x)).all(), name
        keras_seq.generation.generate_ids(model, np.array([[1, 2]]), [2], 3, top_k=3)
    finally:
        tf.debugging.disable_check_numerics()
