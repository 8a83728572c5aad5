"""Training through deep equilibrium layers: precision, XLA, failures, metrics, nests, replicas."""

import json
import subprocess
import sys
import warnings

import keras
import layer_checks as checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import gradients, training
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell

WIDE = keras.initializers.RandomNormal(stddev=0.3, seed=2)


def data(shape=(4, 6, 3)):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def model_of(layer, dtype=None, features=3):
    inputs = keras.Input((None, features))
    outputs = keras.layers.Dense(1, dtype="float32")(layer(inputs))
    del dtype
    return keras.Model(inputs, outputs)


def trellis(dtype=None, **options):
    cell = DEQTrellisCell(
        5, 3, weight_normalization=True, kernel_initializer=WIDE, seed=1, dtype=dtype
    )
    return DeepEquilibrium(cell, name="deq", dtype=dtype, **options)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_jacobian_loss_of_some_steps(mode):
    """Where drawn it has its value and gradients, else none; XLA must know the transpositions."""
    vectors = [ops.convert_to_tensor(data())]

    def run(drawn, kernel, z):
        def f(z):
            steps_last = ops.transpose(z, (0, 2, 1))
            return ops.tanh(ops.transpose(ops.matmul(kernel, steps_last), (0, 2, 1)))

        def measured():
            return gradients.jacobian_loss(f, z, vectors)

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(kernel)
            some = 3.0 * gradients.if_drawn(drawn, measured, [kernel])
            of_every = 3.0 * measured()
        return some, tape.gradient(some, kernel), of_every, tape.gradient(of_every, kernel)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    kernel = tf.constant(data((3, 3)))
    loss, slope, expected, expected_slope = run(tf.constant(True), kernel, vectors[0])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-6)
    assert float(np.abs(slope).max()) > 0.01
    loss, slope, *_ = run(tf.constant(False), kernel, vectors[0])
    assert float(loss) == 0 and not np.any(slope)


def test_jacobian_loss_of_some_steps_under_a_loss_scale():
    """In float16 small gradients are there once the loss is scaled, and only then."""
    vectors = [tf.ones((64, 32, 8), "float16")]
    kernel, z = tf.constant(0.5, "float16"), tf.ones((64, 32, 8), "float16")
    slopes = []
    for scale in (1.0, 2.0**15):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = gradients.if_drawn(
                tf.constant(True),
                lambda: gradients.jacobian_loss(lambda z: kernel * z, z, vectors),
                [kernel],
            )
            loss = loss * scale * 2.0**-12
        slopes.append(float(tape.gradient(loss, kernel)))
    assert slopes[0] == 0 and slopes[1] == pytest.approx(2**3, rel=0.01)


def test_jacobian_loss_is_drawn_as_often_as_asked():
    layer = trellis(jacobian_weight=1.0, jacobian_frequency=0.3)
    layer.build((4, 6, 3))

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            layer(x, training=True)
            (loss,) = layer.losses
        return loss, tape.gradient(loss, layer.cell.trainable_variables[0].value)

    found = [run(tf.constant(data())) for _ in range(60)]
    drawn = [float(loss) > 0 for loss, _ in found]
    assert 6 <= sum(drawn) <= 32  # beyond 99.9% of all draws
    assert drawn == [bool(np.any(slope)) for _, slope in found]


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_mixed_precision_trains_as_float32_does(policy):
    """float16 with its loss scale too. Weights stay float32, and the loss goes the same way."""
    x = data()
    y = np.cumsum(x, axis=1)[..., :1]
    losses = {}
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(0)
        model = model_of(trellis(dtype))
        optimizer = keras.optimizers.Adam(0.02)
        if dtype == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
        model.compile(optimizer, "mse", jit_compile=False)
        losses[dtype] = model.fit(x, y, epochs=12, verbose=0).history["loss"]
        assert all(weight.dtype == "float32" for weight in model.trainable_variables)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert losses[policy][-1] < 0.8 * losses[policy][0]
    np.testing.assert_allclose(losses[policy], losses["float32"], rtol=0.05)


def test_xla_takes_as_many_steps_as_the_data_need():
    """One compiled program: easy data stop early, hard data go on."""
    layer = trellis(max_steps=40, tolerance=1e-5)
    layer.build((4, 6, 3))
    run = tf.function(
        lambda x: layer(x, return_solution=True)[1]["steps"],
        jit_compile=True,
        input_signature=[tf.TensorSpec((4, 6, 3))],
    )
    zero, easy, hard = (int(np.max(run(tf.constant(scale * data())))) for scale in (0.0, 0.1, 3.0))
    assert zero != easy and easy != hard and max(zero, easy, hard) < 40
    for scale, steps in ((0.0, zero), (0.1, easy), (3.0, hard)):
        _, solution = layer(scale * data(), return_solution=True)
        assert abs(int(np.max(solution["steps"])) - steps) <= 1


@keras.saving.register_keras_serializable("tests")
class GrowingCell(keras.layers.Layer):
    """z ← a z² + x: without a fixed point where x is large, and then without bound."""

    def build(self, z_shape, x_shape):
        self.scale = self.add_weight(shape=(z_shape[-1],), initializer="ones")

    def call(self, z, x):
        return ops.square(z) * self.scale + ops.exp(x)


@pytest.mark.parametrize(
    "solver,jit",
    [
        ("broyden", True),
        ("anderson", False),
        *(
            pytest.param(solver, jit, marks=pytest.mark.slow)
            for solver, jit in (
                ("broyden", False),
                ("anderson", True),
                ("fixed_point", False),
                ("fixed_point", True),
            )
        ),
    ],
)
def test_diverging_cells_leave_weights_finite_and_training_goes_on(solver, jit):
    layer = DeepEquilibrium(GrowingCell(), solver=solver, max_steps=12, name="deq")
    model = model_of(layer)
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=jit)
    x = data()
    x[0], x[1], x[2:] = 30.0, 4.0, x[2:] - 6  # two hopeless samples among easy ones
    history = model.fit(x, x[..., :1], batch_size=2, epochs=3, verbose=0).history
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["deq_residual"]).all()
    assert history["deq_failures"][0] >= 0.5


def test_callback_stops_after_many_in_a_row():
    layer = DeepEquilibrium(GrowingCell(), solver="fixed_point", max_steps=30, name="deq")
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(0.0), "mse")  # the weights stay
    callback = training.StopOnDivergence(patience=5)
    easy, lost = data((6, 6, 3)) / 9 - 6, np.full((14, 6, 3), 5.0, "float32")
    x = np.concatenate([lost[:3], easy, lost])  # three in a row are not enough
    y = np.zeros((*x.shape[:2], 1))
    with pytest.warns(UserWarning, match="5 steps in a row .* 'deq'"):
        model.fit(x, y, batch_size=1, shuffle=False, callbacks=[callback], verbose=0)
    assert callback.stopped_batch == 13
    # Without divergence, and without a layer that could, nothing happens.
    quiet = training.StopOnDivergence(patience=1)
    layer.solver_metrics["diverged_in_a_row"].count.assign(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(easy, easy[..., :1], batch_size=2, callbacks=[quiet], verbose=0)
    assert quiet.stopped_batch is None
    with pytest.raises(ValueError, match="`patience`"):
        training.StopOnDivergence(patience=0)


def test_predictions_leave_the_metrics_alone():
    layer = trellis()
    layer(data(), training=True)
    before = float(layer.solver_metrics["steps"].result())
    layer(3 * data())
    assert float(layer.solver_metrics["steps"].result()) == before > 0


@keras.saving.register_keras_serializable("tests")
class NestedCell(keras.layers.Layer):
    """A cell of other layers: a Sequential, and layers in a list and a dict."""

    def __init__(self, inner, parts, named, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.parts, self.named = inner, list(parts), dict(named)

    def build(self, z_shape, x_shape):
        for layer in (self.inner, *self.parts, *self.named.values()):
            if not layer.built:
                layer.build(z_shape)

    def call(self, z, x):
        z = self.inner(z) + self.parts[0](x) + self.named["bias"](x)
        return ops.tanh(0.5 * z)

    def get_config(self):
        save = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "inner": save(self.inner),
            "parts": [save(part) for part in self.parts],
            "named": {name: save(part) for name, part in self.named.items()},
        }

    @classmethod
    def from_config(cls, config):
        load = keras.saving.deserialize_keras_object
        config = dict(config)
        config["inner"] = load(config["inner"])
        config["parts"] = [load(part) for part in config["parts"]]
        config["named"] = {name: load(part) for name, part in config["named"].items()}
        return cls(**config)


def nests():
    dense = keras.layers.Dense
    inner = keras.Sequential([dense(3, "tanh"), DeepEquilibrium(DEQTrellisCell(2, 3)), dense(3)])
    cell = NestedCell(inner, [dense(3)], {"bias": dense(3)})
    yield keras.Sequential([keras.Input((None, 3)), dense(3), DeepEquilibrium(cell), dense(2)])
    outer = trellis(subsequence_length=4, tolerance=1e-6, max_steps=60)
    yield keras.Sequential([keras.Input((None, 3)), outer, DeepEquilibrium(DEQTrellisCell(2, 2))])


@pytest.mark.slow
def test_nests_train_load_in_a_fresh_process_and_export(tmp_path, monkeypatch):
    # The fresh process imports this file for the classes of its own.
    loader = checks._LOADER.replace("import keras, keras_seq", "import keras, keras_seq, cells")
    source = (
        "import keras\nfrom keras import ops\n\n@keras.saving.register_keras_serializable('tests')"
        f"\n{_source(NestedCell)}"
    )
    (tmp_path / "cells.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(checks, "_LOADER", loader)
    x, longer = data(), data((2, 11, 3))
    cases = []
    for index, model in enumerate(nests()):
        model.compile("adam", "mse")
        shape = model(x).shape
        model.fit(x, np.zeros(shape), verbose=0)
        checks.check_export(model, [x, longer], tmp_path / f"export{index}")
        cases.append((model, longer))
    checks.check_fresh_process(cases, tmp_path / "fresh", rtol=1e-4)


def _source(cls) -> str:
    import inspect

    return inspect.getsource(cls).split("\n", 1)[1]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pretraining_ends_at_its_step_and_survives_saving(jit, tmp_path):
    """Levels for three steps, over a save and a load, then the solve; under XLA too."""
    layer = trellis(pretrain_steps=3, pretrain_levels=2, tolerance=1e-5, max_steps=30)
    model = model_of(layer)
    model.compile("sgd", "mse", jit_compile=jit)
    x = data((1, 6, 3))
    batches = tf.data.Dataset.from_tensor_slices((x, x[..., :1])).batch(1, drop_remainder=True)
    taken = []

    def step(model):
        taken.append(model.fit(batches, verbose=0).history["deq_steps"][0])

    step(model)
    step(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = model_of(DeepEquilibrium.from_config(layer.get_config()))
    again.load_weights(tmp_path / "model.weights.h5")
    assert int(again.layers[1].steps_taken.value) == 2
    step(loaded)
    step(loaded)
    assert taken[:3] == [2.0, 2.0, 2.0] and taken[3] > 2.0
    # Before the switch, outputs are those of two applications of the cell.
    f, z = layer.function(x)
    np.testing.assert_allclose(layer(x), layer.cell.outputs(f(f(z))), atol=1e-6)


@pytest.mark.slow
def test_pretraining_under_xla_needs_known_sizes():
    """It is refused with the remedy; evaluation and plain graphs take any size."""
    layer = trellis(pretrain_steps=2, pretrain_levels=2, max_steps=4)
    layer.build((None, None, 3))
    specification = [tf.TensorSpec((None, 6, 3))]

    def run(training, jit):
        function = tf.function(
            lambda x: layer(x, training=training), specification, jit_compile=jit, autograph=False
        )
        return function(tf.constant(data()))

    with pytest.raises(ValueError, match=r"`drop_remainder=True`"):
        run(True, True)
    np.testing.assert_allclose(run(False, True), run(False, False), atol=1e-5)


def test_metrics_cost_next_to_nothing():
    """The compiled step has no more than a few small operations for them, and no host calls."""
    x = tf.constant(data())
    kinds = {}
    for counted in (True, False):
        layer = trellis()
        if not counted:
            layer.solver_metrics = {}
        layer.build(x.shape)

        def step(x, layer=layer):
            return layer(x, training=True)

        if not counted:
            from keras_seq.layers import deep_equilibrium

            original = deep_equilibrium.update
            deep_equilibrium.update = lambda *arguments: None
        try:
            graph = tf.function(step).get_concrete_function(x).graph
        finally:
            if not counted:
                deep_equilibrium.update = original
        kinds[counted] = [operation.type for operation in graph.get_operations()]
    assert 0 < len(kinds[True]) - len(kinds[False]) < 120
    assert not {"PyFunc", "EagerPyFunc", "HostSend"} & set(kinds[True])


_STRATEGY = r"""
import contextlib, json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, keras_seq
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
ids = rng.integers(0, 13, (8, 9)).astype("int32")
windows = [(ids[:, i:i+4], ids[:, i+1:i+5]) for i in (0, 4)]
arrays = tuple(np.concatenate(parts) for parts in zip(*windows))
data = tf.data.Dataset.from_tensor_slices(arrays).batch(8, drop_remainder=True)
found = []
for replicas in (1, 2):
    with strategy.scope() if replicas > 1 else contextlib.nullcontext():
        keras.utils.set_random_seed(1)
        wide = keras.initializers.RandomNormal(stddev=0.3, seed=3)
        cell = DEQTrellisCell(5, 6, kernel_initializer=wide, bias_initializer=wide)
        core = DeepEquilibrium(cell, tolerance=1e-7, max_steps=60, pretrain_steps=1, name="deq")
        model = keras_seq.models.LanguageModel(13, 6, core, seed=7, carry_state=True)
        model.compile(keras_seq.optimizers.SGD(0.5, global_clipnorm=1.0))
    history = model.fit(data, epochs=3, verbose=0).history
    result = model.evaluate(data, verbose=0, return_dict=True)
    found.append({
        "weights": [w.tolist() for w in model.get_weights()],
        "nll": history["nll"],
        "evaluation": result["nll"],
        "failures": history["deq_failures"],
    })
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_replicas_equal_one_device():
    """Weights after six steps through implicit gradients with carried state, and the metrics."""
    result = subprocess.run(
        [sys.executable, "-c", _STRATEGY], capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one, two = json.loads(result.stdout.splitlines()[-1])
    for name in one:
        a, b = (
            np.concatenate([np.ravel(part) for part in run[name]])
            if name == "weights"
            else np.ravel(run[name])
            for run in (one, two)
        )
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
