"""What people see of a run: a live bar on a terminal, one line an epoch elsewhere."""

import datetime
import math
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from keras_seq._tasks import FIGURES, LOSS, TASKS
from keras_seq.training.session import Limits
from keras_seq.training.state import Progress as RunProgress
from keras_seq.zoo import Recipe

SHOWN = (LOSS, *FIGURES)


class Reporter:
    """Shows the progress of a run.

    Args:
        recipe: its recipe.
        console: where to write.
        verbose: 0 for nothing, 1 for a bar and one line an epoch, 2 for the line only, `"auto"` for
            1 on a terminal and 2 elsewhere.
        limits: its length.
        items_per_step: tokens or examples a batch.
        level: of the vocabulary, if there is one: what a token is.
    """

    def __init__(
        self,
        recipe: Recipe,
        console: Console,
        verbose: int | str,
        limits: Limits,
        items_per_step: float,
        level: str | None = None,
    ):
        self.console = console
        self.verbose = (1 if console.is_terminal else 2) if verbose == "auto" else int(verbose)
        self.limits = limits
        self.items_per_step = items_per_step
        self.unit = TASKS[recipe.task].items
        self.labels = {metric.key: metric.label(level) for metric in SHOWN}
        self._bar: Progress | None = None
        self._task = None
        self._begun: tuple[float, int] | None = None  # time and step
        self._speed = 0.0
        self._validating: float | None = None  # since when
        self._validation = 0.0  # seconds that it took

    def note(self, text: str) -> None:
        """A line of text."""
        if self.verbose:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def epoch_begin(self, epoch: int, progress: RunProgress) -> None:
        self._begun = None
        if self.verbose != 1:
            return
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[values]}"),
            console=self.console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            f"epoch {epoch + 1}/{self.limits.epochs}",
            total=self.limits.steps_per_epoch,
            completed=progress.step_in_epoch,
            values="compiling" if not self._speed else "",
        )
        self._bar.start()

    def step(self, progress: RunProgress, logs: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self._begun is None:  # the first step may compile: it says nothing of speed
            self._begun = (now, progress.step)
        elif now > self._begun[0]:
            begun, first = self._begun
            self._speed = (progress.step - first) / (now - begun)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=progress.step_in_epoch,
                values=f"{self._values(logs)}{self._rates()}{self._left(progress)}",
            )

    def validation_begin(self, progress: RunProgress) -> None:
        self._validating = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, values="validation")

    def epoch_end(self, progress: RunProgress, row: Mapping[str, float], best: bool) -> None:
        self.close()
        if self._validating is not None:
            self._validation = time.monotonic() - self._validating
            self._validating = None
        if not self.verbose:
            return
        validation = {
            name.removeprefix("val_"): value
            for name, value in row.items()
            if name.startswith("val_")
        }
        parts = [f"epoch {int(row['epoch'])}/{self.limits.epochs}  {self._values(row)}"]
        if validation:
            parts.append(f"validation: {self._values(validation)}")
        parts.append(f"rate {row['learning_rate']:.3g}")
        parts.append(f"{row['seconds']:.1f} s{self._rates()}{self._left(progress)}")
        self.note(" | ".join(parts) + ("  (best so far)" if best else ""))

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _values(self, logs: Mapping[str, float]) -> str:
        return "  ".join(
            f"{label} {logs[name]:.4g}" for name, label in self.labels.items() if name in logs
        )

    def _rates(self) -> str:
        if not self._speed:
            return ""
        items = self._speed * self.items_per_step
        return f"  {self._speed:.3g} steps/s  {_count(items)} {self.unit}/s"

    def _left(self, progress: RunProgress) -> str:
        """The time to the last epoch, the validations included."""
        steps = self.limits.steps - progress.step
        if not self._speed or steps <= 0:
            return ""
        validations = math.ceil(steps / self.limits.steps_per_epoch)
        seconds = steps / self._speed + validations * self._validation
        return f"  {datetime.timedelta(seconds=round(seconds))} left"


def _count(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
