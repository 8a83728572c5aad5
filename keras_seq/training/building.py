"""From a recipe to its data, its model and its optimizer."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_seq import pipelines, zoo
from keras_seq.pipelines import Data
from keras_seq.zoo import OptimizerSpec, Recipe
from keras_seq.zoo.recipe_checks import find_optimizer


def as_recipe(recipe: Recipe | str) -> Recipe:
    """The recipe itself, or the zoo's recipe of a name."""
    return zoo.recipe(recipe) if isinstance(recipe, str) else recipe


def name_of(recipe: Recipe | str | None) -> str | None:
    """The name of a model of the zoo, by its recipe or itself; `None` for none."""
    return recipe.name if isinstance(recipe, Recipe) else recipe


@contextlib.contextmanager
def precision(recipe: Recipe) -> Iterator[None]:
    """Makes the recipe's dtype policy Keras' own for a while."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def load_data(recipe: Recipe, data_dir: str | Path | None = None, **changes: Any) -> Data:
    """The data set of a recipe.

    Args:
        recipe: the recipe.
        data_dir: folder of the raw files; the embedded corpus and synthetic tasks need none.
        **changes: arguments of `keras_seq.pipelines.load` to use instead of the recipe's.
    """
    spec = recipe.data
    settings = {
        "batch_size": spec.batch_size,
        "eval_batch_size": spec.eval_batch_size,
        "length": spec.length,
        "history": spec.history,
        "seed": recipe.seed,
        **spec.options,
        **changes,
    }
    return pipelines.load(spec.name, data_dir, **settings)


def fit_to_data(recipe: Recipe, data: Data) -> Recipe:
    """The recipe with the sizes of its data: tokens, or features and classes of series.

    User files have their own, and the embedded corpus changes a little with each Python version.
    """
    changes = {
        f"model.{name}": size
        for name, size in sizes_of(data).items()
        if recipe.model.get(name, size) != size
    }
    return recipe.replace(**changes) if changes else recipe


def sizes_of(data: Data) -> dict[str, int]:
    """The settings of a model that follow from its data, by name."""
    if data.vocabulary is not None:
        return {"vocabulary_size": data.vocabulary.size}
    sizes = {name: data.info[name] for name in ("features", "classes") if name in data.info}
    return sizes if len(sizes) == 2 else {}


def build_model(recipe: Recipe) -> keras.Model:
    """The recipe's model with fresh weights, in the recipe's precision."""
    with precision(recipe):
        return zoo.build(recipe)


def build_optimizer(
    spec: OptimizerSpec, learning_rate: Any = None, length: int | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe.

    Args:
        spec: its description.
        learning_rate: a rate or a schedule in place of the description's rate.
        length: time steps of a usual window, for `scale_by_length`.

    Raises:
        ValueError: for an unknown optimizer, or `scale_by_length` without a length.
    """
    cls = find_optimizer(spec.name)
    options = dict(spec.options)
    if spec.l2:
        options["l2"] = spec.l2
    if spec.global_clipnorm is not None:
        options["global_clipnorm"] = spec.global_clipnorm
    if spec.scale_by_length:
        if length is None:
            raise ValueError(
                "`optimizer.scale_by_length` needs `data.length`. Received: data.length=None. "
                "Give it, or set optimizer.scale_by_length=false."
            )
        options["nominal_length"] = length
    rate = spec.learning_rate if learning_rate is None else learning_rate
    return cls(learning_rate=rate, **options)


def compile_model(
    model: keras.Model, recipe: Recipe, learning_rate: Any = None, devices: int = 1
) -> None:
    """Compiles a model as its recipe says, with all variables of the optimizer made.

    Args:
        model: the model.
        recipe: its recipe.
        learning_rate: see `build_optimizer`.
        devices: how many it is trained on. XLA compiles no step that spans several.
    """
    optimizer = build_optimizer(recipe.optimizer, learning_rate, recipe.data.length)
    model.compile(optimizer=optimizer, jit_compile=recipe.jit_compile and devices == 1)
    model.optimizer.build(model.trainable_variables)
