"""How far a run has come."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """The progress of a run; part of its checkpoint.

    Attributes:
        epoch: epochs that have ended.
        step_in_epoch: batches of the present epoch that are done.
        step: optimizer steps of the whole run.
        seconds: time spent training.
        rows: one dictionary an epoch, the rows of `metrics.csv`.
        callbacks: states of the callbacks that have one.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    callbacks: list[Any] = field(default_factory=list)

    def to_meta(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "Progress":
        """The progress of a checkpoint; the row of an epoch that had not ended is dropped.

        Raises:
            KeyError, ValueError: if it is none.
        """
        progress = cls(**{name: meta[name] for name in cls.__dataclass_fields__})
        counts = (progress.epoch, progress.step_in_epoch, progress.step)
        lists = (progress.rows, progress.callbacks)
        if not all(type(value) is int and value >= 0 for value in counts):
            raise ValueError(f"epoch, step_in_epoch and step are {counts}")
        if not all(isinstance(value, list) for value in lists):
            raise ValueError("rows and callbacks are no lists")
        if len(progress.rows) < progress.epoch:
            raise ValueError(f"it has {len(progress.rows)} rows of {progress.epoch} epochs")
        progress.rows = progress.rows[: progress.epoch]
        return progress


class TrainingError(RuntimeError):
    """A run that had to be stopped, for example because its loss was not a number."""


class StopRun(Exception):
    """Ends a run from within `fit`.

    Args:
        reason: one sentence for people.
        failed: whether something is wrong with the run.
    """

    def __init__(self, reason: str, failed: bool = False):
        super().__init__(reason)
        self.reason = reason
        self.failed = failed
