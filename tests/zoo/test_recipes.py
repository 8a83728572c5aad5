"""Every recipe fits the pipelines, the optimizers and its own model."""

import keras
import pytest
from zoo_sizes import count, wrong_sizes

import keras_seq
from keras_seq import pipelines, zoo


@pytest.mark.parametrize("name", zoo.names())
def test_data_and_optimizer_exist(name):
    recipe = zoo.recipe(name)
    assert recipe.name == name
    assert recipe.data.name in pipelines.names()
    assert set(recipe.data.options) <= set(pipelines.options(recipe.data.name))
    assert issubclass(
        getattr(keras_seq.optimizers, recipe.optimizer.name), keras.optimizers.Optimizer
    )
    assert recipe.reported.source
    assert recipe.paper
    for variant in recipe.variants:
        changed = zoo.recipe(name, variant)
        named = variant in ("paper", "released")  # by whose values these are, the default's or not
        assert named or changed != recipe
        assert set(changed.model) >= set(recipe.model)


@pytest.mark.parametrize("name", zoo.names())
def test_recipes_go_through_json(name):
    recipe = zoo.recipe(name)
    for variant in (None, *recipe.variants):
        changed = recipe.variant(variant)
        assert zoo.Recipe.from_json(changed.to_json()) == changed


@pytest.mark.parametrize("name", zoo.names())
def test_size(name):
    """Built as the recipe says, the model has the number of parameters that it states."""
    recipe = zoo.recipe(name)
    assert count(recipe) == recipe.parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.recipe(name).variants])
def test_sizes_of_variants(name):
    assert wrong_sizes(name) == {}


@pytest.mark.parametrize("family", ["trellisnet", "tcn"])
@pytest.mark.parametrize("task", ["copy_memory", "adding"])
def test_synthetic_recipes_fit_their_data(family, task):
    recipe = zoo.recipe(f"{family}_{task}").replace(**{"model.units": 6})
    data = pipelines.load(
        recipe.data.name,
        batch_size=4,
        length=recipe.data.length,
        n_train=8,
        n_validation=4,
        n_test=4,
        **recipe.data.options,
    )
    model = zoo.build(recipe)
    model.compile("sgd")
    result = model.evaluate(data.test, verbose=0, return_dict=True)
    assert result["loss"] > 0
    assert model.core.receptive_field >= next(iter(data.test))[0].shape[1]
