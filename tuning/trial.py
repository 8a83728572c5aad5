"""One trial: a recipe with some settings changed is trained, and what came out is kept."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_seq import _files, training
from keras_seq.models.size import count_parameters
from keras_seq.pipelines import MissingDataError
from keras_seq.training.run import Run
from keras_seq.tuning.objectives import Objective
from keras_seq.tuning.parameters import Parameter
from keras_seq.tuning.space import TUNER, apply, in_order
from keras_seq.zoo import Recipe


class TuningError(RuntimeError):
    """A search that can not go on, for example because all of its trials failed."""


class TrialFailed(RuntimeError):
    """A trial that is of no use: it diverged, its model is too large, its settings do not fit."""


class EndAfter(keras.callbacks.Callback):
    """Ends a training after so many epochs of the whole run; a schedule spans all of them."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


class CountParameters(keras.callbacks.Callback):
    """Notes the number of trainable parameters, and refuses a model that has too many."""

    def __init__(self, limit: int | None):
        super().__init__()
        self.limit = limit
        self.count: int | None = None

    def on_train_begin(self, logs=None):
        self.count = count_parameters(self.model)
        check_parameters(self.count, self.limit)


def check_parameters(count: int, limit: int | None) -> None:
    """Refuses a model beyond the parameter budget.

    Raises:
        TrialFailed: if there are more than `limit`.
    """
    if limit is not None and count > limit:
        raise TrialFailed(f"{count:,} parameters are more than the {limit:,} allowed")


@dataclasses.dataclass(frozen=True)
class Trials:
    """How the trials of a search are trained.

    Attributes:
        recipe: what is varied.
        space: setting → parameter.
        objective: what is made small or large.
        data_dir: folder of the raw files.
        max_steps: optimizer steps of a trial at most.
        max_parameters: trainable parameters of a model at most.
        strategy: `"mirrored"` to train each trial on several devices.
        devices: their names; `None` for all GPUs.
    """

    recipe: Recipe
    space: Mapping[str, Parameter]
    objective: Objective
    data_dir: str | Path | None = None
    max_steps: int | None = None
    max_parameters: int | None = None
    strategy: str | None = None
    devices: Sequence[str] | None = None

    def __post_init__(self):
        object.__setattr__(self, "space", in_order(self.space))

    def declare(self, hp: Any) -> None:
        """Makes the whole space, conditions included, known to KerasTuner."""
        for name, parameter in self.space.items():
            parameter.declare(hp, name)

    def recipe_of(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial's values; it selects the best epoch by the objective.

        Raises:
            TrialFailed: if a value does not fit.
        """
        try:
            return apply(self.recipe.replace(monitor=self.objective.name), self.space, values)
        except ValueError as error:
            raise TrialFailed(str(error)) from None

    def run(
        self,
        values: Mapping[str, Any],
        folder: Path,
        former: Path | None = None,
        epochs: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> dict[str, Any]:
        """Trains a trial; one that was begun before goes on from its last checkpoint.

        Args:
            values: name of a parameter → value.
            folder: its run folder.
            former: run folder of the trial that it continues (successive halving).
            epochs: epochs after which it ends, counted from the beginning of that trial.
            callbacks: Keras callbacks.

        Returns:
            `value` of the objective, `best_epoch`, `epochs`, `parameters`, `seconds`, and the
            figures of the best epoch as `metrics`.

        Raises:
            TrialFailed: if it is of no use.
            KeyboardInterrupt: if Ctrl-C or SIGTERM asked for a stop; it can go on later.
        """
        recipe = self.recipe_of(values)
        epochs = recipe.epochs if epochs is None else epochs
        if former is not None and not folder.is_dir():
            _copy(former, folder)
        known = (folder / "recipe.json").is_file()
        if not (known and self._done(Run(folder), epochs)):
            self._train(None if known else recipe, folder, epochs, callbacks)
        run = Run(folder)
        rows = run.history[:epochs]
        best = self.objective.best(rows) if rows else None
        if best is None:
            raise TrialFailed(f"no finite {self.objective.name}")
        return {
            "value": best[1],
            "best_epoch": best[0],
            "epochs": len(rows),
            "parameters": run.status.get("parameters"),
            "seconds": round(sum(row.get("seconds", 0.0) for row in rows), 1),
            "metrics": rows[best[0] - 1],
        }

    def _done(self, run: Run, epochs: int) -> bool:
        return len(run.history) >= epochs

    def _train(
        self,
        recipe: Recipe | None,
        folder: Path,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        counted = CountParameters(self.max_parameters)
        try:
            run = training.train(
                recipe,
                self.data_dir,
                folder,
                max_steps=self.max_steps,
                resume=True,
                callbacks=[counted, EndAfter(epochs), *callbacks],
                verbose=0,
                watch=False,  # the search's own HParams page has all trials
                strategy=self.strategy,
                devices=None if self.strategy is None else self.devices,
            )
        except training.TrainingError as error:
            raise TrialFailed(str(error)) from None
        except MissingDataError:
            raise  # no trial would have them
        except ValueError as error:
            raise TrialFailed(f"the settings do not fit: {error}") from error
        finally:
            if counted.count is not None and (folder / "recipe.json").is_file():
                Run(folder).update_status(parameters=counted.count)
        status = run.status
        if status["state"] == "stopped":
            raise KeyboardInterrupt(status["reason"])


def _copy(former: Path, folder: Path) -> None:
    """Copies a run, so that a copy is there as a whole or not at all."""
    left_out = shutil.ignore_patterns("logs", ".lock")
    with _files.atomic_folder(folder) as made:
        shutil.copytree(former, made, ignore=left_out, dirs_exist_ok=True)


def values_of(hyperparameters: Any) -> dict[str, Any]:
    """The values of a trial without KerasTuner's own."""
    values = dict(hyperparameters.values)
    return {name: value for name, value in values.items() if not name.startswith(TUNER)}


def save_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json` of a trial."""
    _files.write_json(folder / "result.json", dict(result), checked=True)
