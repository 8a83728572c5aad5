"""Which epoch is the best, and when to stop: rules on the rows of `metrics.csv`."""

import math
from collections.abc import Mapping, Sequence

from keras_seq._tasks import metric_of


def as_losses(values: Sequence[float], monitor: str) -> list[float]:
    """Monitored values with the sign under which smaller is better."""
    watched = metric_of(monitor)
    return [watched.as_loss(value) for value in values]


def best_epoch(losses: Sequence[float]) -> int | None:
    """The epoch, from 1, with the smallest loss; of equal ones the first.

    Losses that are not finite never count; `None` if there is no other.
    """
    best = None
    for epoch, loss in enumerate(losses, start=1):
        if math.isfinite(loss) and (best is None or loss < losses[best - 1]):
            best = epoch
    return best


def should_stop(losses: Sequence[float], patience: int | None) -> bool:
    """Early stopping: whether `patience` epochs have passed without a new best one."""
    if patience is None:
        return False
    return len(losses) - (best_epoch(losses) or 0) >= patience


def non_monotone(losses: Sequence[float], patience: int | None) -> bool:
    """Whether the newest loss is above the smallest of those more than `patience` epochs before.

    With n = `patience` and losses v₁ … vₑ: e - 1 > n and vₑ > min(v₁, …, vₑ₋₁₋ₙ), the trigger of
    Merity et al. (2018), algorithm 1. A loss that is not a number counts as worse than any other.
    """
    if patience is None or len(losses) - 1 <= patience:
        return False
    ranks = [loss if loss == loss else math.inf for loss in losses]
    return ranks[-1] > min(ranks[: len(ranks) - 1 - patience])


def monitored(row: Mapping[str, float], monitor: str) -> float:
    """The monitored quantity of an epoch.

    Without validation data, `val_X` falls back to `X`, the value over the training split.

    Raises:
        ValueError: if the epoch has no such quantity.
    """
    for name in (monitor, monitor.removeprefix("val_")):
        if name in row:
            return float(row[name])
    known = ", ".join(sorted(row))
    raise ValueError(f"`monitor` must be one of: {known}. Received: monitor={monitor!r}.")
