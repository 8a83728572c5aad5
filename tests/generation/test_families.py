"""Language models of every family: what they write step by step is what the whole text gives."""

import keras
import numpy as np
import pytest
from small import EXPORTED

from keras_seq import zoo
from keras_seq.generation import generate_ids
from keras_seq.generation.stepping import stepper
from keras_seq.layers import LocalRNN
from keras_seq.models import LanguageModel

QUICK = ("recurrent",)  # of the default suite
TEXTS = [name for name in EXPORTED if zoo.recipe(name).task == "language_model"]
ONE_OF_EACH = {zoo.recipe(name).family: name for name in reversed(TEXTS)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if family in QUICK else [pytest.mark.slow])
        for family, name in sorted(ONE_OF_EACH.items())
    ],
)
def test_the_most_likely_tokens_are_those_of_the_full_pass(name):
    keras.utils.set_random_seed(3)
    model = getattr(zoo, name)(**EXPORTED[name])
    ids = np.random.default_rng(0).integers(0, 11, (2, 5))
    made = generate_ids(model, ids, length=4, top_k=1)
    whole = np.array(ids)
    for _ in range(4):
        following = np.argmax(keras.ops.convert_to_numpy(model(whole))[:, -1], axis=-1)
        whole = np.concatenate([whole, following[:, None]], axis=1)
    np.testing.assert_array_equal(made, whole[:, 5:])


def test_every_family_with_language_models_is_here():
    recipes = [zoo.recipe(name) for name in zoo.names()]
    assert {r.family for r in recipes if r.task == "language_model"} == set(ONE_OF_EACH)


def test_a_state_of_one_tensor_has_a_name_like_those_of_many():
    """Clients of an export know the state by the beginning of its names."""
    model = LanguageModel(11, 8, LocalRNN(8, window=3))
    assert stepper(model).names == ["state_0"]
