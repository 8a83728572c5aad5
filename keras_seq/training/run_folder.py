"""Which folder a run is in, and which recipe it has."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_seq import _files
from keras_seq.training import building
from keras_seq.training.run import Run
from keras_seq.zoo import Recipe

RUNS = Path("runs")
SEARCH = "search.json"  # what `keras_seq.tuning` keeps in the folder of a search


def choose(
    recipe: Recipe | str | None,
    run_dir: str | Path | None,
    epochs: int | None,
    seed: int | None,
    resume: bool,
) -> tuple[Path | None, Recipe, dict[str, Any]]:
    """The run folder, if it is known yet; the recipe with its changes; the status to go on from."""
    folder = find(recipe, run_dir) if resume else None if run_dir is None else Path(run_dir)
    if folder is not None and (folder / "recipe.json").is_file():
        if not resume:
            raise FileExistsError(_taken(folder))
        run = Run(folder)
        return folder, _resumed(run, recipe, epochs, seed), run.status
    if folder is not None:
        _refuse_search(folder)
    if recipe is None:
        where = "" if folder is None else f" in {folder}"
        raise FileNotFoundError(f"There is no run to resume{where}. Give a recipe to begin one.")
    recipe = building.as_recipe(recipe)
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes["epochs"] = epochs
    if seed is not None:
        changes["seed"] = seed
    return folder, recipe.replace(**changes), {}


def _resumed(run: Run, given: Recipe | str | None, epochs: int | None, seed: int | None) -> Recipe:
    """The recipe of a run that goes on; only its length may change."""
    recipe = run.recipe
    name = building.name_of(given)
    if name not in (None, recipe.name):
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


def _taken(folder: Path) -> str:
    return (
        f"{folder} holds a run already. Continue it with `resume=True` (--resume), or choose "
        "another `run_dir`."
    )


def _refuse_search(folder: Path) -> None:
    if (folder / SEARCH).is_file():
        raise FileExistsError(
            f"{folder} holds a search, and a run has a folder of its own. Choose another `run_dir` "
            "(--run-dir)."
        )


@contextlib.contextmanager
def held(folder: Path, new: bool) -> Iterator[None]:
    """Keeps other processes out of a run folder, which is made if it is a new run's.

    What the folder holds is looked at only within: before, another process may change it.

    Raises:
        RuntimeError: if another process works on the folder.
        FileExistsError: if a new run's folder holds one meanwhile.
    """
    if new:
        (folder / "backup").mkdir(parents=True, exist_ok=True)
    with _files.lock(folder):
        if new and (folder / "recipe.json").is_file():
            raise FileExistsError(_taken(folder))
        if new:
            _refuse_search(folder)
        for place in (folder, folder / "backup"):
            _files.remove_unfinished(place)
        yield


def new_folder(name: str) -> Path:
    """Makes the folder of a new run."""
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


def find(recipe: Recipe | str | None, run_dir: str | Path | None) -> Path | None:
    """The folder of the run that is to go on: the given one, or else the newest of the recipe."""
    if run_dir is not None:
        return Path(run_dir)
    name = building.name_of(recipe)
    runs = [file.parent for file in RUNS.glob(f"{name or '*'}-[0-9]*/recipe.json")]
    return max(runs, key=lambda run: run.stat().st_mtime, default=None)
