"""Which epoch is the best, and when to stop: rules on the rows of `metrics.csv`."""

import math
from collections.abc import Mapping, Sequence

HIGHER_IS_BETTER = ("accuracy",)


def higher_is_better(monitor: str) -> bool:
    """Whether larger values of a monitored quantity are better (accuracies are, losses are not)."""
    return monitor.endswith(HIGHER_IS_BETTER)


def as_losses(values: Sequence[float], monitor: str) -> list[float]:
    """Monitored values with the sign under which smaller is better."""
    sign = -1.0 if higher_is_better(monitor) else 1.0
    return [sign * value for value in values]


def best_epoch(losses: Sequence[float]) -> int | None:
    """The epoch, from 1, with the smallest loss; of equal ones the first.

    Losses that are not finite never count; `None` if there is no other.
    """
    best = None
    for epoch, loss in enumerate(losses, start=1):
        if math.isfinite(loss) and (best is None or loss < losses[best - 1]):
            best = epoch
    return best


def curve_of(metric: str) -> str:
    """The name under which runs log a metric that recipes report."""
    return "bits" if metric == "bits_per_character" else metric


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
