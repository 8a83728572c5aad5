"""Deep equilibrium layers as causal layers: state, chunks, streaming, language models."""

import keras
import layer_checks as checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import export, generation, gradients
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell
from keras_seq.models import LanguageModel

WIDE = keras.initializers.RandomNormal(stddev=0.3, seed=2)


def make(kernel_size=2, cell=None, **options):
    settings = {"tolerance": 1e-6, "max_steps": 60, **options}
    cell = DEQTrellisCell(
        5, 3, kernel_size, kernel_initializer=WIDE, bias_initializer=WIDE, seed=1, **(cell or {})
    )
    return DeepEquilibrium(cell, **settings)


def data(shape=(3, 9, 4)):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 1, 4]])
def test_streaming_equals_the_whole(kernel_size, chunks):
    x = data()
    layer = make(kernel_size)
    layer(x)
    checks.check_chunks(layer, x, chunks, rtol=1e-4)
    checks.check_causal(layer, x, at=5)


def test_subsequences_equal_the_whole_and_its_gradients():
    x = tf.constant(data())
    whole, cut = make(cell={"dtype": "float64"}, dtype="float64", tolerance=1e-11), None
    whole(x)
    cut = DeepEquilibrium.from_config({**whole.get_config(), "subsequence_length": 4})
    cut(x)
    cut.set_weights(whole.get_weights())
    found = []
    for layer in (whole, cut):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs, state = layer(x, return_state=True, training=True)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(state["cell"])
        variables = [x, *[weight.value for weight in layer.trainable_variables]]
        found.append([loss, *tape.gradient(loss, variables)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_gradient_reaches_the_initial_state():
    layer = make(cell={"dtype": "float64"}, dtype="float64", tolerance=1e-11)
    x = tf.constant(data(), "float64")
    layer(x)
    rng = np.random.default_rng(4)
    start = {name: rng.normal(size=v.shape) for name, v in layer.get_initial_state(3).items()}

    def loss(state):
        return tf.reduce_sum(layer(x, initial_state=state) ** 2)

    tensors = {name: tf.constant(value) for name, value in start.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(tensors)
    slopes = tape.gradient(value, tensors)
    for name, slope in slopes.items():
        direction = rng.normal(size=slope.shape)
        up, down = (
            float(loss({**start, name: start[name] + step * direction})) for step in (1e-5, -1e-5)
        )
        assert np.sum(slope * direction) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-8)


def test_history_state_is_the_last_vectors():
    layer = make(cell={"state": "history"})
    x = data()
    _, solution, (h, c) = layer(x, return_solution=True, return_state=True)
    z = np.asarray(solution["equilibrium"])
    np.testing.assert_array_equal(np.concatenate([h, c], axis=-1), z[:, -1])
    exact = layer.get_initial_state(3, kind="exact")
    _, after = layer(x, initial_state=exact, return_state=True)
    assert set(after) == {"hidden", "cell", "input"}
    with pytest.raises(ValueError, match="`kind` must be one of"):
        layer.get_initial_state(3, kind="other")


def test_cells_without_state_say_so():
    class Plain(keras.layers.Layer):
        def call(self, z, x):
            return ops.tanh(0.1 * z + x)

    layer = DeepEquilibrium(Plain())
    with pytest.raises(ValueError, match="no state"):
        layer(data(), return_state=True)
    with pytest.raises(ValueError, match="needs a cell with state"):
        DeepEquilibrium(Plain(), subsequence_length=3)


@pytest.mark.slow
def test_masks_are_one_for_all_chunks_and_steps():
    """With the masks given, training is a deterministic function; each kind of mask has effect."""
    layer = make(cell={"hidden_dropout": 0.5, "weight_dropout": 0.5}, subsequence_length=4)
    x = data()
    layer(x)
    masks = layer.get_masks(3)
    assert set(masks) == {"hidden", "weight"} and masks["weight"].shape == (1, 8, 32)
    first, second = (np.asarray(layer(x, training=True, masks=masks)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - np.asarray(layer(x))).max() > 1e-3
    one = DeepEquilibrium.from_config({**layer.get_config(), "subsequence_length": None})
    one(x)
    one.set_weights(layer.get_weights())
    np.testing.assert_allclose(one(x, training=True, masks=masks), first, atol=1e-4)
    for kind in masks:
        others = np.asarray(layer(x, training=True, masks={kind: masks[kind]}))
        assert np.abs(others - first).max() > 1e-4
    again = np.asarray(layer(x, training=True))
    assert np.abs(again - np.asarray(layer(x, training=True))).max() > 1e-4


@pytest.fixture(scope="module")
def trained():
    """A language model with every option, after a few epochs, and what `fit` reported."""
    keras.utils.set_random_seed(0)
    core = make(
        kernel_size=3,
        cell={"weight_normalization": True, "hidden_dropout": 0.1, "weight_dropout": 0.1},
        max_steps=20,
        inference_max_steps=80,
        subsequence_length=5,
        correction_steps=(2, 5),
        jacobian_weight=0.01,
        name="deq",
    )
    model = LanguageModel(
        11, 4, core, head="softmax", carry_state=True, auxiliary_weight=0.3, output_dropout=0.1
    )
    model.compile(keras.optimizers.Adam(0.02))
    ids = np.tile(np.arange(11), 60)[: 8 * 61].reshape(8, 61)
    windows = [(ids[:, i : i + 10], ids[:, i + 1 : i + 11]) for i in range(0, 60, 10)]
    arrays = [np.concatenate(parts) for parts in zip(*windows, strict=True)]
    dataset = tf.data.Dataset.from_tensor_slices(tuple(arrays)).batch(8, drop_remainder=True)
    history = model.fit(dataset, validation_data=dataset, epochs=8, verbose=0).history
    return model, history, ids


@pytest.mark.slow
def test_language_model_learns_with_carried_state(trained):
    _, history, _ = trained
    assert history["nll"][-1] < 0.8 * history["nll"][0]
    for name in ("steps", "residual", "failures", "diverged_in_a_row"):
        assert len(history[f"deq_{name}"]) == 8
    assert history["deq_steps"][0] <= 20 and history["val_deq_residual"][-1] < 1e-5
    assert 0 < history["val_deq_steps"][-1] <= 80


@pytest.mark.slow
def test_language_model_streams_and_generates(trained, tmp_path):
    model, _, ids = trained
    x = ids[:2, :12]
    whole = np.asarray(model(x))
    state, parts = model.get_initial_state(2, kind="exact"), []
    for step in range(12):
        output, state = model(x[:, step : step + 1], initial_state=state, return_state=True)
        parts.append(output)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)
    # Greedy generation takes the token that the whole sequence predicts.
    made = np.asarray(
        generation.generate_ids(model, x, lengths=np.full(2, 12), length=3, temperature=0.0)
    )
    np.testing.assert_array_equal(made[:, 0], whole[:, -1].argmax(-1))


@pytest.mark.slow
def test_exported_step_equals_the_model(trained, tmp_path):
    model, _, ids = trained
    export.export_model(model, None, tmp_path / "served")
    (folder,) = [path.parent for path in (tmp_path / "served").rglob("saved_model.pb")]
    served = tf.saved_model.load(str(folder))
    state = dict(served.signatures["initial_state"](batch_size=tf.constant(2)))
    x = ids[:2, :9].astype("int32")
    whole = np.asarray(model(x))
    for start, stop in ((0, 6), (6, 7), (7, 9)):
        result = dict(served.signatures["step"](ids=tf.constant(x[:, start:stop]), **state))
        np.testing.assert_allclose(result.pop("log_probs"), whole[:, start:stop], atol=1e-4)
        state = result
    longer = np.tile(x, (1, 2))
    got = served.signatures["log_probs"](ids=tf.constant(longer))["log_probs"]
    np.testing.assert_allclose(got, model(longer), atol=1e-4)


# Fixed-point correction ---------------------------------------------------------------------------


def test_auxiliary_outputs_are_one_application_to_the_iterates():
    layer = make(correction_steps=(1, 3, 50))
    x = data()
    outputs, auxiliary = layer(x, return_auxiliary=True)
    assert auxiliary.shape == (3, 3, 9, 3)
    f, z0 = layer.function(x)
    found = gradients.find_equilibrium(f, z0, layer.solver, 60, 1e-6, keep=(1, 3, 50))
    for index, z in enumerate(found.kept):
        want = layer.cell.outputs(f(z))
        np.testing.assert_allclose(auxiliary[:, index], want, atol=1e-6)
    distances = np.abs(np.asarray(auxiliary) - np.asarray(outputs)[:, None]).max(axis=(0, 2, 3))
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-5
    assert layer.auxiliary_scales == pytest.approx((0.8**3, 0.8**2, 0.8))


def test_correction_is_weighed_and_drawn():
    """The loss is NLL plus the weighed NLL of the iterates; at a frequency of zero, NLL alone."""
    ids = np.random.default_rng(0).integers(0, 7, (2, 6))
    losses = {}
    for frequency in (0.0, 1.0):
        core = make(correction_steps=(1, 2), correction_frequency=frequency)
        model = LanguageModel(7, 4, core, head="softmax", auxiliary_weight=0.5, seed=3)
        terms = model.loss_terms(ids, ids, training=True)
        losses[frequency] = np.asarray(terms.objective - terms.report)
    assert np.abs(losses[0.0]).max() == 0.0
    features = model.features(ids, training=True, return_auxiliary=True)
    targets = np.repeat(ids[:, None], 2, axis=1)
    levels = np.asarray(model.head.nll(features.auxiliary, targets, tables=model.tables))
    want = 0.5 * (0.64 * levels[:, 0] + 0.8 * levels[:, 1])
    np.testing.assert_allclose(losses[1.0], want, rtol=1e-5)
