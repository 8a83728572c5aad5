"""R-Transformer's zoo: sizes of the release, recipes, small models that run and generate."""

import json

import numpy as np
import pytest

import keras_seq
from keras_seq import zoo

NAMES = ["nottingham", "ptb_char", "ptb_word", "seq_mnist"]
SMALL = {"units": 8, "levels": 1, "heads": 2, "window": 3, "span": 16}


@pytest.mark.parametrize("part", NAMES)
def test_sizes_equal_the_release(part, golden):
    """Without and with the layers that the released code never uses."""
    name = f"rtransformer_{part}"
    counts = json.loads((golden / "parameter_counts.json").read_text())[name]
    for variant, key in ((None, "parameters_without_never_used"), ("released", "parameters")):
        model = getattr(zoo, name)(variant=variant)
        assert model.count_params() == counts[key]
        assert zoo.recipe(name, variant).parameters == counts[key]
        trained = sum(weight.shape.num_elements() for weight in model.trainable_variables)
        assert trained == counts["parameters_without_never_used"]


@pytest.mark.parametrize("part", [*NAMES, "python_docs"])
def test_attention_sees_the_whole_of_a_training_window(part):
    recipe = zoo.recipe(f"rtransformer_{part}")
    span = recipe.model["span"]
    assert span >= (recipe.data.length or 0) + recipe.data.history


def test_released_nottingham_trains_tune_by_tune():
    recipe = zoo.recipe("rtransformer_nottingham", "released")
    assert (recipe.data.batch_size, recipe.optimizer.name) == (1, "SGD")
    assert recipe.model["sum_over_time"] and recipe.optimizer.global_clipnorm is None


def test_state_is_carried_through_fit():
    model = zoo.rtransformer_python_docs(**SMALL, vocabulary_size=11, dropout=0.1)
    model.compile(keras_seq.optimizers.Adam(1e-2, global_clipnorm=1.0))
    ids = np.tile(np.arange(11), (4, 2))
    history = model.fit(ids[:, :-1], ids[:, 1:], batch_size=2, epochs=5, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]


def test_small_readers_run():
    classifier = zoo.rtransformer_seq_mnist(**SMALL)
    probabilities = classifier(np.zeros((2, 9, 1), "float32"))
    np.testing.assert_allclose(np.exp(probabilities).sum(-1), 1, rtol=1e-5)
    frames = zoo.rtransformer_nottingham(**SMALL)
    assert frames(np.zeros((2, 9, 88), "float32")).shape == (2, 9, 88)
    with pytest.raises(ValueError, match="no setting 'unitz'"):
        zoo.rtransformer_nottingham(unitz=3)
