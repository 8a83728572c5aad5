"""`train`: from a recipe to a run."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_seq.pipelines import Data
from keras_seq.training import building, files, starting
from keras_seq.training.checkpoint import Checkpoint
from keras_seq.training.interruption import Interruption
from keras_seq.training.outputs import draw_curves, write_metrics
from keras_seq.training.progress import Reporter
from keras_seq.training.reproducibility import order_operations
from keras_seq.training.run import Run
from keras_seq.training.schedules import make_schedule
from keras_seq.training.session import Limits, Session
from keras_seq.training.state import Progress, StopRun
from keras_seq.zoo import Recipe

RUNS = Path("runs")


class TrainingError(RuntimeError):
    """A run that had to be stopped, for example because its loss was not a number."""


def train(
    recipe: Recipe | str | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    *,
    start: Run | str | Path | None = None,
    data: Data | None = None,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int | None = None,
    console: Console | None = None,
) -> Run:
    """Trains the model of a recipe.

    Keras' `fit` does the work, an epoch at a time; all settings come from the recipe. Everything
    that is needed to continue is saved at the end of each epoch and every `checkpoint_seconds`
    within one. With `resume=True`, a run that was killed at any moment goes on from there and, on
    the same machine, ends with the weights that it would have had without the kill.

    Args:
        recipe: a recipe or the name of one. May be left out when a run folder is resumed.
        data_dir: folder of the raw files of the data set, where it needs them.
        run_dir: the run folder; by default `runs/<name>-<number>`, or, to resume, the newest of
            them.
        epochs: epochs in place of the recipe's.
        max_steps: optimizer steps after which the run ends, even within an epoch. A resumed run
            remembers its own.
        seed: seed of weights, dropout and data order, in place of the recipe's.
        resume: continue the run in the folder; where there is none yet, begin one.
        callbacks: Keras callbacks. They see one training from the first to the last epoch. Those
            with `get_state()` and `set_state(state)` are saved and resumed.
        verbose: 0 for nothing, 1 for a progress bar, 2 for one line an epoch, `"auto"` for 1 on a
            terminal and 2 elsewhere.
        start: another run, or its folder, whose best weights this one begins with, as a
            fine-tuning stage does. It must be of the same architecture; dropout, regularisers,
            optimizer and schedule may differ. Its vocabulary is taken too. The new run has copies
            of both, so it is resumed without `start`.
        data: the data, if it is loaded already; `data_dir` is then not read.
        checkpoint_seconds: time between two checkpoints within an epoch.
        checkpoint_steps: steps between two checkpoints, instead of a time.
        console: a `rich` console to report on.

    Returns:
        The finished `Run`; or the stopped one, if Ctrl-C or SIGTERM asked for it.

    Raises:
        ValueError: for settings that do not fit.
        FileExistsError: if the folder holds a run and `resume` is not set.
        TrainingError: if the loss was not a finite number. The run keeps the best weights, and its
            checkpoint the last good ones.

    Example:

    ```python
    run = keras_seq.training.train("trellisnet_python_docs", max_steps=10, epochs=1)
    print(run.history[-1]["val_bits"], run.folder)
    ```
    """
    console = console or Console()
    order_operations()
    folder, recipe, former = _choose(recipe, run_dir, epochs, seed, resume)
    resumed = Run(folder) if folder is not None and former else None
    source = starting.source(start, resumed)
    if source is not None and source.recipe.data.name == recipe.data.name:
        data_dir = data_dir or source.status.get("data_dir")
    data_dir = data_dir or former.get("data_dir")
    max_steps = max_steps or former.get("max_steps")
    with building.precision(recipe):
        keras.utils.set_random_seed(recipe.seed)
        if data is None:
            changes = starting.data_changes(recipe, source)
            data = building.load_data(recipe, data_dir, **changes)
        fitted = building.fit_vocabulary(recipe, data)
        limits = Limits(
            fitted.epochs, max_steps, data.steps_per_epoch, checkpoint_seconds, checkpoint_steps
        )
        items = _items_per_step(fitted, data)
        reporter = Reporter(fitted, console, verbose, fitted.epochs, limits.steps_per_epoch, items)
        if fitted != recipe:
            size = fitted.model["vocabulary_size"]
            reporter.note(f"The data have {size} tokens: model.vocabulary_size={size}.")
        model = building.build_model(fitted)
        if resumed is None and source is not None:
            starting.check(fitted, data, source)
        # Only now, when recipe and data have proved to fit, is there anything to keep.
        folder = folder or _new_folder(fitted.name)
        (folder / "backup").mkdir(parents=True, exist_ok=True)
        if resumed is None:
            starting.prepare(folder, data, source)
        files.write_text(folder / "recipe.json", fitted.to_json())
        run = Run(folder)
        with files.lock(run.folder):
            run.update_status(
                data=dict(data.info),
                data_dir=None if data_dir is None else str(Path(data_dir).expanduser().resolve()),
                max_steps=max_steps,
                versions={
                    "python": sys.version.split()[0],
                    "keras": keras.version(),
                    "tensorflow": _tensorflow_version(),
                },
            )
            if data.vocabulary is not None:
                data.vocabulary.save(run.vocabulary_file)
            _Training(run, fitted, data, limits, reporter).go(model, callbacks)
    return run


class _Training:
    """One process's work on a run, once recipe, data and model are there."""

    def __init__(self, run: Run, recipe: Recipe, data: Data, limits: Limits, reporter: Reporter):
        self.run = run
        self.recipe = recipe
        self.data = data
        self.limits = limits
        self.reporter = reporter

    def go(self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        checkpoint = Checkpoint.load(self.run.checkpoint_file)
        progress = Progress() if checkpoint is None else Progress.from_meta(checkpoint.meta)
        if progress.epoch >= self.limits.epochs or progress.step >= self.limits.steps:
            self.reporter.note(f"{self.run.folder}: finished already.")
            self._status(progress, "finished", "all epochs are done")
            return
        schedule = make_schedule(
            self.recipe.schedule, self.recipe.optimizer.learning_rate, self.limits.steps
        )
        if checkpoint is None and starting.load(model, self.run):
            origin = self.run.status.get("start", {}).get("run", self.run.start_file)
            self.reporter.note(f"The weights are the best ones of {origin}.")
        building.compile_model(model, self.recipe, schedule.optimizer_rate())
        with Interruption(self.reporter.note) as interrupted:
            session = Session(
                self.run,
                self.recipe,
                schedule,
                self.limits,
                progress,
                callbacks,
                self.reporter,
                interrupted,
            )
            session.set_model(model)
            if checkpoint is not None:
                checkpoint.restore(model)
                session.resumed = checkpoint
                write_metrics(self.run.metrics_file, progress.rows)
                place = f"epoch {progress.epoch + 1}, step {progress.step_in_epoch}"
                self.reporter.note(f"Resuming {self.run.folder} at {place}.")
            self._status(progress, "running", "")
            self._fit(model, session)

    def _fit(self, model: keras.Model, session: Session) -> None:
        progress = session.progress
        state, reason = "finished", "all epochs are done"
        try:
            with _one_training(model):
                session.begin()
                if not progress.step:
                    session.save()
                while progress.epoch < self.limits.epochs and progress.step < self.limits.steps:
                    model.fit(
                        self._epoch(progress),
                        initial_epoch=progress.epoch,
                        epochs=progress.epoch + 1,
                        validation_data=self.data.validation,
                        callbacks=[session],
                        shuffle=False,  # the pipelines shuffle
                        verbose=0,
                    )
            if progress.epoch < self.limits.epochs:
                reason = f"{progress.step} steps are done"
        except StopRun as stop:
            state, reason = "finished", stop.reason
            if stop.failed or stop.reason == "interrupted":
                state = "stopped"
            if stop.failed:
                self._keep_last_good(model)
                hint = (
                    "Lower the learning rate or `optimizer.global_clipnorm`, or try another seed."
                )
                text = f"The run was stopped: {stop.reason}. {hint}"
                raise TrainingError(text) from None
        except KeyboardInterrupt:
            state, reason = "stopped", "interrupted"
            raise
        except Exception as error:
            state, reason = "stopped", f"{type(error).__name__}: {error}"
            raise
        finally:
            self.reporter.close()
            session.end()
            self._status(progress, state, reason)
            self._draw(progress)

    def _epoch(self, progress: Progress):
        """The batches that are left of the present epoch and of the run."""
        done = progress.step_in_epoch
        dataset = self.data.epoch(progress.epoch, skip=done)
        left = self.limits.steps - progress.step
        return dataset.take(left) if left < self.limits.steps_per_epoch - done else dataset

    def _keep_last_good(self, model: keras.Model) -> None:
        checkpoint = Checkpoint.load(self.run.checkpoint_file)
        if checkpoint is not None:
            checkpoint.restore_weights(model)
            step = checkpoint.meta["step"]
            self.reporter.note(f"The last good weights, of step {step}, are kept.")

    def _status(self, progress: Progress, state: str, reason: str) -> None:
        best = self.run.best_epoch
        self.run.update_status(
            state=state,
            reason=reason,
            epoch=progress.epoch,
            step=progress.step,
            seconds=round(progress.seconds, 1),
            best_epoch=best,
            best=None if best is None else self.run.history[best - 1],
        )

    def _draw(self, progress: Progress) -> None:
        if not progress.rows:
            return
        reported = self.recipe.reported.metric
        metric = {"bits_per_character": "bits"}.get(reported, reported)
        if metric not in progress.rows[-1]:
            metric = self.recipe.monitor.removeprefix("val_")
        drawn = draw_curves(
            self.run.folder / "curves.png",
            progress.rows,
            metric,
            self.recipe.name,
            self.run.best_epoch,
        )
        if not drawn:
            self.reporter.note(
                'No curves.png: it needs matplotlib (pip install "keras-seq[plots]").'
            )


def _choose(
    recipe: Recipe | str | None,
    run_dir: str | Path | None,
    epochs: int | None,
    seed: int | None,
    resume: bool,
) -> tuple[Path | None, Recipe, dict[str, Any]]:
    """The run folder, if it is known yet; the recipe with its changes; the status to go on from."""
    name = recipe if isinstance(recipe, str) else getattr(recipe, "name", None)
    folder = None if run_dir is None else Path(run_dir)
    if resume and folder is None:
        folder = _newest(name)
    if folder is not None and (folder / "recipe.json").is_file():
        if not resume:
            raise FileExistsError(
                f"{folder} holds a run already. Continue it with `resume=True` (--resume), or "
                "choose another `run_dir`."
            )
        run = Run(folder)
        return folder, _resumed(run, recipe, epochs, seed), run.status
    if recipe is None:
        where = "" if folder is None else f" in {folder}"
        raise FileNotFoundError(f"There is no run to resume{where}. Give a recipe to begin one.")
    recipe = building.as_recipe(recipe)
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes["epochs"] = epochs
    if seed is not None:
        changes["seed"] = seed
    recipe = recipe.replace(**changes)
    if recipe.epochs < 1:
        raise ValueError(f"`epochs` must be positive. Received: epochs={recipe.epochs}.")
    return folder, recipe, {}


def _resumed(run: Run, given: Recipe | str | None, epochs: int | None, seed: int | None) -> Recipe:
    """The recipe of a run that goes on; only its length may change."""
    recipe = run.recipe
    name = given if isinstance(given, str) else getattr(given, "name", recipe.name)
    if name != recipe.name:
        raise ValueError(f"{run.folder} holds a run of {recipe.name}, not of {name}.")
    if isinstance(given, Recipe):
        expected = replace(given, epochs=recipe.epochs, seed=recipe.seed)
        model = dict(expected.model)
        if "vocabulary_size" in model:
            model["vocabulary_size"] = recipe.model["vocabulary_size"]
        if replace(expected, model=model).to_json() != recipe.to_json():
            raise ValueError(
                f"{run.folder} was begun with other settings. A run is resumed with the recipe "
                "that it began with: leave the recipe out, or choose another `run_dir`."
            )
    if seed is not None and seed != recipe.seed:
        raise ValueError(
            f"`seed` of {run.folder} is {recipe.seed}. Received: seed={seed}. "
            "Leave it out to resume."
        )
    return recipe if epochs is None else recipe.replace(epochs=epochs)


def _new_folder(name: str) -> Path:
    RUNS.mkdir(exist_ok=True)
    number = 1
    while True:
        folder = RUNS / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _newest(name: str | None) -> Path | None:
    runs = [file.parent for file in RUNS.glob(f"{name or '*'}-[0-9]*/recipe.json")]
    return max(runs, key=lambda run: run.stat().st_mtime, default=None)


@contextlib.contextmanager
def _one_training(model: keras.Model) -> Iterator[None]:
    """Lets `fit` be called once an epoch without the optimizer taking each time for the last."""
    optimizer = model.optimizer
    finalize = optimizer.finalize_variable_values
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        optimizer.finalize_variable_values = finalize


def _items_per_step(recipe: Recipe, data: Data) -> float:
    """Tokens that a training step scores on average; for other tasks, examples."""
    size = recipe.data.batch_size
    if recipe.task != "language_model":
        return size
    tokens = data.info.get("tokens", {})
    if isinstance(tokens, dict) and "train" in tokens:
        return min(tokens["train"] / data.steps_per_epoch, size * (recipe.data.length or 1e9))
    return size * (recipe.data.length or 1)


def _tensorflow_version() -> str:
    import tensorflow as tf

    return tf.__version__
