"""Which way a model's own metrics improve, for callbacks that watch one of them by name."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras

# What Keras calls the directions of a metric, and what its callbacks call them.
_MODES = {"up": "max", "down": "min"}


def lower_is_better(name: str) -> keras.metrics.Mean:
    """A mean of losses, which says of itself that less is better."""
    mean = keras.metrics.Mean(name=name)
    mean._direction = "down"  # the mark that Keras' own metrics bear
    return mean


def give_directions(callbacks: Any, metrics: Iterable[keras.metrics.Metric]) -> None:
    """Sets the mode of callbacks that have none and watch one of the metrics.

    With `mode="auto"`, Keras 3.15 looks for the direction of a metric among those given to
    `compile` alone. A metric without a direction, such as a count, is left to Keras, which asks for
    a mode.

    Args:
        callbacks: what `fit` takes: a callback, a list of them, or a `CallbackList`.
        metrics: the model's own metrics.
    """
    directions = {metric.name: getattr(metric, "_direction", None) for metric in metrics}
    for callback in _single(callbacks):
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or getattr(callback, "mode", None) != "auto":
            continue
        direction = directions.get(monitor.removeprefix("val_"))
        if direction is not None:
            callback.mode = _MODES[direction]


def _single(callbacks: Any) -> Iterator[Any]:
    """The callbacks one by one, those within lists too."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if isinstance(callbacks, list | tuple):
        for callback in callbacks:
            yield from _single(callback)
    elif callbacks is not None:
        yield callbacks
