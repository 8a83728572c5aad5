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
        """The progress of a checkpoint; the row of an epoch that had not ended is dropped."""
        progress = cls(**{name: meta[name] for name in cls.__dataclass_fields__})
        del progress.rows[progress.epoch :]
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
