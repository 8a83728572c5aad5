"""`open_model`: the model behind a run, a name, a recipe or a file, and what belongs to it."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_seq import zoo
from keras_seq._tasks import TASKS
from keras_seq.pipelines import Data, Vocabulary
from keras_seq.training import building
from keras_seq.training.run import Run, load_run
from keras_seq.training.weights_file import (
    SUFFIXES,
    check_suffix,
    load_model_file,
    load_weights,
    recipe_of,
)
from keras_seq.zoo import Recipe, ShippedWeights

Source = Run | Recipe | str | Path


@dataclass(frozen=True)
class OpenedModel:
    """A model and what belongs to it, as `open_model` finds them.

    Attributes:
        model: the model, compiled.
        recipe: its recipe.
        run: the run, if it comes from one.
        shipped: the weights of the package, if it has some.
        origin: where the weights are from, in words.
        data_dir: folder of the raw files; `None` for those that a run was trained from.
    """

    model: keras.Model
    recipe: Recipe
    run: Run | None
    shipped: ShippedWeights | None
    origin: str
    data_dir: str | Path | None = None

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the run or of the shipped weights, else that of the recipe's data.

        `None` for a model that reads no text.
        """
        known = self._known_vocabulary()
        if known is not None or self.run is not None or not TASKS[self.recipe.task].of_text:
            return known
        return self.data().vocabulary

    def data(self, **changes: Any) -> Data:
        """The data, read with the vocabulary that the model has.

        Args:
            **changes: arguments of `keras_seq.pipelines.load` to use instead of the recipe's.
        """
        if self.run is not None:
            return self.run.data(self.data_dir, **changes)
        vocabulary = self._known_vocabulary()
        if vocabulary is not None:
            changes["vocabulary"] = vocabulary
        return building.load_data(self.recipe, self.data_dir, **changes)

    def _known_vocabulary(self) -> Vocabulary | None:
        if self.run is not None:
            return self.run.vocabulary
        file = None if self.shipped is None else self.shipped.vocabulary_file
        return None if file is None else Vocabulary.load(file)


def open_model(
    source: Source, weights: str | Path | None = None, data_dir: str | Path | None = None
) -> OpenedModel:
    """The model behind a name or a path, with its recipe, its vocabulary and its data.

    Args:
        source: a `Run` or the path of a run folder; a `.weights.h5` or `.keras` file with a recipe
            in it, as `keras-seq convert` writes; a recipe, or the name of a model of the zoo.
        weights: for a run, `"best"` (the default) or `"last"`; for a recipe or a name, a weights
            file, or the name of weights that ship with the package, which bring their own recipe.
            Without any its weights are the initial ones.
        data_dir: folder of the raw files, where its data are asked for; a run remembers its own.

    Raises:
        ValueError: if `source` is none of these.
        FileNotFoundError: if a file is missing.

    Example:

    ```python
    opened = keras_seq.training.open_model("trellisnet_python_docs", "python_docs")
    text = keras_seq.generation.generate(opened.model, opened.vocabulary, "The ", length=40)
    print(opened.origin, "".join(text))
    ```
    """
    if isinstance(source, str | Path) and _is_run(source):
        source = load_run(source)
    if isinstance(source, Run):
        which = str(weights or "best")
        model, origin = source.load_model(which), f"{source.folder} ({which})"
        return OpenedModel(model, source.recipe, source, None, origin, data_dir)
    if isinstance(source, str | Path) and Path(source).is_file():
        weights = Path(source)
        recipe = recipe_of(weights)
        if recipe is None:
            raise ValueError(
                f"{source} does not say which model it is. Give the model's name, and this file as "
                "its weights (--weights)."
            )
    else:
        check_source(source)
        recipe = source if isinstance(source, Recipe) else zoo.recipe(str(source))
    shipped = shipped_set(recipe, weights)
    if shipped is not None:
        recipe = shipped.recipe
        with building.precision(recipe):
            model = zoo.registry.find(recipe.name).build(weights=shipped.name)
        origin = f"{shipped.name} (shipped)"
    else:
        model = _with_weights(recipe, weights)
        origin = "initial" if weights is None else str(weights)
    building.compile_model(model, recipe)
    return OpenedModel(model, recipe, None, shipped, origin, data_dir)


def load_model(
    source: Source, weights: str | Path | None = None
) -> tuple[keras.Model, Recipe, Run | None]:
    """The model behind a name or a path: `open_model` without what else belongs to it.

    Args:
        source: see `open_model`.
        weights: see `open_model`.

    Returns:
        The model, compiled; its recipe; and the run, if there is one.
    """
    opened = open_model(source, weights)
    return opened.model, opened.recipe, opened.run


def check_source(source: Source) -> None:
    """Refuses what is neither a run, nor a model file, nor of the zoo.

    Raises:
        ValueError: if it is none of these; the message names models that are called alike.
    """
    if isinstance(source, Run | Recipe) or _is_run(source) or Path(source).is_file():
        return
    if str(source) not in zoo.names():
        import difflib

        near = difflib.get_close_matches(str(source), zoo.names(), n=3, cutoff=0.4)
        hint = f" Did you mean: {', '.join(near)}?" if near else ""
        raise ValueError(
            f"{str(source)!r} is neither a run folder nor a model file nor a model of the zoo."
            f"{hint}"
        )


def shipped_set(source: Source, weights: str | Path | None) -> ShippedWeights | None:
    """The weights of the package that `open_model` takes; `None` where it takes others.

    Args:
        source: see `open_model`.
        weights: see `open_model`.

    Raises:
        ValueError: for a name of weights that do not exist.
    """
    if isinstance(source, Run):
        return None
    name = source.name if isinstance(source, Recipe) else str(source)
    if not isinstance(weights, str) or name not in zoo.names():
        return None
    if Path(weights).name.endswith(SUFFIXES) or Path(weights).exists():
        return None
    try:
        return zoo.shipped_weights.find(name, weights)
    except ValueError as error:
        raise ValueError(f"{error} Or give a file that ends in {' or '.join(SUFFIXES)}.") from None


def _is_run(source: str | Path) -> bool:
    return (Path(source) / "recipe.json").is_file()


def _with_weights(recipe: Recipe, weights: str | Path | None) -> keras.Model:
    """The model of a recipe, not compiled, with the weights of a file or initial ones."""
    if weights is None:
        keras.utils.set_random_seed(recipe.seed)
        return building.build_model(recipe)
    path = Path(weights)
    suffix = check_suffix(path)
    stored = recipe_of(path)
    if stored is not None and stored.name != recipe.name:
        raise ValueError(f"{path} holds weights of {stored.name}, not of {recipe.name}.")
    if suffix == ".keras":
        return load_model_file(path)
    model = building.build_model(stored or recipe)
    load_weights(model, path)
    return model
