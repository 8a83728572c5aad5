"""Equilibria of padded rows: each solve is that of the row's valid steps alone."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import gradients, layers
from keras_seq.layers import DeepEquilibrium

WIDE = keras.initializers.RandomNormal(stddev=0.3, seed=2)
MASK = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 0, 1, 1, 0], [0] * 5], "bool")
ROWS = range(3)  # those with valid steps
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-9}
flatten = keras.tree.flatten


def trellis(**options):
    options = {"kernel_initializer": WIDE, "bias_initializer": WIDE, **options}
    return layers.DEQTrellisCell(3, 2, 2, dtype="float64", seed=1, **options)


def attention(**options):
    return layers.DEQTransformerCell(
        4,
        heads=2,
        inner_units=6,
        memory_length=3,
        kernel_initializer=WIDE,
        injection_initializer=keras.initializers.RandomNormal(stddev=3.0, seed=3),
        dtype="float64",
        **options,
    )


CELLS = {"trellis": trellis, "history": lambda: trellis(state="history"), "attention": attention}
GRADIENTS = {
    "implicit": layers.Implicit(),
    "phantom": layers.Phantom(3, damping=0.2),
    "one_step": layers.OneStep(),
    "unrolled": layers.Unrolled(damping=0.1),
}


def make(cell, **options):
    options = {"tolerance": 1e-4, "max_steps": 25, "dtype": "float64", **options}
    layer = DeepEquilibrium(cell, **options)
    layer.build((None, None, 3))
    return layer


def rows():
    return np.random.default_rng(0).normal(size=(*MASK.shape, 3))


def padded():
    return np.where(MASK[..., None], rows(), np.nan)


def alone(values, row):
    return values[row : row + 1, MASK[row]]


def answers(layer, x, mask, weights, **options):
    """Results of a training step, and the gradients of a sum of its outputs, by x and weights."""
    x = tf.constant(x)
    variables = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([x, *variables])
        options = {"return_solution": True, "return_state": True, **options}
        results = layer(x, mask=mask, training=True, masks={}, **options)
        loss = tf.reduce_sum(results[0] * weights[..., None])
    return results, tape.gradient(loss, [x, *variables], unconnected_gradients="zero")


def check_rows(layer, **options):
    """The law: outputs, what the solver says, states and gradients of rows are those alone."""
    weights = np.random.default_rng(1).normal(size=MASK.shape) * MASK
    guess = options.pop("guess", None)

    def asked(row=None):
        if guess is None:
            return options
        return {**options, "initial_guess": guess if row is None else alone(guess, row)}

    results, (dx, *d_weights) = answers(layer, padded(), MASK, weights, **asked())
    outputs, *auxiliary, solution, state = results
    sums = [np.zeros(part.shape) for part in d_weights]
    z = np.asarray(solution["equilibrium"])
    np.testing.assert_array_equal(z[~MASK], 0)
    for row in ROWS:
        results, (want_dx, *d_want) = answers(
            layer, alone(rows(), row), None, alone(weights, row), **asked(row)
        )
        want, *want_auxiliary, said, want_state = results
        np.testing.assert_allclose(outputs[row][MASK[row]], want[0], **CLOSE)
        for part, wanted in zip(auxiliary, want_auxiliary, strict=True):
            np.testing.assert_allclose(np.asarray(part)[row][:, MASK[row]], wanted[0], **CLOSE)
        np.testing.assert_allclose(z[row][MASK[row]], said["equilibrium"][0], **CLOSE)
        for name in ("steps", "status"):
            assert int(solution[name][row]) == int(said[name][0]), name
        np.testing.assert_allclose(solution["residual"][row], said["residual"][0], rtol=1e-4)
        for now, then in zip(flatten(state), flatten(want_state), strict=True):
            np.testing.assert_allclose(now[row], then[0], **CLOSE)
        np.testing.assert_allclose(dx[row][MASK[row]], want_dx[0], **CLOSE)
        sums = [a + b for a, b in zip(sums, d_want, strict=True)]
    np.testing.assert_array_equal(dx[~MASK], 0)
    for now, then in zip(d_weights, sums, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-8)
    start = flatten(layer.get_initial_state(len(MASK)))
    for now, then in zip(flatten(state), start, strict=True):
        np.testing.assert_array_equal(now[3], then[3])  # a row without valid steps keeps its state
    return solution


QUICK = {("trellis", "implicit"), ("attention", "implicit")}


@pytest.mark.parametrize(
    ("cell", "gradient"),
    [
        pytest.param(c, g, marks=[pytest.mark.slow] * ((c, g) not in QUICK))
        for c in CELLS
        for g in GRADIENTS
    ],
)
def test_a_padded_row_is_solved_as_the_row_alone(cell, gradient):
    few = {"max_steps": 6} if gradient == "unrolled" else {}  # or what is left is rounding
    layer = make(CELLS[cell](), gradient=GRADIENTS[gradient], **few)
    solution = check_rows(layer)
    if gradient != "unrolled":
        assert len(set(np.asarray(solution["steps"])[:3])) > 1  # each row for itself
        assert int(solution["steps"][3]) == 0
    assert int(solution["status"][3]) == 1


OPTIONS = {
    "anderson": {"solver": "anderson"},
    "few pairs": {"solver": {"name": "broyden", "memory": 2}, "stop": "absolute"},
    "line search": {"solver": {"name": "broyden", "line_search": True}},
    "pieces": {"subsequence_length": 2},
    "levels": {"pretraining": layers.Pretraining(5, levels=3)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_with_other_solvers_and_in_pieces(name):
    check_rows(make(trellis(), **OPTIONS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["trellis", "attention"])
def test_from_a_guess_with_iterates_supervised(cell):
    layer = make(CELLS[cell](), correction=layers.FixedPointCorrection((1, 3)))
    guess = np.random.default_rng(5).normal(size=(*MASK.shape, layer.state_units))
    guess[~MASK] = np.nan
    check_rows(layer, guess=guess, return_auxiliary=True)


@pytest.mark.parametrize("pieces", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_regularization_and_metrics_count_valid_steps_alone(pieces, monkeypatch):
    monkeypatch.setattr(gradients, "draw_vectors", lambda z, *_: [ops.ones_like(z)])
    jacobian = layers.JacobianRegularization(0.5)
    layer = make(trellis(), jacobian=jacobian, subsequence_length=pieces, tolerance=1e-9)
    _, solution = layer(padded(), mask=MASK, training=True, return_solution=True)
    (loss, *_), steps = layer.losses, np.asarray(solution["steps"])[:3]
    assert float(layer.solver_metrics["steps"].result()) == pytest.approx(steps.mean())
    assert float(layer.solver_metrics["failures"].result()) == 0
    if pieces:
        return  # each piece has a loss of its own
    layer(rows()[:1] * np.nan, mask=MASK[3:] | MASK[:1], training=True)
    assert float(layer.solver_metrics["failures"].result()) == pytest.approx(1 / 4)
    total = 0.0
    for row in ROWS:
        layer(alone(rows(), row), training=True)
        total += float(layer.losses[-1]) * MASK[row].sum()
    assert float(loss) == pytest.approx(total / MASK.sum(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [True, False])
def test_the_solution_alone(backwards):
    layer = make(trellis(), go_backwards=backwards, solver="anderson")
    found = layer.solve(padded(), mask=MASK)
    _, called = layer(padded(), mask=MASK, return_solution=True)
    np.testing.assert_allclose(found.value, called["equilibrium"], rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(found.steps, called["steps"])
    for row in ROWS:
        one = alone(rows(), row)
        want = layer.solve(one)
        assert int(found.steps[row]) == int(want.steps[0])
        np.testing.assert_allclose(np.asarray(found.value)[row][MASK[row]], want.value[0], **CLOSE)
    np.testing.assert_array_equal(np.asarray(found.value)[~MASK], 0)
    again = layer(padded(), mask=MASK, initial_guess=called["equilibrium"], return_solution=True)[1]
    assert int(np.max(again["steps"])) <= 1  # the guess stands where its steps do


def test_what_is_for_the_steps_of_x_is_refused_with_a_lookahead():
    layer = make(trellis(), lookahead=1)
    with pytest.raises(ValueError, match="`return_solution` must be left out with `lookahead`"):
        layer(rows(), return_solution=True)
    with pytest.raises(ValueError, match="`initial_guess` must be left out with `lookahead`"):
        layer(rows(), initial_guess=np.zeros((4, 5, 10)))


# Cells of users -----------------------------------------------------------------------------------


class Everywhere(layers.EquilibriumCell):
    """Each step sees the mean of all."""

    def build(self, z_shape, x_shape):
        super().build(x_shape)

    def prepare(self, x, training=None, initial_state=None, masks=None, mask=None):
        count = ops.ones_like(x[:, :, 0]) if mask is None else ops.cast(mask, x.dtype)
        return {"x": x, "count": ops.maximum(ops.sum(count, axis=1), 1)[:, None, None]}

    def iterate(self, z, context):
        mean = ops.sum(z, axis=1, keepdims=True) / context["count"]
        return ops.tanh(0.4 * z - 0.5 * mean + context["x"])


class Plain(keras.layers.Layer):
    """A function of one step."""

    def call(self, z, x):
        return ops.tanh(0.5 * z + x)


class Remembering(keras.layers.Layer):
    """A cell with state that knows nothing of masks."""

    def call(self, z, x, initial_state=None):
        past = ops.zeros_like(z[:, :1]) if initial_state is None else initial_state[:, None]
        return ops.tanh(0.5 * ops.concatenate([past, z[:, :-1]], axis=1) + x)

    def get_initial_state(self, batch_size):
        return ops.zeros((batch_size, 3), "float64")

    def next_state(self, z, x, initial_state):
        return z[:, -1]


def outputs_are_those_alone(layer):
    outputs = np.asarray(layer(padded(), mask=MASK))
    for row in ROWS:
        np.testing.assert_allclose(outputs[row][MASK[row]], layer(alone(rows(), row))[0], **CLOSE)


def test_a_cell_that_sees_all_steps_is_given_the_mask():
    layer = make(Everywhere(dtype="float64"))  # pyright: ignore[reportCallIssue]
    outputs_are_those_alone(layer)
    radius = layer.spectral_radius(padded(), mask=MASK, steps=60)
    wanted = [layer.spectral_radius(alone(rows(), row), steps=60)[0] for row in ROWS]
    np.testing.assert_allclose(radius, [*wanted, 0], rtol=0.02)


def test_a_cell_that_may_not_heed_a_mask_is_named():
    layer = make(Plain(dtype="float64", name="plain"))
    with pytest.warns(UserWarning, match=r"`mask` reaches a Plain \(layer 'plain'\)"):
        outputs_are_those_alone(layer)
    layer.cell.supports_masking = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs_are_those_alone(layer)


def test_a_state_that_cannot_be_given_is_refused():
    layer = make(Remembering(dtype="float64", name="past"))
    outputs_are_those_alone(layer)
    for options, asked in (({}, {"return_state": True}), ({"subsequence_length": 2}, {})):
        layer = make(Remembering(dtype="float64", name="past"), **options)
        with pytest.raises(ValueError, match=r"state of a Remembering \(layer 'past'\) is needed"):
            layer(padded(), mask=MASK, **asked)
