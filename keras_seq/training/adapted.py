"""`evaluate_dynamic` and `evaluate_cached`: dynamic evaluation and the cache, from a run on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_seq.models import LanguageModel
from keras_seq.pipelines import Data
from keras_seq.training.dynamic_evaluation import dynamic_evaluate, gradient_statistics
from keras_seq.training.evaluation import describe, open_split
from keras_seq.training.neural_cache import cache_evaluate
from keras_seq.training.opening import OpenedModel, Source


def evaluate_dynamic(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    data: Data | None = None,
    statistics_batches: int | None = None,
    learning_rate: float = 0.002,
    decay: float = 0.02,
    epsilon: float = 0.001,
) -> dict[str, Any]:
    """Figures of a language model that adapts to the text it is evaluated on.

    The gradient statistics are those of the training split, see `gradient_statistics`; the rest is
    `dynamic_evaluate`. No file is written, and the stored weights stay as they are.

    Args:
        source: a run, a recipe, a name or a file, see `open_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `open_model`.
        batch_size: rows that are read and adapted to together, in place of the recipe's; the paper
            has 1.
        steps: tokens between two updates, in place of the recipe's length; the paper has 5.
        data: the data, if it is loaded already; `batch_size` and `steps` are then its own.
        statistics_batches: training batches that the statistics come from; `None` for all.
        learning_rate: η, see `dynamic_evaluate`.
        decay: λ.
        epsilon: ε.

    Returns:
        A dictionary as that of `evaluate`, with `nll`, `perplexity`, `bits` and `tokens`, and the
        settings as `dynamic`.

    Raises:
        ValueError: if it is no language model, or the split or the training text is missing.
    """
    settings = {"learning_rate": learning_rate, "decay": decay, "epsilon": epsilon}

    def figures(model: LanguageModel, data: Data) -> dict[str, Any]:
        if data.train is None:
            raise ValueError(
                "Dynamic evaluation needs the training text, for the sizes of its gradients. "
                f"Received: {data.name} without a training split. Give its files."
            )
        statistics = gradient_statistics(model, data.epoch(0), statistics_batches)
        return dynamic_evaluate(model, data.split(split), statistics, **settings)

    changes = _changes(batch_size, steps)
    opened, data = open_split(source, data_dir, split, weights=weights, data=data, **changes)
    told = {**settings, "statistics_batches": statistics_batches}
    return _evaluated(opened, data, split, figures, "dynamic", told)


def evaluate_cached(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    batch_size: int | None = None,
    data: Data | None = None,
    size: int = 500,
    sharpness: float = 0.66,
    share: float = 0.13,
) -> dict[str, Any]:
    """Figures of a language model together with a neural cache, see `cache_evaluate`.

    Args:
        source: a run, a recipe, a name or a file, see `open_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `open_model`.
        batch_size: rows, each with a cache of its own, in place of the recipe's.
        data: the data, if it is loaded already; `batch_size` is then its own.
        size: tokens that are remembered.
        sharpness: θ.
        share: λ, in [0, 1).

    Returns:
        A dictionary as that of `evaluate`, with `nll`, `perplexity`, `bits` and `tokens`, and the
        settings as `cache`.

    Raises:
        ValueError: if it is no language model, or a setting is out of range.
    """
    settings = {"size": size, "sharpness": sharpness, "share": share}

    def figures(model: LanguageModel, data: Data) -> dict[str, Any]:
        return cache_evaluate(model, data.split(split), **settings)

    changes = _changes(batch_size, None)
    opened, data = open_split(source, data_dir, split, weights=weights, data=data, **changes)
    return _evaluated(opened, data, split, figures, "cache", settings)


def check_language_model(opened: OpenedModel, what: str) -> LanguageModel:
    """The model, if it predicts tokens.

    Raises:
        ValueError: if it is no `LanguageModel`.
    """
    if not isinstance(opened.model, LanguageModel):
        raise ValueError(
            f"{what} is for language models. Received: {opened.recipe.name}, a model of the kind "
            f"{opened.recipe.task}."
        )
    return opened.model


def _changes(batch_size: int | None, steps: int | None) -> dict[str, int]:
    changes = {"eval_batch_size": batch_size, "length": steps}
    return {name: value for name, value in changes.items() if value is not None}


def _evaluated(
    opened: OpenedModel,
    data: Data,
    split: str,
    figures: Callable[[LanguageModel, Data], dict[str, Any]],
    name: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    what = {"dynamic": "Dynamic evaluation", "cache": "The cache"}[name]
    model = check_language_model(opened, what)
    begun = time.monotonic()
    found = figures(model, data)
    found["tokens"] = round(found["tokens"])
    told = {**found, name: settings}
    return describe(opened, data, split, told, time.monotonic() - begun)
