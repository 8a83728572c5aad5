"""`evaluate`: figures of a run, a model of the zoo or a model file on a held-out split."""

import time
from pathlib import Path
from typing import Any

import keras

from keras_seq.pipelines import Data
from keras_seq.training.opening import OpenedModel, Source, open_model
from keras_seq.zoo import Recipe

SPLITS = ("test", "validation")


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
        source: what to evaluate, see `open_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `open_model`.
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
    opened, data = open_split(source, data_dir, split, weights=weights, data=data, **changes)
    begun = time.monotonic()
    figures = evaluate_model(opened.model, data, split)
    return describe(opened, data, split, figures, time.monotonic() - begun)


def open_split(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    data: Data | None = None,
    **changes: Any,
) -> tuple[OpenedModel, Data]:
    """A model and the data that go with it, with the split that is asked for.

    Args:
        source: see `open_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `open_model`.
        data: the data, if it is loaded already.
        **changes: arguments of `keras_seq.pipelines.load` to use instead of the recipe's.

    Raises:
        ValueError: for an unknown split, or one that the data do not have.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: split={split!r}.")
    opened = open_model(source, weights, data_dir)
    data = opened.data(**changes) if data is None else data
    data.split(split)
    _check_vocabulary(opened.recipe, data)
    return opened, data


def describe(
    opened: OpenedModel, data: Data, split: str, figures: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Figures together with what they belong to, as `evaluate` returns them."""
    reported = opened.recipe.reported
    return {
        "model": opened.recipe.name,
        "data": data.name,
        "split": split,
        "weights": opened.origin,
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
    dataset = data.split(split)
    figures = model.evaluate(dataset, return_dict=True, verbose=0)
    figures = {name: float(value) for name, value in figures.items()}
    if "tokens" in figures:
        return {**figures, "tokens": round(figures["tokens"])}
    return {**figures, "examples": _examples(data, dataset, split)}


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
