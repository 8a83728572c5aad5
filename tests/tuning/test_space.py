"""Search spaces: every recipe has one, its defaults are the recipe, its values fit together."""

import dataclasses
import json
import random

import keras_tuner
import pytest

from keras_seq import tuning, zoo
from keras_seq.tuning import Choice, Float, Int
from keras_seq.tuning.space import apply, from_json, to_json
from keras_seq.tuning.spaces import families
from keras_seq.tuning.spaces.registry import family
from keras_seq.tuning.trial import Trials

ALL = zoo.names()


def values_of(space, seed=None):
    """KerasTuner's values of a space: the defaults, or random ones."""
    hp = keras_tuner.HyperParameters()
    for name, parameter in space.items():
        parameter.declare(hp, name)
    if seed is None:
        return dict(hp.values)
    drawn = keras_tuner.HyperParameters()
    for index, parameter in enumerate(hp.space):
        drawn.merge([parameter])
        if drawn.is_active(parameter):
            drawn.values[parameter.name] = parameter.random_sample(seed + index)
    return dict(drawn.values)


@pytest.mark.parametrize("name", ALL)
def test_the_defaults_are_the_recipe(name):
    """Of its variants, too."""
    for variant in (None, *zoo.recipe(name).variants):
        recipe = zoo.recipe(name, variant)
        space = tuning.space(recipe)
        found = apply(recipe, space, values_of(space))
        assert found.data == recipe.data
        assert (found.optimizer.name, found.optimizer.learning_rate) == (
            recipe.optimizer.name,
            pytest.approx(recipe.optimizer.learning_rate),
        )
        for key, value in recipe.model.items():
            if value is not None:
                assert found.model[key] == value, (variant, key)
        assert from_json(json.loads(json.dumps(to_json(space)))) == space


def test_every_family_of_the_zoo_has_a_space():
    assert {zoo.recipe(name).family for name in ALL} == set(families())


def test_a_family_has_one_space():
    with pytest.raises(ValueError, match="must be a family without a search space"):
        family("tcn")(lambda settings: {})


def test_a_family_without_a_space_has_that_of_most_models():
    recipe = dataclasses.replace(zoo.recipe("tcn_ptb_word"), family="another")
    space = tuning.space(recipe)
    assert {"model.units", "model.dropout"} <= set(space)
    assert "model.kernel_size" not in space


def test_how_a_reader_reads_is_searched_where_a_recipe_says_it():
    recipe = zoo.recipe("gru_seq_mnist")
    assert "model.pooling" not in tuning.space(recipe)
    model = {**recipe.model, "pooling": "mean"}
    space = tuning.space(dataclasses.replace(recipe, model=model))
    assert space["model.pooling"].values == ("last", "mean", "max", "attention")
    assert values_of(space)["model.pooling"] == "mean"


SMALL = [name for name in ALL if name.endswith("_python_docs")] + ["gru_seq_mnist"]


@pytest.mark.parametrize("name", SMALL)
def test_random_values_build(name):
    """Any values of a space fit together: the model can be built."""
    recipe = zoo.recipe(name)
    space = tuning.space(recipe)
    values = values_of(space, random.Random(name).randrange(1000))
    assert zoo.build(apply(recipe, space, values)).count_params() > 0


def test_conditions():
    """A parameter with conditions is there only where they hold, nested ones too."""
    space = {
        "model.levels": Int(1, 4, when={"model.unit": ("pru",)}),
        "model.unit": Choice(("lstm", "pru")),
        "model.groups": Choice((1, 2), when={"model.unit": ("pru",)}),
        "model.units": Choice((8, 16), when={"model.unit": ("pru",), "model.groups": (2,)}),
    }
    recipe = zoo.recipe("pru_python_docs")
    trials = Trials(recipe, space, tuning.objective("nll"))
    assert list(trials.space)[0] == "model.unit"
    hp = keras_tuner.HyperParameters()
    trials.declare(hp)
    assert hp.values == {"model.unit": "lstm"}
    seen = set()
    for seed in range(0, 120, 6):
        values = values_of(trials.space, seed)
        seen.add(tuple(sorted(values)))
        assert ("model.levels" in values) == (values["model.unit"] == "pru")
        assert ("model.units" in values) == (values.get("model.groups") == 2)
    assert len(seen) == 3


def test_what_values_mean():
    recipe = zoo.recipe("trellisnet_python_docs")
    space = tuning.space(recipe)
    values = values_of(space) | {
        "model.embedding_dim": 96,
        "optimizer.name": "SGD",
        "optimizer.learning_rate@SGD": 1.5000000596,  # single precision, from another process
        "optimizer.options.momentum": 0.5,
    }
    found = apply(recipe, space, values)
    assert found.model["embedding_dim"] == found.model["output_units"] == 96
    assert found.optimizer.learning_rate == 1.5
    assert found.optimizer.options == {"momentum": 0.5}
    with_outputs = {"switch.auxiliary": True, "model.auxiliary_frequency": 2}
    deep = apply(recipe, space, values | with_outputs | {"model.auxiliary_weight": 0.1})
    assert deep.model["auxiliary_weight"] == 0.1
    off = apply(deep, space, values)
    assert (off.model["auxiliary_frequency"], off.model["auxiliary_weight"]) == (None, 0.0)


def test_options_belong_to_one_optimizer():
    recipe = zoo.recipe("pru_ptb_word")
    assert recipe.optimizer.options
    space = {"optimizer.name": Choice(("NTASGD", "Adam"))}
    assert apply(recipe, space, {"optimizer.name": "Adam"}).optimizer.options == {}
    assert apply(recipe, space, {"optimizer.name": "NTASGD"}) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(()), "one type"),
        (lambda: Choice((1, "a")), "one type"),
        (lambda: Choice((1, 2), default=3), "one of its values"),
        (lambda: Choice(("a",), sets={"b": {}}), "as keys"),
        (lambda: Int(4, 2), "low < high"),
        (lambda: Float(0.0, 1.0, sampling="log"), "positive"),
        (lambda: from_json({}), "at least one"),
        (lambda: from_json([]), "JSON object"),
        (lambda: from_json({"a": {"kind": "int"}}), "missing"),
        (lambda: from_json({"a": {"kind": "tree"}}), "one of: choice, int, float"),
        (lambda: from_json(to_json({"a": Int(1, 2, when={"b": (1,)})})), "same space"),
        (
            lambda: from_json(to_json({"a": Int(1, 2, when={"b": (3,)}), "b": Choice((1, 2))})),
            "values of `b`",
        ),
        (
            lambda: from_json(
                to_json(
                    {
                        "a": Choice((1, 2), when={"b": (1,)}),
                        "b": Choice((1, 2), when={"a": (1,)}),
                    }
                )
            ),
            "circles",
        ),
        (lambda: tuning.objective("beauty"), "must be one of: nll"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_objectives():
    assert tuning.objective("val_bits") == tuning.Objective("val_bits", "min")
    accuracy = tuning.objective("accuracy")
    rows = [{"val_accuracy": 0.5}, {"val_accuracy": 0.75}, {"val_accuracy": float("nan")}]
    assert accuracy.best(rows) == (2, 0.75)
    assert accuracy.best(rows[2:]) is None
    assert tuning.objective("nll").best([{"nll": 2.0}, {"nll": 1.0}]) == (2, 1.0)
    with pytest.raises(ValueError, match="must be one of: val_accuracy"):
        tuning.objective("bits").best(rows)
