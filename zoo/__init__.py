"""Models with the papers' settings, and the recipes that train them.

`keras_seq.zoo.NAME(**overrides)` builds an uncompiled model, `recipe(NAME)` says how its paper
trained it, `names()` lists the zoo, and `weights()` the trained weights that ship with the
package, which `NAME(weights=...)` loads.
"""

from collections.abc import Callable

import keras

from keras_seq._discovery import modules_of
from keras_seq.zoo import registry
from keras_seq.zoo.recipe import DataSpec, OptimizerSpec, Recipe, Reported, ScheduleSpec
from keras_seq.zoo.registry import names
from keras_seq.zoo.shipped_weights import ShippedWeights, weights

__all__ = [
    "DataSpec",
    "OptimizerSpec",
    "Recipe",
    "Reported",
    "ScheduleSpec",
    "ShippedWeights",
    "build",
    "names",
    "recipe",
    "weights",
]


def recipe(name: str, variant: str | None = None) -> Recipe:
    """The recipe of a zoo model.

    Args:
        name: the model's name.
        variant: a named variant of the recipe, for example `"released"`.

    Raises:
        ValueError: for an unknown name or variant.

    Example:

    >>> keras_seq.zoo.recipe("trellisnet_ptb_word").reported.value
    56.97
    """
    return registry.find(name).recipe.variant(variant)


def build(recipe: Recipe | str, **overrides) -> keras.Model:
    """Builds the model of a recipe or of a name, with its weights initialised.

    Args:
        recipe: a recipe, changed or not, or the name of one.
        **overrides: settings that replace the recipe's.
    """
    if isinstance(recipe, str):
        return registry.find(recipe).build(**overrides)
    return registry.find(recipe.name).build(**{**recipe.model, **overrides})


modules_of(__name__)


def __getattr__(name: str) -> Callable[..., keras.Model]:
    if name in registry.names():
        return registry.find(name).build
    raise AttributeError(f"module 'keras_seq.zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *registry.names()])
