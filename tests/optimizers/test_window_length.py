"""The learning rate of a step follows the length of its window."""

import json

import keras
import numpy as np
import pytest

from keras_seq import optimizers, zoo
from keras_seq.layers import LSTM, RecurrentStack
from keras_seq.models import LanguageModel, SequenceClassifier
from keras_seq.training.building import build_optimizer

IDS = np.random.default_rng(0).integers(0, 7, (2, 9)).astype("int32")


def language_model(optimizer, dtype="float32", **compiling):
    keras.utils.set_random_seed(3)
    core = RecurrentStack([LSTM(6, dtype=dtype)], dtype=dtype)
    model = LanguageModel(7, 6, core, seed=1, dtype=dtype)
    model.build((None, None))
    model.compile(optimizer, **compiling)
    return model


def step(optimizer, length, **settings):
    """How one step on a window of some length changes the weights."""
    model = language_model(optimizer, **settings)
    before = model.get_weights()
    model.train_on_batch(IDS[:, :length], IDS[:, 1 : length + 1])
    return [b - a for a, b in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize(
    "how", ["eager", "graph", "clipped", pytest.param("xla", marks=pytest.mark.slow)]
)
def test_half_the_length_is_half_the_rate(how):
    compiling = {"run_eagerly": how == "eager", "jit_compile": how == "xla"}
    clip = {"global_clipnorm": 0.01, "l2": 0.01} if how == "clipped" else {}
    scaled = step(optimizers.SGD(2.0, nominal_length=8, **clip), 4, **compiling)
    half = step(optimizers.SGD(1.0, **clip), 4, **compiling)
    for a, b in zip(scaled, half, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
    whole = step(optimizers.SGD(2.0, nominal_length=8, **clip), 8, **compiling)
    plain = step(optimizers.SGD(2.0, **clip), 8, **compiling)
    for a, b in zip(whole, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
        assert np.abs(a).max() > 0


def test_with_loss_scaling():
    scaled, half = (
        step(keras.optimizers.LossScaleOptimizer(o, initial_scale=64.0), 4)
        for o in (optimizers.SGD(2.0, nominal_length=8), optimizers.SGD(1.0))
    )
    for a, b in zip(scaled, half, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_by_hand_with_clipping_and_averaging():
    """The rate is scaled after clipping, and every iterate counts once in the mean."""
    optimizer = optimizers.NTASGD(
        0.5, average_from=0, l2=0.1, global_clipnorm=1.0, nominal_length=10
    )
    variable = keras.Variable([1.0, -2.0])
    optimizer.build([variable])
    w, iterates = np.array([1.0, -2.0]), []
    for gradient, length in (([3.0, 4.0], 5), ([0.3, 0.4], 20), ([0.0, 6.0], 1)):
        optimizer.set_window_length(length)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        clipped = np.array(gradient) / max(1.0, np.linalg.norm(gradient))
        w = w - 0.5 * length / 10 * (clipped + 0.1 * w)
        iterates.append(w)
        np.testing.assert_allclose(variable, w, rtol=1e-5)
    np.testing.assert_allclose(optimizer._averages[0], np.mean(iterates, axis=0), rtol=1e-5)


def test_configuration_recipe_and_saving(tmp_path):
    optimizer = optimizers.Adam(0.1, nominal_length=70)
    again = keras.optimizers.deserialize(
        json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    )
    assert again.nominal_length == 70
    recipe = zoo.recipe("awd_pru_ptb_word")
    made = build_optimizer(recipe.optimizer, length=recipe.data.length)
    assert made.nominal_length == recipe.data.length == 70
    assert zoo.Recipe.from_json(recipe.to_json()).optimizer.scale_by_length
    tuned = zoo.recipe("awd_pru_ptb_word", "fine_tuning")
    assert tuned.optimizer.scale_by_length and tuned.stop_nonmonotone == 5
    assert build_optimizer(zoo.recipe("pru_ptb_word").optimizer, length=70).nominal_length is None
    model = language_model(optimizers.SGD(2.0, nominal_length=8))
    model.train_on_batch(IDS[:, :4], IDS[:, 1:5])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.train_on_batch(IDS[:, :6], IDS[:, 1:7])
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_errors():
    with pytest.raises(ValueError, match="`nominal_length` must be positive"):
        optimizers.SGD(1.0, nominal_length=0)
    with pytest.raises(RuntimeError, match="must have a `nominal_length` and be built"):
        optimizers.SGD(1.0).set_window_length(3)
    with pytest.raises(ValueError, match="needs `data.length`"):
        build_optimizer(zoo.recipe("awd_pru_ptb_word").optimizer)
    core = RecurrentStack([LSTM(3)])
    model = SequenceClassifier(core, classes=2)
    model.compile(optimizers.SGD(1.0, nominal_length=8), run_eagerly=True)
    with pytest.raises(ValueError, match="a model with a loss at each time step"):
        model.train_on_batch(np.zeros((2, 4, 1), "float32"), np.zeros(2, "int32"))
