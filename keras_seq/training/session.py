"""The callback that turns `fit` into a run: checkpoints, schedule, best weights, logs, stops."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import keras

from keras_seq.models.monitoring import give_directions
from keras_seq.optimizers.strategy_safe import own_optimizer
from keras_seq.training import best_weights
from keras_seq.training.checkpoint import Checkpoint
from keras_seq.training.cluster import Cluster
from keras_seq.training.outputs import TensorBoardLogs, write_metrics
from keras_seq.training.run import Run
from keras_seq.training.schedules import Schedule
from keras_seq.training.selection import (
    as_losses,
    best_epoch,
    monitored,
    non_monotone,
    should_stop,
)
from keras_seq.training.state import Progress, StopRun
from keras_seq.zoo import Recipe

LOG_POINTS = 50  # logged points of the training curves an epoch
COLUMNS = ("epoch", "step", "learning_rate", "seconds")  # of a row, before its figures
SAVING_SHARE = 20  # at least this many times as long as a checkpoint took lies between two


@dataclass
class Limits:
    """How long a run goes on and how often it is saved.

    Attributes:
        epochs: epochs of the whole run.
        max_steps: optimizer steps of the whole run; `None` for no limit.
        steps_per_epoch: batches of an epoch.
        checkpoint_seconds: time between two checkpoints within an epoch.
        checkpoint_steps: steps between two checkpoints within an epoch, instead of a time.
    """

    epochs: int
    max_steps: int | None
    steps_per_epoch: int
    checkpoint_seconds: float
    checkpoint_steps: int | None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


@runtime_checkable
class Stateful(Protocol):
    """A callback that is saved and resumed with its run."""

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


class Session(keras.callbacks.Callback):
    """One process's share of a run.

    The trainer calls `fit` once an epoch. This callback is the only one that `fit` knows; it passes
    all events on to the others, with one beginning and one end for the whole run and batches
    numbered through when an epoch is resumed in its middle.

    A callback with `get_state()` (JSON values) and `set_state(state)` is saved and resumed with the
    run. An optimizer with `evaluation_weights(model)`, a context in which the model's weights are
    those to be evaluated (averaged ones), has validation and the best epoch's weights taken within
    it. One with `epoch_end(losses)` gets the monitored losses after each whole epoch.

    Args:
        run: the run folder.
        recipe: its recipe.
        schedule: its schedule.
        limits: its length.
        progress: how far it has come.
        callbacks: the user's callbacks.
        reporter: what shows the progress to people.
        interrupted: tells whether a stop was asked for.
        cluster: the processes that train together. Only the chief writes checkpoints and weights.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        schedule: Schedule,
        limits: Limits,
        progress: Progress,
        callbacks: Sequence[keras.callbacks.Callback],
        reporter: Any,
        interrupted: Callable[[], bool],
        cluster: Cluster,
    ):
        super().__init__()
        self.run = run
        self.recipe = recipe
        self.schedule = schedule
        self.limits = limits
        self.progress = progress
        self.callbacks = list(callbacks)
        self.reporter = reporter
        self.interrupted = interrupted
        self.cluster = cluster
        self.resumed: Checkpoint | None = None  # its metrics belong to the first epoch
        self._logs = TensorBoardLogs(run.logs_folder, progress.step)
        self._offset = 0
        self._saved_at = (time.monotonic(), progress.step)
        self._saving_took = 0.0
        self._started = time.monotonic() - progress.seconds
        self._epoch_started = 0.0
        self._epoch_first_step = 0
        self._means: dict[str, list[Any]] | None = None
        self._evaluation = ExitStack()

    # The whole run

    def begin(self) -> None:
        """The run's `on_train_begin`; call it once the model is compiled."""
        limits = self.limits
        parameters = {"epochs": limits.epochs, "steps": limits.steps_per_epoch, "verbose": 0}
        give_directions(self.callbacks, self.model.metrics)  # `fit` sees this callback alone
        self._tell("set_model", self.model)
        self._tell("set_params", parameters)
        self._tell("on_train_begin", None)
        for callback, state in zip(self._stateful(), self.progress.callbacks, strict=False):
            callback.set_state(state)

    def end(self) -> None:
        """The run's `on_train_end`."""
        self._evaluation.close()
        self._tell("on_train_end", self.progress.rows[-1] if self.progress.rows else None)
        self._logs.close()

    def set_params(self, params) -> None:
        """`fit` knows one epoch only; the callbacks have the run's parameters already."""

    # Within `fit`

    def on_epoch_begin(self, epoch, logs=None):
        progress = self.progress
        if self.resumed is not None:
            if progress.step_in_epoch:
                self.resumed.restore_metrics(self.model)
            self.resumed = None
        self._offset = progress.step_in_epoch
        self._epoch_started = time.monotonic()
        self._epoch_first_step = progress.step
        self.reporter.epoch_begin(epoch, progress)
        self._tell("on_epoch_begin", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._tell("on_train_batch_begin", self._offset + batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        progress = self.progress
        done = self._offset + batch + 1
        progress.step += done - progress.step_in_epoch
        progress.step_in_epoch = done
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise StopRun(
                f"the loss is {logs['loss']} at step {progress.step} (epoch {progress.epoch + 1})",
                failed=True,
            )
        self.reporter.step(progress, logs)
        if progress.step % max(1, self.limits.steps_per_epoch // LOG_POINTS) == 0:
            self._logs.write("train", progress.step, {**logs, "learning_rate": self._rate()})
        self._tell("on_train_batch_end", done - 1, logs)
        if done >= self.limits.steps_per_epoch or progress.step >= self.limits.steps:
            return  # the epoch's own checkpoint follows
        stop, due = self.cluster.agree(self.interrupted(), self.cluster.chief and self._due())
        if stop or due:
            self.save()
        if stop:
            raise StopRun("interrupted")

    def on_test_begin(self, logs=None):
        self._means = Checkpoint.metrics_of(self.model)  # validation begins its own
        optimizer = own_optimizer(self.model)
        if optimizer is not None:
            self._evaluation.enter_context(optimizer.evaluation_weights(self.model))
        self.reporter.validation_begin(self.progress)
        self._tell("on_test_begin", logs)

    def on_test_batch_begin(self, batch, logs=None):
        self._tell("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self._tell("on_test_batch_end", batch, logs)

    def on_test_end(self, logs=None):
        self._tell("on_test_end", logs)

    def on_epoch_end(self, epoch, logs=None):
        progress, monitor = self.progress, self.recipe.monitor
        rate = self._rate()
        row = self._row(logs or {}, rate)
        progress.rows.append(row)
        losses = as_losses([monitored(r, monitor) for r in progress.rows], monitor)
        best = best_epoch(losses)
        if best == len(losses):  # every process: reading the weights may need all of them
            former = self.run.former_weights_file
            best_weights.replace(self.model, self.run.weights_file, former, progress.step)
        self._evaluation.close()
        whole = progress.step_in_epoch >= self.limits.steps_per_epoch
        if whole:
            following = self.schedule.next_rate(epoch + 1, rate, losses)
            if following != rate:
                self.model.optimizer.learning_rate = following
            self._begin_averaging(losses)
        self._tell("on_epoch_end", epoch, row)
        if whole:
            progress.epoch += 1
            progress.step_in_epoch = 0
        self.save()
        if whole:  # else a run that goes on will drop this row
            self.run.former_weights_file.unlink(missing_ok=True)
        self._means = None
        write_metrics(self.run.metrics_file, progress.rows)
        self._log_epoch(row)
        self.reporter.epoch_end(progress, row, best == len(losses))
        if not math.isfinite(losses[-1]):
            raise StopRun(f"{monitor} is {losses[-1]} after epoch {epoch + 1}", failed=True)
        if should_stop(losses, self.recipe.early_stopping):
            raise StopRun(
                f"no better {monitor} in {self.recipe.early_stopping} epochs; "
                f"the best was epoch {best}"
            )
        if whole and non_monotone(losses, self.recipe.stop_nonmonotone):
            raise StopRun(
                f"{monitor} is worse than one more than {self.recipe.stop_nonmonotone} epochs "
                f"before; the best was epoch {best}"
            )
        ended, stop = self.cluster.agree(bool(self.model.stop_training), self.interrupted())
        if ended:
            raise StopRun("a callback ended the training")
        if stop and progress.step < self.limits.steps:
            raise StopRun("interrupted")

    # Parts

    def _begin_averaging(self, losses: Sequence[float]) -> None:
        """Gives the losses so far to the optimizer, which may begin to average, as `NTASGD`."""
        optimizer = own_optimizer(self.model)
        if optimizer is not None and optimizer.epoch_end(losses):
            self.reporter.note("The validation loss no longer falls: averaging begins.")

    def _tell(self, event: str, *arguments) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)

    def save(self) -> None:
        """Saves a checkpoint.

        Raises:
            StopRun: if a weight is not a finite number; the former checkpoint stays.
        """
        begun = time.monotonic()
        self.progress.seconds = begun - self._started
        self.progress.callbacks = [callback.get_state() for callback in self._stateful()]
        checkpoint = Checkpoint.of(self.model, self.progress.to_meta(), self._means)
        if not checkpoint.finite:
            raise StopRun(
                f"a weight is not a finite number after step {self.progress.step}", failed=True
            )
        if self.cluster.chief:
            checkpoint.save(self.run.checkpoint_file)
        self._logs.flush()
        self._saved_at = (time.monotonic(), self.progress.step)
        self._saving_took = self._saved_at[0] - begun

    def _due(self) -> bool:
        seconds, step = self._saved_at
        if self.limits.checkpoint_steps is not None:
            return self.progress.step - step >= self.limits.checkpoint_steps
        wait = max(self.limits.checkpoint_seconds, SAVING_SHARE * self._saving_took)
        return time.monotonic() - seconds >= wait

    def _rate(self) -> float:
        return float(keras.ops.convert_to_tensor(self.model.optimizer.learning_rate).numpy())

    def _row(self, logs, rate: float) -> dict[str, float]:
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "learning_rate": float(f"{rate:.7g}"),  # as given, not as float32 has it
            "seconds": round(time.monotonic() - self._epoch_started, 3),
        }
        ordered = sorted(
            logs, key=lambda name: (name.startswith("val_"), not name.endswith("loss"))
        )
        return row | {name: float(logs[name]) for name in ordered}

    def _log_epoch(self, row) -> None:
        step = int(row["step"])
        train = {k: v for k, v in row.items() if not k.startswith("val_")}
        del train["step"]
        validation = {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}
        self._logs.write("train", step, {f"epoch_{k}": v for k, v in train.items()})
        if validation:
            self._logs.write("validation", step, validation)
            self._logs.write("validation", step, {f"epoch_{k}": v for k, v in validation.items()})
        self._logs.flush()

    def _stateful(self) -> list[Any]:
        return [callback for callback in self.callbacks if isinstance(callback, Stateful)]
