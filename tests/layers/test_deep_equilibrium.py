"""The deep equilibrium layer: its gradients, its switches, and what it does when cells fail."""

import subprocess
import sys

import keras
import layer_checks as checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell, EquilibriumCell
from keras_seq.solvers import Broyden, Status

TIGHT = {"tolerance": 1e-10, "max_steps": 100, "dtype": "float64"}


@keras.saving.register_keras_serializable("tests")
class TanhCell(keras.layers.Layer):
    """tanh(gain · (z + z one step in the past) W + x U + b), with one dropout mask a call."""

    def __init__(self, units, gain=0.5, rate=0.0, **options):
        super().__init__(**options)
        self.units, self.gain, self.rate = units, gain, rate
        self.inner = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy)
        self.outer = keras.layers.Dense(units, dtype=self.dtype_policy)
        self.generator = keras.random.SeedGenerator(3)

    def build(self, z_shape, x_shape):
        self.inner.build(z_shape)
        self.outer.build(x_shape)

    def prepare(self, x, training=None):
        context = {"x": self.outer(x)}
        if training and self.rate:
            shape = (ops.shape(x)[0], 1, self.units)
            mask = keras.random.dropout(
                ops.ones(shape, self.compute_dtype), self.rate, seed=self.generator
            )
            context["mask"] = mask
        return context

    def iterate(self, z, context):
        z = z * context["mask"] if "mask" in context else z
        past = ops.pad(z[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return ops.tanh(self.gain * self.inner(z + past) + context["x"])

    def call(self, z, x, training=None):
        return self.iterate(z, self.prepare(x, training))

    def get_config(self):
        own = {"units": self.units, "gain": self.gain, "rate": self.rate}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tests")
class RootCell(keras.layers.Layer):
    """√(z w + x): not a number where x is far below zero, with an infinite slope at zero."""

    def build(self, z_shape, x_shape):
        self.scale = self.add_weight(shape=(z_shape[-1],), initializer="ones")

    def call(self, z, x):
        return ops.sqrt(0.2 * z * self.scale + x)


def make(units=4, **options):
    dtype = options.get("dtype", "float32")
    cell = options.pop("cell", None) or TanhCell(units, dtype=dtype)
    return DeepEquilibrium(cell, **options)


def data(shape=(3, 5, 2), dtype="float64"):
    return np.random.default_rng(2).normal(size=shape).astype(dtype)


def gradients_of(layer, x, **call):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, **call)
        coefficients = np.random.default_rng(0).normal(size=outputs.shape)
        loss = tf.reduce_sum(outputs * tf.cast(coefficients, outputs.dtype))
    values = tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])
    return [tf.convert_to_tensor(value).numpy() for value in values]


def twin(layer, **options):
    """A layer with the same weights and other options."""
    config = {**layer.get_config(), "name": None, **options}
    other = DeepEquilibrium.from_config(config)
    other.build((3, 5, 2))
    other.set_weights(layer.get_weights())
    return other


@pytest.fixture(scope="module")
def layer():
    keras.utils.set_random_seed(3)
    made = make(**TIGHT)
    made(data())
    return made


def test_output_is_the_fixed_point(layer):
    x = data()
    z = layer(x)
    np.testing.assert_allclose(layer.cell(z, x), z, atol=1e-9)


def test_implicit_equals_the_exact_dense_solve(layer):
    """The adjoint (1 - Jᵀ)⁻¹ g with J written out, for one sample after another."""
    x = data()
    z = tf.constant(layer.solve(x).value)
    coefficients = np.random.default_rng(0).normal(size=z.shape)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = layer.cell(z, x)
    jacobian = tape.batch_jacobian(value, z)
    size = z.shape[1] * z.shape[2]
    jacobian = np.reshape(jacobian, (3, size, size))
    right = coefficients.reshape(3, size, 1)
    adjoint = np.linalg.solve(np.eye(size) - np.swapaxes(jacobian, 1, 2), right)
    inputs = tf.constant(x)
    weights = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = layer.cell(z, inputs)
    exact = tape.gradient(value, [inputs, *weights], adjoint.reshape(value.shape))
    for got, want in zip(gradients_of(layer, x), exact, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["fixed_point", "anderson", "broyden"])
def test_implicit_equals_unrolled(solver, layer):
    unrolled = twin(layer, gradient="unrolled", max_steps=120)
    implicit = twin(layer, solver=solver, max_steps=300)
    want = gradients_of(unrolled, data(), training=True)
    for got, exact in zip(gradients_of(implicit, data(), training=True), want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-8)


class Compiled:
    """A layer whose call is a graph: many calls take less time."""

    def __init__(self, layer):
        self.trainable_variables = layer.trainable_variables
        self.run = tf.function(lambda x: layer(x))

    def __call__(self, x):
        return self.run(tf.convert_to_tensor(x))


def test_finite_differences(layer):
    checks.check_gradients(Compiled(layer), data(), probes=2)


def test_phantom_approaches_implicit(layer):
    """One step is the cut at the first term; more steps leave less of the error."""
    want = np.concatenate([g.ravel() for g in gradients_of(layer, data())])
    errors = []
    for options in (
        {"gradient": "one_step"},
        {"gradient": "phantom", "phantom_steps": 1},
        {"gradient": "phantom", "phantom_steps": 4},
        {"gradient": "phantom", "phantom_steps": 60, "damping": 0.3},
    ):
        got = np.concatenate([g.ravel() for g in gradients_of(twin(layer, **options), data())])
        errors.append(np.linalg.norm(got - want))
    assert errors[0] == pytest.approx(errors[1])
    assert errors[1] > 2 * errors[2] and errors[3] < 1e-5 * errors[0]


def test_second_derivatives_are_refused(layer):
    x = tf.constant(data())
    with pytest.raises(NotImplementedError, match="unrolled"), tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            total = tf.reduce_sum(layer(x) ** 2)
        outer.gradient(tf.reduce_sum(inner.gradient(total, x) ** 2), x)


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_gradients_equal_eager(jit, layer):
    x = data()
    want = gradients_of(layer, x)

    @tf.function(jit_compile=jit)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            coefficients = np.random.default_rng(0).normal(size=outputs.shape)
            loss = tf.reduce_sum(outputs * coefficients)
        return tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])

    for got, exact in zip(run(tf.constant(x)), want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-8)


def test_warm_start_takes_fewer_steps(layer):
    x = data()
    z, cold = layer(x, return_solution=True)
    again, warm = layer(x + 1e-6, initial_guess=z, return_solution=True)
    assert np.all(ops.convert_to_numpy(warm["steps"]) < ops.convert_to_numpy(cold["steps"]))
    np.testing.assert_allclose(again, z, atol=1e-4)


def test_limits_of_training_and_inference(layer):
    limited = twin(layer, max_steps=3, inference_max_steps=100, tolerance=1e-9)
    for training, status in ((True, Status.MAX_STEPS), (False, Status.CONVERGED)):
        _, solution = limited(data(), training=training, return_solution=True)
        assert np.all(ops.convert_to_numpy(solution["status"]) == status)


@keras.saving.register_keras_serializable("tests")
class DropoutCell(keras.layers.Layer):
    """tanh(W dropout(z) + x), with Keras' own dropout in the call."""

    def build(self, z_shape, x_shape):
        self.inner = keras.layers.Dense(z_shape[-1])
        self.inner.build(z_shape)
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, z, x, training=None):
        return ops.tanh(0.3 * self.inner(self.dropout(z, training=training)) + x)


@pytest.mark.parametrize("cell", [TanhCell(4, rate=0.5), DropoutCell()])
def test_dropout_is_one_mask_a_call(cell):
    layer = make(cell=cell, tolerance=1e-5, max_steps=60)
    x = data(dtype="float32")
    z, solution = layer(x, training=True, return_solution=True)
    assert np.all(ops.convert_to_numpy(solution["status"]) == Status.CONVERGED)
    other = layer(x, training=True)
    assert np.abs(np.asarray(z) - np.asarray(other)).max() > 1e-3


def model_of(layer, shape=(5, 2)):
    inputs = keras.Input((None, shape[1]))
    outputs = keras.layers.Dense(1)(layer(inputs))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_fit_with_pretraining_and_jacobian_loss(jit, tmp_path):
    layer = make(
        pretrain_steps=3,
        pretrain_levels=2,
        jacobian_weight=0.1,
        jacobian_frequency=0.5,
        name="equilibrium",
    )
    model = model_of(layer)
    model.compile("sgd", "mse", jit_compile=jit)
    x = data((4, 5, 2), "float32")
    y = x[:, :, :1]
    history = model.fit(x, y, batch_size=2, epochs=1, verbose=0).history
    assert history["equilibrium_steps"][0] == pytest.approx(2.0)
    assert int(layer.steps_taken.value) == 2
    if jit:
        return
    model.save(tmp_path / "m.keras")
    model = keras.models.load_model(tmp_path / "m.keras")
    history = model.fit(x, y, batch_size=2, epochs=3, verbose=0).history
    # The third step is the last unrolled one; then the solver takes over.
    assert history["equilibrium_steps"][0] > 2.0 and history["equilibrium_steps"][2] > 2.5
    assert history["equilibrium_failures"][2] == 0.0
    assert np.all(np.isfinite(history["loss"]))


def test_cells_that_fail_leave_weights_finite():
    layer = DeepEquilibrium(RootCell(), max_steps=5, name="root")
    model = model_of(layer)
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x = np.abs(data((4, 5, 2), "float32")) + 1
    x[1] = -5.0
    history = model.fit(x, x[:, :, :1], epochs=3, verbose=0).history
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    assert np.all(np.isfinite(history["loss"])) and history["root_failures"][0] >= 0.25
    assert history["loss"][2] < history["loss"][0]


def test_mixed_precision():
    def factory(dtype):
        return make(dtype=dtype, tolerance=1e-3)

    checks.check_mixed_precision(factory, data(dtype="float32"))
    layer = make(dtype="mixed_bfloat16")
    assert all(np.all(np.isfinite(g)) for g in gradients_of(layer, data(dtype="float32")))


@pytest.mark.slow
def test_saved_nests_load_in_a_fresh_process(tmp_path):
    layer = DeepEquilibrium(
        DEQTrellisCell(4, 3, weight_normalization=True),
        solver=Broyden(memory=8),
        backward_solver={"name": "anderson", "memory": 4},
        tolerance=1e-5,
    )
    model = checks.wrap(layer, (None, 2))
    x = data((2, 5, 2), "float32")
    checks.check_fresh_process([(model, x)], tmp_path / "fresh", rtol=1e-4)
    checks.check_export(model, [x, data((3, 7, 2), "float32")], tmp_path / "export")


def test_configuration():
    layer = make(solver={"name": "anderson", "memory": 3}, backward_solver="broyden", seed=3)
    revived = checks.check_config(layer)
    assert revived.solver.memory == 3  # pyright: ignore
    checks.check_unknown_argument_refused(DeepEquilibrium, cell=TanhCell(2))
    refused: list[dict] = [
        {"gradient": "exact"},
        {"max_steps": 0},
        {"backward_max_steps": 0},
        {"stop": "rel"},
        {"damping": 1.0},
        {"phantom_steps": 0},
        {"jacobian_frequency": 2},
        {"solver": "newton"},
    ]
    for wrong in refused:
        with pytest.raises(ValueError, match="Received"):
            make(**wrong)
    with pytest.raises(ValueError, match="Keras layer"):
        DeepEquilibrium(lambda z, x: z)
    with pytest.raises(ValueError, match="shape of its first argument"):
        DeepEquilibrium(TanhCell(4), units=3)(data(dtype="float32"))


@pytest.mark.slow
def test_under_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    x = data((4, 5, 2), "float32")
    with strategy.scope():
        model = model_of(make())
        model.compile("sgd", "mse")
    history = model.fit(x, x[:, :, :1], batch_size=2, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


_MEMORY = """
import resource, sys
import numpy as np, tensorflow as tf, keras
from keras import ops
from keras_seq.layers import DeepEquilibrium

class Cell(keras.layers.Layer):
    def build(self, z_shape, x_shape):
        self.scale = self.add_weight(shape=(z_shape[-1],), initializer="ones")
    def call(self, z, x):
        return ops.tanh(0.97 * ops.sin(z * self.scale)) + x

x = tf.random.normal((4, 1000, 256), seed=1)
layer = DeepEquilibrium(
    Cell(), gradient=sys.argv[1], max_steps=int(sys.argv[2]), tolerance=0.0,
    solver={"name": "broyden", "memory": 8},
)
layer.build(x.shape)
@tf.function
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True))
    return tape.gradient(loss, layer.cell.scale.value)
step(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(gradient, steps):
    """Peak memory of a process that makes one step of training with so many solver steps."""
    command = [sys.executable, "-c", _MEMORY, gradient, str(steps)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    return int(result.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    few, many = peak("implicit", 10), peak("implicit", 160)
    assert many <= 1.02 * few
    assert peak("unrolled", 160) > 1.5 * many


@pytest.mark.parametrize("gradient", ["implicit", "one_step", "phantom"])
@pytest.mark.parametrize("solver", ["broyden", "fixed_point"])
def test_second_derivatives_are_refused_eagerly_too(solver, gradient):
    """Eagerly too, where a tape would take what the solver found for a constant."""
    layer = keras_seq.layers.DeepEquilibrium(
        keras_seq.layers.DEQTrellisCell(4, 3), solver=solver, gradient=gradient, max_steps=4
    )
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3)), "float32")

    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.reduce_sum(layer(x, training=True))
            first = tf.reduce_sum(tape.gradient(y, x))
        return outer.gradient(first, x)

    for run in (second, tf.function(second)):
        with pytest.raises(NotImplementedError, match="second derivative"):
            run(x)


def test_the_old_format_is_refused_by_models_before_anything_is_written(tmp_path):
    model = keras_seq.models.LanguageModel(9, 4, keras_seq.layers.LSTM(4))
    model.build((None, None))
    with pytest.raises(ValueError, match="`filepath` must end in .keras"):
        model.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())
    outer = keras.Sequential([keras.Input((None,), dtype="int32"), model])
    for saved in (model, outer):
        with pytest.raises(ValueError, match="`filepath` must end in .keras"):
            keras.saving.save_model(saved, tmp_path / "model.h5")


class WeightCell(EquilibriumCell):
    """A cell whose context holds a weight, read or as it is."""

    def __init__(self, read: bool):
        super().__init__()
        self.read = read

    def build(self, z_shape, x_shape):
        near = keras.initializers.RandomNormal(stddev=0.1, seed=1)
        self.kernel = self.add_weight(shape=(3, 3), initializer=near)

    def prepare(self, x, training=None, initial_state=None, masks=None):
        kernel = ops.convert_to_tensor(self.kernel) if self.read else self.kernel
        return {"kernel": kernel, "x": x}

    def iterate(self, z, context):
        return ops.tanh(ops.matmul(z, context["kernel"]) + context["x"])


@pytest.mark.parametrize("gradient", ["implicit", "phantom", "one_step", "unrolled"])
def test_a_variable_in_the_context(gradient):
    """Eagerly, too, it is read first, as written gradients need it."""
    x, found = np.ones((2, 3, 3), "float32"), []
    for read in (False, True):
        cell = WeightCell(read)
        layer = DeepEquilibrium(cell, gradient=gradient)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        found.append(tape.gradient(loss, cell.kernel.value))
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
