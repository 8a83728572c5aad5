"""What a search makes small or large, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from keras_seq._tasks import FIGURES, LOSS, NLL, metric_of
from keras_seq.training.selection import as_losses, best_epoch, monitored

NAMES = tuple(metric.key for metric in (NLL, *FIGURES, LOSS))


@dataclass(frozen=True)
class Objective:
    """A measured quantity and the direction in which it is better.

    Attributes:
        name: its name in the rows of a run, for example `"val_perplexity"`.
        direction: `"min"` or `"max"`.

    Example:

    >>> keras_seq.tuning.objective("accuracy")
    Objective(name='val_accuracy', direction='max')
    """

    name: str
    direction: Literal["min", "max"]

    @property
    def metric(self) -> str:
        """The quantity without the word for the split."""
        return self.name.removeprefix("val_")

    def best(self, rows: Sequence[Mapping[str, float]]) -> tuple[int, float] | None:
        """The best epoch, from 1, and its value; `None` if no value is finite.

        Raises:
            ValueError: if the rows have no such quantity.
        """
        values = [monitored(row, self.name) for row in rows]
        epoch = best_epoch(as_losses(values, self.name))
        return None if epoch is None else (epoch, values[epoch - 1])

    def order(self, value: float) -> float:
        """A number that is smaller for a better value."""
        return -value if self.direction == "max" else value


def objective(name: str) -> Objective:
    """The objective of a name.

    Args:
        name: one of `"nll"`, `"perplexity"`, `"bits"`, `"accuracy"`, `"nll_per_frame"`, `"mse"` and
            `"loss"`; it is measured on the validation split.

    Raises:
        ValueError: for another name.
    """
    metric = name.removeprefix("val_")
    if metric not in NAMES:
        raise ValueError(
            f"`objective` must be one of: {', '.join(NAMES)}. Received: objective={name!r}."
        )
    return Objective(f"val_{metric}", metric_of(metric).direction)
