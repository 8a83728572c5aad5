"""`search`: from a recipe to a better one."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_seq import _files
from keras_seq.training import building
from keras_seq.training.run_folder import RUNS, SEARCH
from keras_seq.tuning.chief import is_parallel, is_worker
from keras_seq.tuning.hparams import log_experiment
from keras_seq.tuning.hypermodel import keras_tuner_module
from keras_seq.tuning.objectives import objective as objective_of
from keras_seq.tuning.parameters import Parameter
from keras_seq.tuning.results import Results, load_results, read_search
from keras_seq.tuning.space import from_json, to_json
from keras_seq.tuning.spaces import space as space_of
from keras_seq.tuning.trial import Trials, TuningError
from keras_seq.tuning.tuners import make_oracle, make_tuner
from keras_seq.zoo import Recipe

TRIALS = 20


def search(
    recipe: Recipe | str | None = None,
    tuner: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    *,
    objective: str | None = None,
    space: Mapping[str, Parameter] | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    max_steps: int | None = None,
    max_parameters: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    strategy: str | None = None,
    devices: Sequence[str] | None = None,
    verbose: int = 1,
    console: Console | None = None,
) -> Results:
    """Searches for better settings of a recipe.

    Each trial is a run of its own, in `trial_N/run` of the search folder, trained by
    `keras_seq.training.train` with the recipe's seed. The first trial has the recipe's own
    settings. A trial whose loss is not a number, whose model has too many parameters, or whose
    settings do not fit counts as failed, and the search goes on.

    A search that was killed at any moment goes on with `resume=True`; a trial that was running
    then goes on from its last checkpoint.

    With KerasTuner's environment variables (`KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP`,
    `KERASTUNER_ORACLE_PORT`) the same call in several processes is one search, in one `run_dir`
    that all of them see.

    Args:
        recipe: a recipe or the name of one. May be left out when a search is resumed.
        tuner: `"random"`, the default; `"hyperband"`, which trains many trials for a few epochs and
            the best of them for more; or `"bayesian"`.
        trials: trials at most; 20 if not given, and for Hyperband those of one whole pass.
        epochs: epochs of a trial (of the longest, for Hyperband) in place of the recipe's.
        objective: `"nll"`, `"perplexity"`, `"bits"`, `"accuracy"`, `"nll_per_frame"`, `"mse"` or
            `"loss"`, on the validation split; by default what the recipe monitors.
        space: setting → parameter; `space(recipe)` if not given.
        data_dir: folder of the raw files of the data set, where it needs them.
        run_dir: the search folder; by default `runs/tune-<name>-<number>`.
        max_steps: optimizer steps of a trial at most.
        max_parameters: trainable parameters of a model at most.
        seed: seed of the values that are tried.
        resume: go on with the search in `run_dir`; where there is none yet, begin one.
        strategy: `"mirrored"` to train each trial on several devices.
        devices: their names; all GPUs if not given.
        verbose: 0 for nothing, 1 for a line a trial.
        console: a `rich` console to report on.

    Returns:
        The `Results`; they are also in the folder, as `results.csv`, `results.json`, `results.png`
        and `best_recipe.json`.

    Raises:
        ImportError: without KerasTuner.
        ValueError: for settings that do not fit.
        FileExistsError: if the folder holds a search and `resume` is not set.
        TuningError: if no trial was completed.

    Example:

    ```python
    results = keras_seq.tuning.search("pru_python_docs", trials=10, epochs=1, max_steps=100)
    print(results.best["value"], results.best["values"])
    ```
    """
    keras_tuner = keras_tuner_module()
    console = console or Console()
    folder = _folder(recipe, run_dir, resume)
    given = {
        "recipe": None if recipe is None else building.as_recipe(recipe),
        "space": space,
        "tuner": tuner,
        "trials": trials,
        "epochs": epochs,
        "objective": objective,
        "data_dir": None if data_dir is None else str(Path(data_dir).expanduser().resolve()),
        "max_steps": max_steps,
        "max_parameters": max_parameters,
        "seed": seed,
    }
    settings = _settings(folder, given, resume)
    work = Trials(
        settings["recipe"],
        settings["space"],
        objective_of(settings["objective"]),
        settings["data_dir"],
        settings["max_steps"],
        settings["max_parameters"],
        _check_strategy(strategy),
        devices,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if is_worker() else _files.lock(folder):
        if not resume:  # another process may have begun one meanwhile
            _refuse_known(folder)
        if not is_worker() and not is_parallel():
            for trial in folder.glob("trial_*"):
                _files.remove_unfinished(trial)
        oracle = make_oracle(
            settings["tuner"],
            work,
            settings["trials"],
            settings["recipe"].epochs,
            settings["seed"],
        )
        if not is_worker():
            _save(folder, settings)
        reporter = _Reporter(folder, work, console if verbose else None)
        searching = make_tuner(work, oracle, folder, reporter)
        if not is_worker() and not list(folder.glob("events.*")):
            log_experiment(folder, work)
        try:
            searching.search()
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None
        finally:
            results = load_results(folder)
            if not is_worker():
                results.write()
                results.draw()
    if results.best is None and not is_worker():
        reasons = {row["reason"] for row in results.rows if row["reason"]}
        raise TuningError(
            f"No trial of {folder} was completed. {'. '.join(sorted(reasons)[:3])}. "
            "Change the space, or allow more parameters."
        )
    return results


class _Reporter:
    """A line for each trial that has ended here, and fresh tables."""

    def __init__(self, folder: Path, work: Trials, console: Console | None):
        self.folder = folder
        self.work = work
        self.console = console

    def __call__(self, trial: Any) -> None:
        results = load_results(self.folder)
        if not is_parallel():
            results.write()
        if self.console is None:
            return
        (row,) = (row for row in results.rows if row["trial"] == trial.trial_id)
        said = ", ".join(
            f"{name.removeprefix('model.')}={value}"
            for name, value in row["values"].items()
            if value != self.work.space[name].default
        )
        if row["status"] == "completed":
            size = "" if row["parameters"] is None else f"{row['parameters']:,} parameters, "
            best = " (best so far)" if results.best is row else ""
            figures = f"{results.objective.metric} {row['value']:.4g}{best}, {size}"
            figures += f"{row['seconds']:.0f} s"
        else:
            figures = f"failed: {row['reason']}"
        line = f"trial {row['trial']}: {figures}; {said or 'the recipe itself'}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _folder(recipe: Recipe | str | None, run_dir: str | Path | None, resume: bool) -> Path:
    if run_dir is not None:
        return Path(run_dir).expanduser().absolute()
    if is_parallel():
        raise ValueError(
            "`run_dir` must be given for a search in several processes: a folder that all of them "
            "see. Received: run_dir=None."
        )
    name = building.name_of(recipe)
    if resume:
        found = [file.parent for file in RUNS.glob(f"tune-{name or '*'}-[0-9]*/{SEARCH}")]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime).absolute()
    if name is None:
        raise FileNotFoundError(f"There is no search to resume in {RUNS}. Give a recipe.")
    number = 1
    while (RUNS / f"tune-{name}-{number}").exists():
        number += 1
    return (RUNS / f"tune-{name}-{number}").absolute()


def _settings(folder: Path, given: dict[str, Any], resume: bool) -> dict[str, Any]:
    """What the search is: as it was begun, or as it is given."""
    if not resume:
        _refuse_known(folder)
    elif (folder / SEARCH).is_file():
        return _resumed(folder, given)
    if (folder / "recipe.json").is_file():
        raise FileExistsError(
            f"{folder} holds a run, and a search has a folder of its own. Choose another `run_dir` "
            "(--run-dir)."
        )
    recipe = given["recipe"]
    if recipe is None:
        raise FileNotFoundError(f"There is no search to resume in {folder}. Give a recipe.")
    if given["epochs"] is not None:
        recipe = recipe.replace(epochs=given["epochs"])
    for name in ("trials", "epochs", "max_steps", "max_parameters"):
        if given[name] is not None and given[name] < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={given[name]}.")
    trials = given["trials"] or (None if given["tuner"] == "hyperband" else TRIALS)
    return {
        **given,
        "tuner": given["tuner"] or "random",
        "recipe": recipe,
        "space": space_of(recipe) if given["space"] is None else given["space"],
        "objective": (given["objective"] or recipe.monitor).removeprefix("val_"),
        "trials": trials,
    }


def _refuse_known(folder: Path) -> None:
    if (folder / SEARCH).is_file() and not is_worker():
        raise FileExistsError(
            f"{folder} holds a search already. Continue it with `resume=True` (--resume), or "
            "choose another `run_dir`."
        )


def _resumed(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    saved = read_search(folder)
    recipe = _recipe_of(saved)
    settings = {**saved, "recipe": recipe, "space": from_json(saved["space"])}
    if given["recipe"] is not None and given["recipe"].name != recipe.name:
        raise ValueError(
            f"{folder} holds a search over {recipe.name}, not over {given['recipe'].name}."
        )
    for name in ("trials", "data_dir"):
        if given[name] is not None:
            settings[name] = given[name]
    objective = given["objective"] and given["objective"].removeprefix("val_")
    space = given["space"] and to_json(given["space"])
    for name, value in {**given, "objective": objective, "space": space}.items():
        if name not in ("recipe", "trials", "data_dir") and value not in (None, saved.get(name)):
            raise ValueError(
                f"{folder} is resumed as it was begun, with {name}={saved.get(name)!r}. "
                f"Received: {name}={value!r}. Leave it out, or begin another search."
            )
    return settings


def _recipe_of(saved: Mapping[str, Any]) -> Recipe:
    return Recipe.from_json(json.dumps(saved["recipe"]))


def _save(folder: Path, settings: dict[str, Any]) -> None:
    document = {
        **settings,
        "recipe": json.loads(settings["recipe"].to_json()),
        "space": to_json(settings["space"]),
    }
    _files.write_json(folder / SEARCH, document, checked=True)


def _check_strategy(strategy: str | None) -> str | None:
    if strategy not in (None, "mirrored"):
        raise ValueError(f"`strategy` must be 'mirrored'. Received: strategy={strategy!r}.")
    return strategy
