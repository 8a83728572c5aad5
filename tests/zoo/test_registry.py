"""How models get into the zoo: signatures, docstrings, and files of users."""

import inspect
import pickle

import keras
import pytest

from keras_seq import zoo
from keras_seq.zoo import Recipe, registry
from keras_seq.zoo.settings import documented, split_settings, takes_settings_of


@pytest.fixture
def entries(monkeypatch):
    """Takes back what a test registers."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry.entries()))


def recipe(name: str, **model) -> Recipe:
    changes = {"name": name, "model": model, "variants": {"wide": {"model.units": 9}}}
    return Recipe(**{**vars(zoo.recipe("lstm_ptb_word")), **changes})


def dense(*, units: int, activation: str = "tanh") -> keras.Model:
    """Builds a layer.

    Args:
        units: width.
        activation: a name of Keras.
    """
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, activation)])


@pytest.mark.parametrize("name", zoo.names())
def test_help_shows_the_settings_of_the_recipe(name):
    build = getattr(zoo, name)
    parameters = inspect.signature(build).parameters
    settings = registry.settings_of(name)
    assert list(parameters) == ["variant", "weights", *settings]
    for key, setting in settings.items():
        assert parameters[key].default == zoo.recipe(name).model.get(key, setting.default)
        assert parameters[key].default is not inspect.Parameter.empty
        assert parameters[key].annotation is setting.annotation is not inspect.Parameter.empty
        assert documented(build).get(key), f"{name} does not say what {key} is"
    assert pickle.loads(pickle.dumps(build)) is build
    assert registry.find(name).builder is registry.builder_of(build)


def test_one_builder_makes_several_models(entries):
    registry.register(dense, recipe("narrow", units=4), recipe("wider", units=5))
    assert zoo.narrow().count_params() == 16 and zoo.wider().count_params() == 20
    assert zoo.wider("wide", activation="relu").layers[0].units == 9
    with pytest.raises(ValueError, match="wider has no setting 'unit'. Its .* units, activation"):
        zoo.wider(unit=3)
    with pytest.raises(ValueError, match="`model.units` must be of type int"):
        zoo.recipe("wider").replace(**{"model.units": "5"})


def test_a_setting_that_is_called_as_an_argument_of_every_model(entries):
    def narrow(*, units: int, weights: str = "own") -> keras.Model:
        return dense(units=units)

    registry.entry(recipe("narrow", units=4))(narrow)
    assert inspect.signature(zoo.narrow).parameters["weights"].default is None
    assert zoo.narrow().count_params() == 16


@pytest.mark.parametrize("forwarded", [False, True])
def test_a_function_of_its_own(entries, forwarded):
    def narrow(**settings) -> keras.Model:
        """One layer."""
        return dense(**settings)

    def other(units: int, activation: str = "relu", **weights) -> keras.Model:
        return dense(units=units, activation=activation)

    other.__name__ = "narrow"
    function = registry.forwards_to(dense)(narrow) if forwarded else other
    build = registry.entry(recipe("narrow", units=4))(function)
    assert build.__doc__ == function.__doc__ and build is zoo.narrow
    assert zoo.narrow(units=2).count_params() == 8
    assert list(registry.settings_of("narrow")) == ["units", "activation"]
    assert inspect.signature(build).parameters["units"].default == 4
    with pytest.raises(ValueError, match="must bear its name"):
        registry.entry(recipe("other", units=4))(function)


def test_settings_are_handed_on():
    @takes_settings_of(dense, "activation")
    def model(*, width: int, **settings):
        """Builds it.

        Args:
            width: of the layer,
                in units.
            **settings: of `dense`.
        """
        return split_settings(settings, dense), width

    assert list(inspect.signature(model).parameters) == ["width", "activation"]
    assert documented(model) == {
        "width": "of the layer, in units.",
        "activation": "a name of Keras.",
    }
    assert model(width=3, activation="relu", name="a") == (
        ({"activation": "relu"}, {"name": "a"}),
        3,
    )


@pytest.mark.parametrize("name", ["transformer_xl_python_docs", "deq_transformer_python_docs"])
def test_earlier_names_of_settings_are_taken(name, tmp_path):
    """In calls, recipes and on the command line; recipes say the name of today."""
    from keras_seq.cli.settings import apply_settings

    known = zoo.recipe(name)
    assert known.model["norm_order"] == "pre"
    post = known.replace(**{"model.norm_order": "post"})
    assert known.replace(**{"model.normalize_first": False}) == post
    assert apply_settings(known, ["normalize_first=false"]) == post
    written = post.to_json().replace('"norm_order": "post"', '"normalize_first": false')
    assert Recipe.from_json(written) == post
    small = {"units": 8, "heads": 2, "inner_units": 8}
    build = getattr(zoo, name)
    for model in (build(**small, normalize_first=False), build(**small, norm_order="post")):
        layer = getattr(model.core, "cell", model.core)
        assert layer.norm_order == "post"
    with pytest.raises(ValueError, match="`normalize_first` must be True or False"):
        known.replace(**{"model.normalize_first": "pre"})
