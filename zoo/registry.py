"""The registry behind `keras_seq.zoo`: one entry a model, found by its name.

A family's file holds a function that builds a model of its settings, and `register`s it with the
recipes of the models that it builds. Every module of this folder is imported when the zoo is, so a
new family is a new file and nothing else.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from keras_seq.zoo import shipped_weights
from keras_seq.zoo.recipe import Recipe
from keras_seq.zoo.settings import (
    argument_lines,
    documented,
    settings_in,
    with_todays_names,
)

Builder = Callable[..., keras.Model]


@dataclass(frozen=True)
class Entry:
    """A zoo model.

    Attributes:
        recipe: how it is made and trained.
        build: `keras_seq.zoo.NAME`, which takes overrides of the recipe's settings.
        builder: the function that takes every setting, shared by models of the family.
    """

    recipe: Recipe
    build: Builder
    builder: Builder


_ENTRIES: dict[str, Entry] = {}


def register(builder: Builder, *recipes: Recipe) -> None:
    """Adds the models of these recipes to the zoo, all made by one builder.

    `keras_seq.zoo.NAME` is then the model of the recipe `NAME`. It takes the builder's settings as
    overrides of the recipe's, `variant` for a named variant of the recipe, and `weights` for a set
    of trained weights that ships with the package, whose settings replace the recipe's; an unknown
    setting is refused. Its docstring comes from the recipe and from that of the builder.

    Args:
        builder: a function that builds a model of keyword settings.
        *recipes: recipes whose `model` holds settings of the builder.
    """
    for recipe in recipes:
        build = _overridable(recipe, builder, builder)
        build.__name__ = build.__qualname__ = recipe.name
        build.__module__ = __package__ or __name__  # where it is found by name
        build.__doc__ = _docstring(recipe, builder)
        _add(recipe, build, builder)


def entry(recipe: Recipe):
    """Registers the decorated function, which bears the name of the recipe, as its model.

    It is for a model that needs more than a builder's settings; else `register` is shorter. The
    function takes every setting of `recipe.model` as a keyword argument.
    """

    def decorate(function: Builder) -> Builder:
        if function.__name__ != recipe.name:
            raise ValueError(
                f"The function of recipe {recipe.name!r} must bear its name. "
                f"Received: {function!r}."
            )
        builder = builder_of(function)
        build = functools.update_wrapper(_overridable(recipe, function, builder), function)
        return _add(recipe, build, builder)

    return decorate


def forwards_to(builder: Builder):
    """Marks a function under `entry` whose `**settings` all go to `builder`."""

    def decorate(function):
        function.builder = builder
        return function

    return decorate


def _overridable(recipe: Recipe, function: Builder, builder: Builder) -> Builder:
    """Calls `function` with the recipe's settings, which may be overridden."""
    known = settings_in(builder)

    def build(variant: str | None = None, weights: str | None = None, **overrides) -> keras.Model:
        shipped = None if weights is None else shipped_weights.find(recipe.name, weights)
        if shipped is not None and variant is not None:
            raise ValueError(
                "`weights` bring their own settings, so there is no `variant` of them. "
                f"Received: variant={variant!r}, weights={weights!r}."
            )
        source = recipe.variant(variant) if shipped is None else shipped.recipe
        settings = {**source.model, **with_todays_names(overrides)}
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

    return build


def _add(recipe: Recipe, build: Builder, builder: Builder) -> Builder:
    """Registers `build`, whose signature has the recipe's settings as defaults."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = {
        name: inspect.Parameter(name, kind, default=None, annotation=str | None)
        for name in ("variant", "weights")
    }
    for name, setting in settings_in(builder).items():
        default = recipe.model.get(name, setting.default)
        own = setting.replace(kind=setting.KEYWORD_ONLY, default=default)
        parameters.setdefault(name, own)
    signature = inspect.signature(builder).replace(parameters=list(parameters.values()))
    vars(build).update(builder=builder, __signature__=signature)
    _ENTRIES[recipe.name] = Entry(recipe, build, builder)
    return build


def _docstring(recipe: Recipe, builder: Builder) -> str:
    """What `help(keras_seq.zoo.NAME)` says."""
    reported, variants = recipe.reported, ", ".join(map(repr, recipe.variants))
    figure = f"{reported.metric.replace('_', ' ')} {reported.value:g}, " if reported.value else ""
    size = f" ({reported.size})" if reported.size else ""
    facts = (
        f"{recipe.paper} Reported: {figure}{reported.source}{size}. Here: {recipe.parameters:,} "
        f"parameters. `keras_seq.zoo.recipe({recipe.name!r})` says how it is trained."
    )
    settings = {
        "variant": f"other settings: {variants}." if variants else "there is none.",
        "weights": "the name of trained weights that ship with the package.",
    }
    lines = [recipe.summary, "", *textwrap.wrap(facts, 92), "", "Args:"]
    return "\n".join([*lines, *argument_lines(settings), *_settings_lines(builder)])


@functools.cache
def _settings_lines(builder: Builder) -> list[str]:
    """What a builder's docstring says of its settings: the same for all models of it."""
    return argument_lines(documented(builder))


def builder_of(build: Builder) -> Builder:
    """The function that takes the settings of a zoo model one by one."""
    return getattr(build, "builder", inspect.unwrap(build))


def settings_of(name: str) -> Mapping[str, inspect.Parameter]:
    """The settings of a zoo model by name, with their types and the builder's own defaults.

    Raises:
        ValueError: if the zoo has no such model.
    """
    return settings_in(find(name).builder)


def entries() -> Mapping[str, Entry]:
    """The models that are registered so far, by name."""
    return _ENTRIES


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
