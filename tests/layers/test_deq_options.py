"""Options of deep equilibrium layers as objects, by single names, and in saved files."""

import copy
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import layers
from keras_seq.solvers import Broyden, Status


def make(**options):
    return layers.DeepEquilibrium(layers.DEQTrellisCell(4, 3, seed=1), **options)


OBJECTS = {
    "gradient": layers.Implicit(Broyden(memory=5), max_steps=7, tolerance=1e-4),
    "jacobian": layers.JacobianRegularization(0.5, frequency=0.25, probes=2),
    "correction": layers.FixedPointCorrection((2, 5), decay=0.5, frequency=0.5),
    "pretraining": layers.Pretraining(steps=3, levels=2),
}
FLAT = {
    "backward_solver": {"name": "broyden", "memory": 5},
    "backward_max_steps": 7,
    "backward_tolerance": 1e-4,
    "phantom_steps": 9,
    "damping": 0.5,
    "jacobian_weight": 0.5,
    "jacobian_frequency": 0.25,
    "jacobian_probes": 2,
    "correction_steps": [2, 5],
    "correction_decay": 0.5,
    "correction_frequency": 0.5,
    "pretrain_steps": 3,
    "pretrain_levels": 2,
}
GRADIENTS = {
    "implicit": OBJECTS["gradient"],
    "phantom": layers.Phantom(9, 0.5),
    "one_step": layers.OneStep(),
    "unrolled": layers.Unrolled(0.5),
}


def settings(layer):
    """The configuration as a file holds it, without the names of its parts."""
    config = json.loads(json.dumps(layer.get_config()))
    assert copy.deepcopy(layer.get_config()) == layer.get_config()  # nothing that Keras tracks
    return {name: value for name, value in config.items() if name not in ("name", "cell")}


@pytest.mark.parametrize("name", GRADIENTS)
def test_single_names_mean_the_same_as_objects(name):
    """In the constructor and in the configurations of version 0.1, which have all of them."""
    flat = make(gradient=name, **FLAT)
    objects = make(**{**OBJECTS, "gradient": GRADIENTS[name]})
    old = {**make(seed=4).get_config(), **FLAT, "gradient": name}
    for option in ("jacobian", "correction", "pretraining"):
        del old[option]
    loaded = layers.DeepEquilibrium.from_config(old)
    again = layers.DeepEquilibrium.from_config(json.loads(json.dumps(objects.get_config())))
    assert settings(flat) == settings(objects) == settings(again)
    assert settings(loaded) == {**settings(objects), "seed": 4}


def test_what_changes_nothing_is_left_out():
    plain = settings(make())
    assert plain["gradient"] == "implicit"
    assert plain["jacobian"] is plain["correction"] is plain["pretraining"] is None
    nothing = {"jacobian_weight": 0.0, "correction_steps": [], "pretrain_steps": 0}
    assert settings(make(**nothing, jacobian_frequency=0.5, pretrain_levels=7)) == plain
    assert settings(make(jacobian=layers.JacobianRegularization(0.0))) == plain
    assert make(gradient="phantom").gradient == layers.Phantom()


@pytest.mark.parametrize(
    "wrong,message",
    [
        (lambda: layers.Phantom(steps=0), "`gradient.steps` must be"),
        (lambda: layers.Phantom(damping=1.0), "`gradient.damping` must be in"),
        (lambda: layers.Unrolled(-0.1), "`gradient.damping` must be in"),
        (lambda: layers.Implicit(max_steps=0), "`gradient.max_steps` must be"),
        (lambda: layers.Implicit(tolerance=-1.0), "`gradient.tolerance` must be"),
        (lambda: layers.Implicit("newton"), "must be one of"),
        (lambda: layers.JacobianRegularization(-1.0), "`jacobian.weight` must be"),
        (lambda: layers.JacobianRegularization(1.0, 2.0), "`jacobian.frequency` must be"),
        (lambda: layers.JacobianRegularization(1.0, probes=0), "`jacobian.probes` must be"),
        (lambda: layers.FixedPointCorrection((5, 2)), "`correction.steps` must be growing"),
        (lambda: layers.FixedPointCorrection((0,)), "`correction.steps` must be"),
        (lambda: layers.FixedPointCorrection((1,), decay=2), "`correction.decay` must be"),
        (lambda: layers.Pretraining(-1), "`pretraining.steps` must be"),
        (lambda: layers.Pretraining(5, levels=0), "`pretraining.levels` must be"),
        (lambda: make(gradient="exact"), "`gradient` must be one of 'implicit', .* `Phantom"),
        (lambda: make(jacobian=0.5), "`jacobian` must be a `.*JacobianRegularization` or"),
        (
            lambda: make(gradient=layers.Phantom(), phantom_steps=3),
            "`phantom_steps` must be left out where `gradient` is an object",
        ),
        (lambda: make()(np.ones((1, 2, 3)), return_auxiliary=True), "`return_auxiliary` needs"),
    ],
)
def test_errors_name_the_option_and_its_field(wrong, message):
    with pytest.raises(ValueError, match=f"{message}.*\\s*.*Received"):
        wrong()


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_functional_models_with_every_option_are_saved(tmp_path, suffix):
    inputs = keras.Input((None, 3))
    layer = make(**OBJECTS, name="deq")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile("sgd", keras.losses.MeanSquaredError(), run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    model.fit(x, x[..., :1], verbose=0)
    keras.saving.save_model(model, tmp_path / f"model.{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model.{suffix}")
    assert settings(loaded.get_layer("deq")) == settings(layer)
    assert int(loaded.get_layer("deq").steps_taken.value) == 1
    np.testing.assert_array_equal(loaded(x), model(x))


# Cells --------------------------------------------------------------------------------------------


class Plain(keras.layers.Layer):
    """tanh(0.3 z W + x U), as `call(z, x)` alone."""

    def build(self, z_shape, x_shape):
        self.inner = keras.layers.Dense(z_shape[-1], use_bias=False, kernel_initializer="ones")
        self.outer = keras.layers.Dense(z_shape[-1], use_bias=False, kernel_initializer="ones")
        self.inner.build(z_shape)
        self.outer.build(x_shape)

    def call(self, z, x):
        return ops.tanh(0.1 * self.inner(z) + self.outer(x))


class OfContract(layers.EquilibriumCell):
    """The same with what depends on x done once."""

    def build(self, z_shape, x_shape):
        super().build(x_shape)
        Plain.build(self, z_shape, x_shape)

    def prepare(self, x, training=None, initial_state=None, masks=None):
        return self.outer(x)

    def iterate(self, z, context):
        return ops.tanh(0.1 * self.inner(z) + context)


class Ducked(keras.layers.Layer):
    """The same as a Keras layer that has some of the contract's methods."""

    build = Plain.build
    output_units = 2

    def prepare(self, x, training):
        return {"x": self.outer(x)}

    def iterate(self, z, context):
        return ops.tanh(0.1 * self.inner(z) + context["x"])

    def call(self, z, x):
        return self.iterate(z, self.prepare(x, None))

    def outputs(self, z):
        return z[..., :2]


def test_every_kind_of_cell_gives_the_same():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 3)), "float32")
    found = []
    for cell in (Plain(), OfContract(), Ducked()):
        layer = layers.DeepEquilibrium(cell, tolerance=1e-6)
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs[..., :2] ** 2)
        assert layer.compute_output_shape(x.shape) == outputs.shape
        assert not layer.stateful_cell
        slopes = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
        found.append([outputs[..., :2], *slopes])
        with pytest.raises(ValueError, match="The cell has no state. Give it"):
            layer.get_initial_state(2)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
    assert [outputs.shape[-1] for outputs, *_ in found] == [2, 2, 2]


def test_a_wrong_width_is_refused_in_every_kind_of_cell():
    class Wide(layers.EquilibriumCell):
        def iterate(self, z, context):
            return ops.concatenate([z, context], axis=-1)

    with pytest.raises(ValueError, match="`cell` must return a tensor of the shape of its first"):
        layers.DeepEquilibrium(Wide())(np.ones((1, 2, 3), "float32"))


def test_one_nan_takes_the_steps_of_its_sample_that_are_solved_with_it():
    """As the page on gradients says."""
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    broken = x.copy()
    broken[0, 3, 1] = np.nan
    whole, cut = make(tolerance=1e-6), make(tolerance=1e-6, subsequence_length=2)
    for layer, kept in ((whole, 0), (cut, 2)):
        outputs, solution = layer(broken, return_solution=True)
        want = layer(x)
        np.testing.assert_allclose(outputs[1], want[1], atol=1e-6)
        np.testing.assert_allclose(outputs[0, :kept], want[0, :kept], atol=1e-6)
        np.testing.assert_array_equal(outputs[0, kept:4], np.zeros((4 - kept, 3)))
        assert list(np.asarray(solution["status"])) == [Status.NOT_FINITE, Status.CONVERGED]
