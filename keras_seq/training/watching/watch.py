"""The callback that shows a run in TensorBoard: paper's figure, pictures, embeddings, HParams."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_seq._tasks import TASKS, Task, metric_of
from keras_seq.training.run import Run
from keras_seq.training.selection import as_losses, best_epoch, monitored
from keras_seq.training.watching import hparams
from keras_seq.training.watching.events import Events
from keras_seq.zoo import Recipe

SHARE = 0.03  # of the training time that pictures may take before the end of the run
BRIEF = 10.0  # seconds: a run that took less has no pictures, unless they are asked for


def paper_line(recipe: Recipe) -> dict[str, float]:
    """The figure that the paper reports, under the name of the curve that it belongs to.

    Example:

    >>> paper_line(keras_seq.zoo.recipe("trellisnet_ptb_word"))
    {'perplexity': 56.97}
    """
    reported = recipe.reported
    if reported.value is None:
        return {}
    metric = metric_of(reported.metric)
    return {metric.key: metric.logged(reported.value)}


class Watch(keras.callbacks.Callback):
    """Writes, beside the curves, what else TensorBoard shows of a run.

    * `logs/paper`: the paper's figure, as a line in the chart of its metric;
    * `logs`: the recipe as HParams and as text, the figures of the best epoch;
    * `logs/model`: pictures of saliency and of attention weights, where matplotlib is installed,
      and the embeddings of the vocabulary for the projector.

    Nothing happens within an epoch. Pictures are drawn at the end of an epoch as long as that has
    taken less than 3% of the training time, and at the end of a run. What goes wrong with them is
    noted and ends no run.

    Args:
        run: the run.
        recipe: its recipe.
        data: its data: the first batch of the validation split is what pictures are made of.
        note: takes a line for people.
        always: draw pictures of a run of a few seconds, too.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        data: Any,
        note: Callable[[str], None],
        always: bool = False,
    ):
        super().__init__()
        self.run = run
        self.recipe = recipe
        self.data = data
        self.note = note
        self.always = always
        self._root = Events(run.logs_folder)
        self._paper = Events(run.logs_folder / "paper")
        self._pictures = Events(run.logs_folder / "model")
        self._line = paper_line(recipe)
        self._task = TASKS[recipe.task]
        self._rows: list[Mapping[str, float]] = []
        self._begun = time.monotonic()
        self._spent = self._last = 0.0
        self._drawn_at = -1
        self._works = True
        self._within = False  # an epoch

    def on_train_begin(self, logs=None):
        self._begun = time.monotonic()
        self._rows = list(self.run.history)
        if not any(self.run.logs_folder.glob("events.*")):
            names = [name.removeprefix("val_") for name in self._figures()]
            hparams.write_start(self._root, self.recipe, names)
            self._root.text("recipe", f"```json\n{self.recipe.to_json()}\n```")
        if not self._rows:
            self._write_line(0)

    def on_epoch_begin(self, epoch, logs=None):
        self._within = True

    def on_epoch_end(self, epoch, logs=None):
        row = logs or {}
        self._within = False
        self._rows.append(row)
        self._write_line(int(row["step"]))
        self._root.flush()
        elapsed = time.monotonic() - self._begun
        # The first picture is thought to take as long as one twentieth of a brief run.
        cost = self._last or BRIEF / 20
        if elapsed > BRIEF and self._spent + cost < SHARE * elapsed:
            self._draw(int(row["step"]))

    def on_train_end(self, logs=None):
        try:
            if self._within or not self._rows:  # stopped; it may go on
                return
            step = int(self._rows[-1]["step"])
            if self.always or time.monotonic() - self._begun > BRIEF:
                self._draw(step)
            self._write_embedding()
            best, good = self._best()
            hparams.write_end(self._root, best, good, step)
        finally:
            for events in (self._root, self._paper, self._pictures):
                events.close()

    def _figures(self) -> list[str]:
        """Names of the figures that the HParams page has: the monitored one and the paper's."""
        return list(dict.fromkeys([self.recipe.monitor, *(f"val_{name}" for name in self._line)]))

    def _best(self) -> tuple[dict[str, float], bool]:
        """The figures of the best epoch, and whether there is one."""
        monitor = self.recipe.monitor
        losses = as_losses([monitored(row, monitor) for row in self._rows], monitor)
        place = best_epoch(losses)
        if place is None:
            return {}, False
        row = self._rows[place - 1]
        found = {name.removeprefix("val_"): row.get(name, math.nan) for name in self._figures()}
        return {name: value for name, value in found.items() if math.isfinite(value)}, True

    def _write_line(self, step: int) -> None:
        for name, value in self._line.items():
            self._paper.scalars({name: value, f"epoch_{name}": value}, step)
        if self._line:
            self._paper.flush()

    def _draw(self, step: int) -> None:
        if not self._works or step == self._drawn_at:
            return
        begun = time.monotonic()
        try:
            from keras_seq.training.watching.maps import drawn_maps

            passage = _passage(next(iter(self.data.validation.take(1))), self._task)
            pictures = drawn_maps(self.model, passage, self.data.vocabulary)
            self._pictures.pictures(pictures, step)
            self._pictures.flush()
            self._drawn_at = step
        except ImportError:  # matplotlib is optional
            self._works = False
        except Exception as error:
            self._works = False
            self.note(f"No pictures for TensorBoard: {type(error).__name__}: {error}"[:300])
        self._last = time.monotonic() - begun
        self._spent += self._last

    def _write_embedding(self) -> None:
        if self.data.vocabulary is None or not self._task.of_text:
            return
        try:
            from keras_seq.training.watching.projector import write_embedding

            folder = self.run.logs_folder / "model"
            # The projector only looks where there are events.
            self._pictures.text("vocabulary", f"{self.data.vocabulary.size:,} tokens")
            write_embedding(folder, self.model, self.data.vocabulary.tokens)
        except Exception as error:
            self.note(f"No embeddings for TensorBoard: {type(error).__name__}: {error}"[:300])


def _passage(batch: Any, task: Task) -> Any:
    """The first sequence of a batch, (1, t, ...); of a text, without the context before it."""
    first = np.asarray(batch[0])[:1]
    if not task.of_text or len(batch) < 3:
        return first
    return first[:, np.asarray(batch[2])[0] > 0]
