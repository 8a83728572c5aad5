"""Frozen layers, models and parts of them: nothing in them trains, also from a file."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from small_layers import CAUSAL, PARTS, WIDTH, each_of, sequence

from keras_seq import layers, models

# Elsewhere its normalisation is frozen; here nothing is to begin with.
NORMALIZED = {"TCN, batch normalization": lambda **o: layers.TCN(6, 2, normalization="batch", **o)}
MAKE = {**CAUSAL, **PARTS, **NORMALIZED}
every = pytest.mark.parametrize("name", each_of(MAKE))
every_causal = pytest.mark.parametrize("name", each_of(CAUSAL))


def build(layer: Any):
    """Builds a layer, without the work of a call."""
    shape = (2, 5, WIDTH)
    if layer.built:
        return layer
    shapes = [shape[1:] if layer.axes == ("b", "d") else shape]
    if isinstance(layer, layers.EquilibriumCell):
        shapes.insert(0, (2, 5, layer.units))
    layer.build(*shapes)
    return layer


def flags(layer) -> list[bool]:
    """Of each weight, whether it trains."""
    return [weight.trainable for weight in layer.weights]


def revived(layer):
    """The layer that a configuration in JSON gives."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    return keras.saving.deserialize_keras_object(config)


@every
def test_made_frozen(name):
    layer = build(MAKE[name](trainable=False))
    assert layer.weights
    assert not any(flags(layer))
    layer.trainable = True
    assert flags(layer) == flags(build(MAKE[name]()))


@every
@pytest.mark.parametrize("when", ["before it is built", "after"])
def test_frozen(name, when):
    layer = MAKE[name]()
    if when == "after":
        build(layer)
    layer.trainable = False
    build(layer)
    assert not any(flags(layer))
    assert not any(flags(build(revived(layer))))


@every
def test_frozen_parts(name):
    layer = build(MAKE[name]())
    assert "frozen" not in layer.get_config()
    all_train = flags(layer)
    for part in layer._flatten_layers(include_self=False):
        if not part.weights:
            continue
        trained, part.trainable = part.trainable, False
        assert flags(layer) != all_train, part.name
        again = revived(layer)
        # the parts that are made when the layer is built are frozen then, and kept until then
        assert layer.get_config().get("frozen") == again.get_config().get("frozen")
        assert flags(build(again)) == flags(layer), part.name
        part.trainable = trained
    assert flags(layer) == all_train


def test_a_part_that_does_not_exist_is_refused():
    config = CAUSAL["TCN"]().get_config() | {"frozen": ["block_7"]}
    layer = layers.TCN.from_config(config)
    with pytest.raises(ValueError, match=r"frozen=\['block_7'\] for a TCN"):
        layer(sequence())


MODELS = {
    "language model": (
        lambda **options: models.LanguageModel(9, WIDTH, layers.TCN(WIDTH, 2), **options),
        ("embedding", "core", "core/block_1", "head"),
    ),
    "language model, own embedding": (
        lambda **options: models.LanguageModel(
            9,
            WIDTH,
            layers.Transformer(WIDTH, levels=2, heads=2),
            embedding=keras.layers.Embedding(9, WIDTH, name="table"),
            head="softmax",
            **options,
        ),
        ("table", "core/block_2/attention", "core/norm"),
    ),
    "classifier": (
        lambda **options: models.SequenceClassifier(
            layers.PRU(8), 3, vocabulary_size=9, embedding_dim=WIDTH, **options
        ),
        ("embedding", "dense", "core/cell/input_transform"),
    ),
    "regressor": (
        lambda **options: models.SequenceRegressor(layers.TrellisNet(4, 3, 2), **options),
        ("dense", "core"),
    ),
    "frame model": (
        lambda **options: models.FrameModel(
            layers.RTransformer(6, levels=1, window=2, heads=2), notes=WIDTH, **options
        ),
        ("dense", "core/projection", "core/block_1/local_rnn_1"),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def data(model):
    """An input and targets of a model."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, (4, 5))
    if isinstance(model, models.LanguageModel):
        return ids, np.roll(ids, -1, 1)
    if isinstance(model, models.SequenceClassifier):
        return ids, rng.integers(0, 3, 4)
    if isinstance(model, models.FrameModel):
        frames = rng.integers(0, 2, (4, 5, WIDTH)).astype("float32")
        return frames, frames
    return sequence(batch=4), rng.normal(size=(4, 1)).astype("float32")


def part_of(model, path):
    """The part of a model with this path."""
    for name in path.split("/"):
        if name == "core":
            model = model.core
        else:
            parts = model._flatten_layers(include_self=False, recursive=False)
            (model,) = [part for part in parts if part.name == name]
    return model


@every_model
def test_parts_of_models(name, tmp_path):
    make, paths = MODELS[name]
    model = make()
    x, _ = data(model)
    model(x)
    all_train = flags(model)
    assert "frozen" not in model.get_config()
    for path in paths:
        part = part_of(model, path)
        part.trainable = False
        assert flags(model) != all_train
        for again in (revived(model), keras.models.clone_model(model)):
            again(x)
            assert flags(again) == flags(model), path
        part.trainable = True
    part.trainable = False
    model.save(tmp_path / "model.keras")
    assert flags(keras.models.load_model(tmp_path / "model.keras")) == flags(model)


@every_model
def test_frozen_models(name):
    make, _ = MODELS[name]
    for model in (make(trainable=False), make()):
        model.trainable = False
        x, y = data(model)
        model(x)
        assert not any(flags(model))
        again = revived(model)
        again(x)
        assert not any(flags(again))


@every_model
def test_fit_of_a_frozen_model_warns_and_measures(name):
    model = MODELS[name][0](trainable=False)
    model.compile("adam", run_eagerly=True)
    x, y = data(model)
    model(x)
    before = model.get_weights()
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        history = model.fit(x, y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    measured = model.evaluate(x, y, verbose=0, return_dict=True)
    assert history.history["loss"][0] == pytest.approx(measured["loss"], rel=1e-5)
