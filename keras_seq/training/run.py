"""A training run on disk."""

import csv
from pathlib import Path
from typing import Any

import keras

from keras_seq import _files, pipelines
from keras_seq._reading import BrokenFileError, read_object, read_text, reading
from keras_seq.optimizers.strategy_safe import own_optimizer
from keras_seq.pipelines import Data, Vocabulary
from keras_seq.training import best_weights, building
from keras_seq.training.checkpoint import Checkpoint
from keras_seq.training.schedules import make_schedule
from keras_seq.training.weights_file import load_weights
from keras_seq.zoo import Recipe

NEW = {"state": "new", "reason": "", "epoch": 0, "step": 0}  # the status before the beginning
_STATUS = {  # what a part of the status must be; others are for people only
    "state": str,
    "reason": str,
    "epoch": int,
    "step": int,
    "seconds": (int, float),
    "data_dir": (str, type(None)),
    "max_steps": (int, type(None)),
    "strategy": dict,
    "start": dict,
    "versions": dict,
    "best_epoch": (int, type(None)),
    "best": (dict, type(None)),
}
_RESTORE = "Restore it from a copy of the run."


class Run:
    """A run folder: what was trained, how, and what came out.

    `keras_seq.training.train` returns one and `keras_seq.training.load_run` opens one. The folder
    holds

    * `recipe.json`: the recipe with all changes,
    * `status.json`: `running`, `finished` or `stopped`, why, and how far the run has come,
    * `best.weights.h5`: the weights of the best epoch,
    * `backup/checkpoint.npz`: everything that `resume=True` continues from,
    * `metrics.csv`: one row an epoch; `curves.png`: the same as a picture,
    * `logs/train`, `logs/validation`: for TensorBoard,
    * `vocabulary.txt`: the tokens, for texts,
    * `start.weights.h5`: the weights that it began with, where they are another run's.

    Args:
        folder: the run folder.

    Raises:
        FileNotFoundError: if there is no run in the folder.

    Example:

    ```python
    run = keras_seq.training.load_run("runs/trellisnet_python_docs-1")
    model = run.load_model()
    print(run.best_epoch, run.history[-1]["val_perplexity"])
    ```
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.recipe_file.is_file():
            raise FileNotFoundError(f"{self.folder}: no run here, it has no recipe.json.")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.json"

    @property
    def status_file(self) -> Path:
        return self.folder / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def weights_file(self) -> Path:
        """Weights of the best epoch."""
        return self.folder / "best.weights.h5"

    @property
    def former_weights_file(self) -> Path:
        """Weights of the best epoch before that one, while the checkpoint does not know of it."""
        return self.folder / "backup" / "best.weights.h5"

    @property
    def start_file(self) -> Path:
        """Weights that the run began with, where they are another run's."""
        return self.folder / "start.weights.h5"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "backup" / "checkpoint.npz"

    @property
    def vocabulary_file(self) -> Path:
        return self.folder / "vocabulary.txt"

    @property
    def logs_folder(self) -> Path:
        """What TensorBoard reads."""
        return self.folder / "logs"

    @property
    def recipe(self) -> Recipe:
        """The recipe as it was trained."""
        text = read_text(self.recipe_file, "a recipe", _RESTORE)
        with reading(self.recipe_file, "a recipe", _RESTORE):
            recipe = Recipe.from_json(text)
        read_object(self.recipe_file, "a recipe", _RESTORE)  # its checksum
        return recipe

    @property
    def status(self) -> dict[str, Any]:
        """How the run stands: `state`, `reason`, `epoch`, `step`, `data_dir` and more."""
        if not self.status_file.exists():
            return dict(NEW)
        remedy = "Restore it from a copy of the run, or remove it: training writes it anew."
        status = read_object(self.status_file, "the status of a run", remedy)
        for name, kind in _STATUS.items():
            value = status.get(name, ...)
            if value is not ... and (not isinstance(value, kind) or isinstance(value, bool)):
                raise BrokenFileError(
                    f"`{name}` must not be {value!r:.80}.", path=self.status_file, remedy=remedy
                )
        if not isinstance(status.get("start", {}).get("run", ""), str):
            raise BrokenFileError(
                "`start` names no run.", path=self.status_file, place="`start`", remedy=remedy
            )
        return status

    def update_status(self, **values: Any) -> None:
        """Changes entries of `status.json`."""
        _files.write_json(self.status_file, {**self.status, **values}, checked=True)

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`, one an epoch."""
        path = self.metrics_file
        if not path.exists():
            return []
        remedy = "Restore it from a copy, or remove it and resume the run: it is written anew."
        lines = csv.DictReader(read_text(path, "a table of metrics", remedy).splitlines())
        rows: list[dict[str, float]] = []
        with reading(path, "a table of metrics", remedy):
            for row in lines:
                place = f"line {lines.line_num}"
                try:
                    given = {name: value for name, value in row.items() if value not in (None, "")}
                    rows.append({name: float(value) for name, value in given.items()})
                    _ = rows[-1]["epoch"], rows[-1]["step"]
                except (TypeError, ValueError, KeyError) as error:
                    raise BrokenFileError(
                        f"this is no row of an epoch ({error}).",
                        path=path,
                        place=place,
                        remedy=remedy,
                    ) from error
        return rows

    @property
    def best_epoch(self) -> int | None:
        """The best epoch by the recipe's monitor, from 1; `None` before the first one has ended."""
        row = self._best_row()
        return None if row is None else int(row["epoch"])

    def _best_row(self):
        rows, monitor = self.history, self.recipe.monitor
        with reading(self.metrics_file, "a table of metrics", _RESTORE):
            return best_weights.best_row(rows, monitor)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the training data; `None` for data without one."""
        if not self.vocabulary_file.exists():
            return None
        return Vocabulary.load(self.vocabulary_file)

    @property
    def best_file(self) -> Path:
        """Where the weights of the best epoch are: of a killed run, perhaps in its backup."""
        here, former = self.weights_file, self.former_weights_file
        if not former.is_file():
            return here
        return best_weights.find(here, former, self._best_row()) or here

    def data(self, data_dir: str | Path | None = None, **changes: Any) -> Data:
        """The run's data.

        Args:
            data_dir: folder of the raw files; by default the one that the run was trained from.
                Whatever it holds is read with the run's vocabulary.
            **changes: arguments of `keras_seq.pipelines.load` to use instead of the recipe's.
        """
        if data_dir is None:
            data_dir = self.status.get("data_dir")
        name = changes.get("name", self.recipe.data.name)
        vocabulary = self.vocabulary
        if vocabulary is not None and "vocabulary" in pipelines.options(name):
            changes.setdefault("vocabulary", vocabulary)
        return building.load_data(self.recipe, data_dir, **changes)

    def load_model(self, weights: str = "best") -> keras.Model:
        """The trained model, compiled as its recipe says.

        Args:
            weights: `"best"` for those of the best epoch, `"last"` for those of the last
                checkpoint. Where the optimizer keeps averaged weights for evaluation, both are
                the averaged ones, as the rows of `metrics.csv` were measured with.

        Raises:
            FileNotFoundError: if the run has not yet saved such weights.
        """
        if weights not in ("best", "last"):
            raise ValueError(f"`weights` must be 'best' or 'last'. Received: weights={weights!r}.")
        source = self.best_file if weights == "best" else self.checkpoint_file
        if not source.exists():
            hint = "No epoch has ended yet." if weights == "best" else "It has just begun."
            raise FileNotFoundError(f"{source}: the run has no {weights} weights. {hint}")
        recipe = self.recipe
        model = building.build_model(recipe)
        if weights == "best":
            load_weights(model, source)
        else:
            checkpoint = Checkpoint.load(source)
            if checkpoint is not None:
                checkpoint.restore_weights(model)
                _take_evaluated(model, recipe, checkpoint)
        building.compile_model(model, recipe)
        return model


def _take_evaluated(model: keras.Model, recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Turns the weights of a checkpoint into those that its optimizer has evaluated."""
    schedule = make_schedule(recipe.schedule, recipe.optimizer.learning_rate, 1)
    building.compile_model(model, recipe, schedule.optimizer_rate())  # its variables, as trained
    optimizer = own_optimizer(model)
    if optimizer is None:
        return
    checkpoint.restore_optimizer(model)
    with optimizer.evaluation_weights(model):
        values = model.get_weights()
    model.set_weights(values)


def load_run(folder: str | Path) -> Run:
    """Opens a run folder.

    Args:
        folder: the folder that `train` wrote.

    Raises:
        FileNotFoundError: if there is no run in it.
    """
    return Run(folder)
