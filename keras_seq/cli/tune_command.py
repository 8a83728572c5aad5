"""The command `tune`: a search for better settings of a recipe."""

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq.cli.errors import UsageError, check_choice, usage
from keras_seq.cli.options import DEFAULT_MODEL, DataDir, Model, Settings, Variant
from keras_seq.cli.output import FAILED, Output, command, restore_interrupt
from keras_seq.cli.settings import apply_settings
from keras_seq.cli.sources import find_recipe


@command
def tune(
    output: Output,
    model: Model = None,
    tuner: Annotated[
        str | None,
        typer.Option(help="`random`, `hyperband` or `bayesian`.  [default: random]"),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at most.  [default: 20; hyperband: one whole pass]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of a trial; hyperband: of the longest.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of a trial at most.")
    ] = None,
    max_parameters: Annotated[
        int | None, typer.Option(min=1, help="Trainable parameters of a model at most.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="`nll`, `perplexity`, `bits`, `accuracy`, `nll_per_frame` or `mse`, on the "
            "validation split.  [default: what the recipe monitors]"
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="A search space in a JSON file, instead of the family's.")
    ] = None,
    show_space: Annotated[
        bool, typer.Option("--show-space", help="Print the search space as JSON and end.")
    ] = False,
    data_dir: DataDir = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Search folder.  [default: runs/tune-MODEL-NUMBER]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the values that are tried.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search in --run-dir, or else the newest."),
    ] = False,
    settings: Settings = None,
    variant: Variant = None,
    strategy: Annotated[
        str | None, typer.Option(help="`mirrored`: train each trial on several devices.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Their names, separated by commas.  [default: all GPUs]")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress; print the search folder alone.")
    ] = False,
) -> None:
    """Search for better settings of a model's recipe, trial by trial.

    Ctrl-C ends the search and exits with code 1; --resume continues it. The best recipe is written
    to best_recipe.json, which `keras-seq train --recipe` takes.
    """
    if resume and (settings or variant or space):
        raise UsageError("--resume goes on with the search as it was begun: leave the others out.")
    recipe = None
    if not (resume and model is None):
        recipe = find_recipe(DEFAULT_MODEL if model is None else model, variant)
        recipe = apply_settings(recipe, settings or [])
    from keras_seq import tuning
    from keras_seq.tuning.tuners import NAMES

    check_choice("--tuner", tuner, NAMES)
    with usage(OSError, ValueError):
        if objective is not None:
            tuning.objective(objective)
        searched = None if space is None else tuning.load_space(space)
    if show_space:
        from keras_seq.tuning.space import to_json

        if recipe is None:
            raise UsageError("--show-space needs a MODEL.")
        output.document(to_json(tuning.space(recipe) if searched is None else searched))
        return
    restore_interrupt()
    try:
        results = tuning.search(
            recipe,
            tuner,
            trials,
            epochs,
            objective=objective,
            space=searched,
            data_dir=data_dir,
            run_dir=run_dir,
            max_steps=max_steps,
            max_parameters=max_parameters,
            seed=seed,
            resume=resume,
            strategy=strategy,
            devices=None if devices is None else devices.split(","),
            verbose=0 if quiet else 1,
            console=output.console,
        )
    except KeyboardInterrupt:
        where = "" if run_dir is None else f" --run-dir {shlex.quote(str(run_dir))}"
        again = f"keras-seq tune{where} --resume"
        print(f"keras-seq: interrupted. Continue with: {again}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    if output.json_wanted:
        output.document(_document(results))
    elif quiet:
        output.line(str(results.folder))
    else:
        _show(output, results)


def _document(results) -> dict[str, Any]:
    best = results.best
    return {
        "search": str(results.folder),
        "objective": results.objective.name,
        "direction": results.objective.direction,
        "completed": results.count("completed"),
        "failed": results.count("failed"),
        "best": best,
        "best_recipe": None if best is None else str(results.folder / "best_recipe.json"),
    }


def _show(output: Output, results) -> None:
    folder = shlex.quote(os.path.relpath(results.folder))
    if not output.console.is_terminal:
        output.console.width = 160
    output.line()
    output.console.print(results.table(number=6))
    failed = results.count("failed")
    output.line(f"{results.count('completed')} trials completed, {failed} failed.")
    if importlib.util.find_spec("matplotlib") is None and results.count("completed") > 1:
        output.line('No results.png: it needs matplotlib (pip install "keras-seq[plots]").')
    output.line("Next:")
    output.line(f"  keras-seq train --recipe {folder}/best_recipe.json")
    output.line(f"  tensorboard --logdir {folder}")
