"""The search space of each family, around the settings of a recipe.

Widths, depths, batch and length lie between half and twice what the recipe has, so that one space
serves the small recipes on Python's documentation and the large ones on WikiText-103. Learning
rates and rates of dropout have ranges of their own.

Every module of this folder is imported with it: the space of a new family is a new file.
"""

from keras_seq._discovery import modules_of
from keras_seq.tuning.parameters import Space
from keras_seq.tuning.space import in_order, setting_of
from keras_seq.tuning.spaces import registry
from keras_seq.tuning.spaces.settings import Settings
from keras_seq.tuning.spaces.training import training
from keras_seq.zoo import Recipe
from keras_seq.zoo import registry as models

modules_of(__name__)


def space(recipe: Recipe | str) -> Space:
    """The search space of a recipe's family.

    The defaults are the recipe's own settings. A setting that the recipe's model does not take is
    left out, as are lengths of data that have none. The result is a plain dict: take entries
    away, replace them, or add others.

    Args:
        recipe: a recipe or the name of one.

    Returns:
        Setting → `Choice`, `Int` or `Float`.

    Raises:
        ValueError: for an unknown name.

    Example:

    >>> space = keras_seq.tuning.space("pru_python_docs")
    >>> space["model.units"].values
    (128, 192, 256, 384, 512)
    >>> space["optimizer.learning_rate@SGD"].when
    {'optimizer.name': ('SGD',)}
    """
    if isinstance(recipe, str):
        recipe = models.find(recipe).recipe
    settings = Settings(recipe)
    found = {**registry.find(recipe.family)(settings), **training(recipe)}
    kept = {}
    for name, parameter in found.items():
        setting = setting_of(name)
        if setting is None or not setting.startswith("model.") or setting in settings.known:
            kept[name] = parameter
    missing = {name for name in found if name not in kept}
    kept = {name: p for name, p in kept.items() if not set(p.when) & missing}
    return in_order(kept)


def families() -> tuple[str, ...]:
    """The families that have a search space of their own."""
    return registry.names()
