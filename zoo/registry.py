"""The registry behind `keras_seq.zoo`: one entry a model, found by its name.

A family's file holds a function for each model, decorated with `entry(recipe)`. Every module of
this folder is
imported when the zoo is, so a new family is a new file and nothing else.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from keras_seq.zoo import shipped_weights
from keras_seq.zoo.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """A zoo model: its recipe and the function that builds it."""

    recipe: Recipe
    build: Callable[..., keras.Model]


_ENTRIES: dict[str, Entry] = {}


def entry(recipe: Recipe):
    """Registers the decorated function as the zoo model of a recipe.

    The function takes every setting of `recipe.model` as a keyword argument. The registered one
    takes the same settings as overrides, `variant` for a named variant of the recipe, and `weights`
    for a set of trained weights that ships with the package, whose settings replace the recipe's;
    an unknown setting is refused.
    """

    def decorate(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        if function.__name__ != recipe.name:
            raise ValueError(
                f"The function of recipe {recipe.name!r} must bear its name. "
                f"Received: {function!r}."
            )
        known = _settings(function)

        @functools.wraps(function)
        def build(
            variant: str | None = None, weights: str | None = None, **overrides
        ) -> keras.Model:
            shipped = None if weights is None else shipped_weights.find(recipe.name, weights)
            if shipped is not None and variant is not None:
                raise ValueError(
                    "`weights` bring their own settings, so there is no `variant` of them. "
                    f"Received: variant={variant!r}, weights={weights!r}."
                )
            source = recipe.variant(variant) if shipped is None else shipped.recipe
            settings = {**source.model, **overrides}
            unknown = sorted(set(settings) - set(known))
            if unknown:
                raise ValueError(
                    f"{recipe.name} has no setting {', '.join(map(repr, unknown))}. "
                    f"Its settings are: {', '.join(known)}."
                )
            model = function(**settings)
            if shipped is not None:
                shipped.load_into(model)
            return model

        _ENTRIES[recipe.name] = Entry(recipe, build)
        return build

    return decorate


def _settings(function) -> list[str]:
    """Names of the settings that a builder takes, following `builder` where it only forwards
    them."""
    return [
        name
        for name, parameter in inspect.signature(builder_of(function)).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def builder_of(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """The function that takes the settings of a zoo model one by one."""
    return getattr(function, "builder", inspect.unwrap(function))


def entries() -> Mapping[str, Entry]:
    """The models that are registered so far, by name."""
    return _ENTRIES


def forwards_to(builder: Callable[..., keras.Model]):
    """Marks a function whose `**settings` all go to `builder`."""

    def decorate(function):
        function.builder = builder
        return function

    return decorate


def discover(package) -> None:
    """Imports every module of the zoo's folder."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def names() -> list[str]:
    """Names of all models of the zoo, in alphabetical order."""
    return sorted(_ENTRIES)


def find(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ValueError: if the zoo has no such model; the message names the nearest ones.
    """
    if name not in _ENTRIES:
        import difflib

        near = difflib.get_close_matches(name, _ENTRIES, n=3, cutoff=0.4) or names()
        raise ValueError(f"The zoo has no model {name!r}. Did you mean: {', '.join(near)}?")
    return _ENTRIES[name]
