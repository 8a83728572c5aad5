"""Beginning a run with the best weights of another one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_seq import _files, pipelines
from keras_seq.pipelines import Data
from keras_seq.pipelines.vocabulary_file import description_file
from keras_seq.training.run import NEW, Run
from keras_seq.training.weights_file import load_weights
from keras_seq.zoo import Recipe, registry

# Settings of a model that may differ from those of the weights' own run.
FREE = ("dropout", "regularization")
FREE_NAMES = ("auxiliary_weight", "carry_state", "dtype", "name", "seed")


def source(start: Run | str | Path | None, resumed: Run | None) -> Run | None:
    """The run whose weights and vocabulary a run begins with.

    Args:
        start: what was asked for.
        resumed: the run that goes on, if it is not a new one.

    Returns:
        That run. For a run that goes on, itself, since it has copies of both. `None` for a
        beginning with fresh weights.

    Raises:
        ValueError: if the run that goes on began with something else.
    """
    wanted = start if start is None or isinstance(start, Run) else Run(start)
    if resumed is None:
        return wanted
    begun = resumed.status.get("start")
    if wanted is not None and (begun is None or begun["run"] != _place(wanted)):
        former = "fresh weights" if begun is None else f"the weights of {begun['run']}"
        raise ValueError(
            f"{resumed.folder} began with {former}, not with those of {wanted.folder}. "
            "Leave `start` out to resume."
        )
    return None if begun is None else resumed


def data_changes(recipe: Recipe, run: Run | None) -> dict[str, Any]:
    """Arguments for the pipeline that make it read the data with another run's vocabulary."""
    vocabulary = None if run is None else run.vocabulary
    if vocabulary is None or "vocabulary" not in pipelines.options(recipe.data.name):
        return {}
    return {"vocabulary": vocabulary}


def check(recipe: Recipe, data: Data, run: Run) -> None:
    """Refuses weights of another architecture or vocabulary.

    Dropout rates, regularisers and the training may differ: a second stage changes those.

    Args:
        recipe: the recipe of the run that begins, with the vocabulary size of its data.
        data: its data.
        run: the run whose weights it takes.

    Raises:
        FileNotFoundError: if that run has no best weights yet.
        ValueError: if they do not fit.
    """
    if not run.best_file.is_file():
        raise FileNotFoundError(f"{run.weights_file}: the run has no best weights yet.")
    theirs = run.recipe
    if theirs.family != recipe.family:
        raise ValueError(
            f"`start` must be a run of the same architecture. {run.folder} holds a model of the "
            f"family {theirs.family}, {recipe.name} is one of {recipe.family}."
        )
    ours, others = _settings(recipe), _settings(theirs)
    different = [
        f"{name}={others.get(name)!r} there and {ours.get(name)!r} here"
        for name in sorted({*ours, *others})
        if ours.get(name) != others.get(name)
    ]
    if different:
        raise ValueError(
            f"`start` must be a run of the same architecture. {run.folder} has "
            f"{', '.join(different)}. Set them to the same values."
        )
    vocabulary = run.vocabulary
    if vocabulary is None or data.vocabulary is None:
        return
    if vocabulary.tokens != data.vocabulary.tokens:
        raise ValueError(
            f"The data must be read with the vocabulary of `start`, {run.vocabulary_file}: "
            f"{vocabulary.size} tokens. Received: other tokens, {data.vocabulary.size}."
        )


def prepare(folder: Path, data: Data, run: Run | None, facts: Mapping[str, Any]) -> None:
    """Writes what a new run begins with into its folder.

    It is called before there is a `recipe.json`, so a folder that holds a run holds all of it.

    Args:
        folder: the new run's folder.
        data: its data.
        run: the run whose best weights it takes; `None` to begin with fresh weights.
        facts: entries of its status.
    """
    if data.vocabulary is not None:
        data.vocabulary.save(folder / "vocabulary.txt")
    start_file = folder / "start.weights.h5"
    if run is None:
        start_file.unlink(missing_ok=True)  # by a beginning that was cut short
        _files.write_json(folder / "status.json", {**NEW, **facts}, checked=True)
        return
    with _files.atomic(start_file, ".weights.h5") as temporary:
        shutil.copyfile(run.best_file, temporary)
    origin = {"run": _place(run), "recipe": run.recipe.name, "epoch": run.best_epoch}
    _files.write_json(folder / "status.json", {**NEW, "start": origin, **facts}, checked=True)


def keep_vocabulary(run: Run, data: Data) -> None:
    """Refuses data that a run which goes on cannot have begun with.

    Raises:
        ValueError: if the tokens are others.
    """
    if data.vocabulary is None:
        return
    if not description_file(run.vocabulary_file).is_file():  # an earlier version was killed there
        data.vocabulary.save(run.vocabulary_file)
    known = run.vocabulary
    if known is None or known.tokens != data.vocabulary.tokens:
        raise ValueError(
            f"The data must have the tokens of {run.vocabulary_file}, with which the run began. "
            f"Received: other ones, {data.vocabulary.size}. Give the data of then (`data_dir`), or "
            "begin another run with `start`."
        )


def load(model: keras.Model, run: Run) -> bool:
    """Gives a fresh model the weights that its run begins with.

    Returns:
        Whether there are any.
    """
    if not run.start_file.is_file():
        return False
    load_weights(model, run.start_file)
    return True


def _place(run: Run) -> str:
    return str(run.folder.resolve())


def _settings(recipe: Recipe) -> Mapping[str, Any]:
    """The model's settings that its weights depend on, defaults included."""
    settings = registry.settings_of(recipe.name).values()
    defaults = {s.name: s.default for s in settings if s.default is not s.empty}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in {**defaults, **recipe.model}.items()
        if name not in FREE_NAMES and not name.endswith(FREE)
    }
