"""`evaluate`: figures of a run, a model of the zoo or a model file on a held-out split."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_seq import zoo
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
from keras_seq.zoo import Recipe

SPLITS = ("test", "validation")
Source = Run | Recipe | str | Path


class Opened(NamedTuple):
    """A model with its data.

    Attributes:
        model: the model, compiled.
        recipe: its recipe.
        data: the data.
        run: the run, if it comes from one.
        weights: where the weights are from, in words.
    """

    model: keras.Model
    recipe: Recipe
    data: Data
    run: Run | None
    weights: str


def load_model(
    source: Source, weights: str | Path | None = None
) -> tuple[keras.Model, Recipe, Run | None]:
    """The model behind a name or a path.

    Args:
        source: a `Run` or the path of a run folder; a `.weights.h5` or `.keras` file with a recipe
            in it, as `keras-seq convert` writes; a recipe, or the name of a model of the zoo.
        weights: for a run, `"best"` (the default) or `"last"`; for a recipe or a name, a weights
            file, or the name of weights that ship with the package, which bring their own recipe.
            Without any its weights are the initial ones.

    Returns:
        The model, compiled; its recipe; and the run, if there is one.

    Raises:
        ValueError: if `source` is none of these.
        FileNotFoundError: if a file is missing.
    """
    if isinstance(source, str | Path) and (Path(source) / "recipe.json").is_file():
        source = load_run(source)
    if isinstance(source, Run):
        return source.load_model(str(weights or "best")), source.recipe, source
    if isinstance(source, str | Path) and Path(source).is_file():
        weights = Path(source)
        recipe = recipe_of(weights)
        if recipe is None:
            raise ValueError(
                f"{source} does not say which model it is. Give the model's name, and this file as "
                "its weights (--weights)."
            )
    elif isinstance(source, Recipe):
        recipe = source
    elif str(source) in zoo.names():
        recipe = zoo.recipe(str(source))
    else:
        raise ValueError(unknown_source(str(source)))
    shipped = shipped_set(recipe, weights)
    if shipped is not None:
        recipe = shipped.recipe
        with building.precision(recipe):
            model = zoo.registry.find(recipe.name).build(weights=shipped.name)
        building.compile_model(model, recipe)
        return model, recipe, None
    return _with_weights(recipe, weights), recipe, None


def shipped_set(source: Source, weights: str | Path | None) -> zoo.ShippedWeights | None:
    """The weights of the package that `load_model` takes; `None` where it takes others.

    Args:
        source: see `load_model`.
        weights: see `load_model`.

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


def unknown_source(source: str) -> str:
    """What to say of a name that is neither a run, nor a file, nor a model."""
    import difflib

    near = difflib.get_close_matches(source, zoo.names(), n=3, cutoff=0.4)
    hint = f" Did you mean: {', '.join(near)}?" if near else ""
    return f"{source!r} is neither a run folder nor a model file nor a model of the zoo.{hint}"


def evaluate(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    batch_size: int | None = None,
    data: Data | None = None,
) -> dict[str, Any]:
    """Loss and metrics on a held-out split, in which every token or example counts exactly once.

    Args:
        source: what to evaluate, see `load_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `load_model`.
        batch_size: sequences in a batch, in place of the recipe's.
        data: the data, if it is loaded already.

    Returns:
        A dictionary: `model`, `split`, `weights`, the loss and metrics by name, the exact number of
            `tokens` (or
        `examples`), the paper's `reported` figure, `seconds`.

    Raises:
        ValueError: for an unknown split, or one that the data do not have.

    Example:

    ```python
    figures = keras_seq.training.evaluate("runs/trellisnet_python_docs-1")
    print(figures["bits"], figures["tokens"])
    ```
    """
    changes = {} if batch_size is None else {"eval_batch_size": batch_size}
    opened = open_source(source, data_dir, split, weights=weights, data=data, **changes)
    begun = time.monotonic()
    figures = evaluate_model(opened.model, opened.data, split)
    return describe(opened, split, figures, time.monotonic() - begun)


def open_source(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    data: Data | None = None,
    **changes: Any,
) -> Opened:
    """A model and the data that go with it, with the split that is asked for.

    Args:
        source: see `load_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `load_model`.
        data: the data, if it is loaded already.
        **changes: arguments of `keras_seq.pipelines.load` to use instead of the recipe's.

    Raises:
        ValueError: for an unknown split, or one that the data do not have.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: split={split!r}.")
    if isinstance(source, Path | str) and not (Path(source) / "recipe.json").is_file():
        source = str(source)
    model, recipe, run = load_model(source, weights)
    shipped = shipped_set(source, weights) if run is None else None
    if shipped is not None and shipped.vocabulary_file is not None:
        changes["vocabulary"] = Vocabulary.load(shipped.vocabulary_file)
    if data is None and run is not None:
        data = run.data(data_dir, **changes)
    elif data is None:
        data = building.load_data(recipe, data_dir, **changes)
    if getattr(data, split) is None:
        raise ValueError(f"{data.name} has no {split} split. Give its files, or another split.")
    _check_vocabulary(recipe, data)
    return Opened(model, recipe, data, run, _origin(source, weights, run))


def describe(opened: Opened, split: str, figures: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Figures together with what they belong to, as `evaluate` returns them."""
    reported = opened.recipe.reported
    return {
        "model": opened.recipe.name,
        "data": opened.data.name,
        "split": split,
        "weights": opened.weights,
        **figures,
        "reported": {
            "metric": reported.metric,
            "value": reported.value,
            "source": reported.source,
        },
        "seconds": round(seconds, 3),
    }


def evaluate_model(model: keras.Model, data: Data, split: str) -> dict[str, Any]:
    """Loss and metrics of a compiled model on a split, and the exact `tokens` or `examples`."""
    dataset = getattr(data, split)
    figures = model.evaluate(dataset, return_dict=True, verbose=0)
    figures = {name: float(value) for name, value in figures.items()}
    if "tokens" in figures:
        return {**figures, "tokens": round(figures["tokens"])}
    return {**figures, "examples": _examples(data, dataset, split)}


def _with_weights(recipe: Recipe, weights: str | Path | None) -> keras.Model:
    if weights is None:
        keras.utils.set_random_seed(recipe.seed)
        model = building.build_model(recipe)
    else:
        path = Path(weights)
        suffix = check_suffix(path)
        if suffix == ".keras":
            model = load_model_file(path)
        else:
            stored = recipe_of(path)
            if stored is not None and stored.name != recipe.name:
                raise ValueError(f"{path} holds weights of {stored.name}, not of {recipe.name}.")
            model = building.build_model(stored or recipe)
            load_weights(model, path)
    building.compile_model(model, recipe)
    return model


def _check_vocabulary(recipe: Recipe, data: Data) -> None:
    size = recipe.model.get("vocabulary_size")
    if data.vocabulary is not None and size is not None and data.vocabulary.size > size:
        raise ValueError(
            f"The data have {data.vocabulary.size} tokens, the model {size}. "
            "Evaluate it on the corpus that it was trained on."
        )


def _examples(data: Data, dataset, split: str) -> int:
    """The number of examples of a split: as the pipeline says, else counted."""
    counts = data.info.get("examples")
    if isinstance(counts, dict) and split in counts:
        return int(counts[split])
    return sum(int(keras.tree.flatten(batch)[0].shape[0]) for batch in dataset)


def _origin(source: Source, weights: str | Path | None, run: Run | None) -> str:
    if run is not None:
        return f"{run.folder} ({weights or 'best'})"
    if isinstance(source, str) and Path(source).is_file():
        return source
    if weights is not None and shipped_set(source, weights) is not None:
        return f"{weights} (shipped)"
    return "initial" if weights is None else str(weights)
