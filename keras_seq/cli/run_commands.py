"""Commands about runs: `train`, `evaluate`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq._tasks import METRICS, TASKS, metric_of
from keras_seq.cli.errors import UsageError, check_choice, usage
from keras_seq.cli.options import (
    DEFAULT_MODEL,
    SPLITS,
    DataDir,
    Model,
    RunOrModel,
    Settings,
    Split,
    Variant,
    Weights,
)
from keras_seq.cli.output import FAILED, Output, command, restore_interrupt
from keras_seq.cli.settings import apply_settings
from keras_seq.cli.sources import check_source, find_recipe

_SHOWN = [metric.key for metric in METRICS]


@command
def train(
    output: Output,
    model: Model = None,
    data_dir: DataDir = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder.  [default: runs/MODEL-NUMBER]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="End after so many optimizer steps.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, dropout and data order.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --run-dir, or else the newest one."),
    ] = False,
    settings: Settings = None,
    variant: Variant = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe in a JSON file, instead of MODEL.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the best weights and the vocabulary of another run, to fine-tune it.",
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Time between two checkpoints within an epoch.")
    ] = 120.0,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="`mirrored`: several devices of this machine; `multi_worker`: the machines of "
            "TF_CONFIG; `one`."
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help="How many devices, or their names: 2, or GPU:0,GPU:1.  [default: all GPUs]"
        ),
    ] = None,
    data_service: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let a tf.data service make the training batches, see `keras-seq data-service`.",
        ),
    ] = None,
    data_service_share: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:INDEX/COUNT",
            help="Read the same batches as COUNT - 1 other runs that are started with this name.",
        ),
    ] = None,
    watch: Annotated[
        bool | None,
        typer.Option(
            "--watch/--no-watch",
            help="Pictures, embeddings and HParams for TensorBoard.  "
            "[default: all, without pictures of a run of a few seconds]",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress; print the run folder alone.")
    ] = False,
) -> None:
    """Train a model as its recipe says; alone, a small one on Python's own documentation.

    Ctrl-C ends the run between two steps, saves it and exits with code 1; --resume continues it.
    With --strategy multi_worker, start the same command on every machine of TF_CONFIG.
    """
    if resume and (settings or variant or recipe or start):
        raise UsageError("--resume goes on with the run's own recipe: leave the other options out.")
    if model is not None and recipe is not None:
        raise UsageError("Give MODEL or --recipe, not both.")
    chosen = _chosen(model, variant, recipe, resume)
    if chosen is not None and not resume:
        chosen = apply_settings(chosen, settings or [])
    restore_interrupt()
    from keras_seq import training

    check_choice("--strategy", strategy, training.STRATEGIES)
    run = training.train(
        chosen.name if resume and chosen is not None else chosen,
        data_dir,
        run_dir,
        epochs,
        max_steps,
        seed,
        resume,
        verbose=0 if quiet else "auto",
        start=start,
        checkpoint_seconds=checkpoint_seconds,
        console=output.console,
        watch=watch,
        strategy=strategy,
        devices=devices,
        data_service=data_service,
        data_service_share=data_service_share,
    )
    status = run.status
    if output.json_wanted:
        output.document({"run": str(run.folder), "recipe": run.recipe.name, **status})
    if quiet and not output.json_wanted and not status["strategy"].get("index"):
        output.line(str(run.folder))
    if status["state"] != "finished":
        again = f"keras-seq train --run-dir {shlex.quote(str(run.folder))} --resume"
        print(f"keras-seq: {status['reason']}. Continue with: {again}", file=sys.stderr)
        raise typer.Exit(FAILED)
    if quiet or output.json_wanted:
        return
    if status["strategy"].get("index"):
        output.line("Done. The run is on the first of the machines.")
    else:
        _next_commands(output, run)


def _chosen(model: str | None, variant: str | None, recipe_file: Path | None, resume: bool):
    """The recipe that was asked for; `None` where the run folder has it."""
    if recipe_file is not None:
        from keras_seq._reading import read_text, reading
        from keras_seq.zoo import Recipe

        what = ("a recipe", "Give a file like the recipe.json of a run.")
        with usage():
            text = read_text(recipe_file, *what)
            with reading(recipe_file, *what):
                return Recipe.from_json(text)
    if resume and model is None:
        return None
    return find_recipe(DEFAULT_MODEL if model is None else model, variant)


def _next_commands(output: Output, run) -> None:
    folder, status = shlex.quote(str(run.folder)), run.status
    output.line(f"\n{run.folder}: {status['reason']}, {status['seconds']:.0f} s.")
    if status.get("best"):
        best = status["best"]
        figures = "  ".join(
            f"{name} {best[f'val_{name}']:.4g}" for name in _SHOWN if f"val_{name}" in best
        )
        output.line(f"Best epoch {status['best_epoch']}, validation: {figures}")
    output.line("Next:")
    output.line(f"  keras-seq evaluate {folder}")
    if run.vocabulary is not None:
        output.line(f"  keras-seq generate {folder} --prompt 'The ' --length 300")
    elif TASKS[run.recipe.task].makes == "tunes":
        output.line(f"  keras-seq generate {folder} --to tune.mid")
    output.line(f"  keras-seq export {folder} --to served")
    output.line(f"  tensorboard --logdir {folder}/logs")


@command
def evaluate(
    output: Output,
    source: RunOrModel,
    data_dir: DataDir = None,
    split: Split = "test",
    weights: Weights = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Rows read at once.  [default: the recipe's]"),
    ] = None,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="Dynamic evaluation: learn from the text while reading."),
    ] = False,
    dynamic_rate: Annotated[
        float | None, typer.Option(min=0, help="Its learning rate.  [default: 0.002]")
    ] = None,
    dynamic_decay: Annotated[
        float | None,
        typer.Option(min=0, help="Pull to the trained weights.  [default: 0.02]"),
    ] = None,
    dynamic_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a row between two updates.  [default: the recipe's length]"
        ),
    ] = None,
    dynamic_batches: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training batches for the gradient statistics.  [default: one epoch]"
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Add a neural cache of the last words.")
    ] = False,
    cache_size: Annotated[
        int | None, typer.Option(min=1, help="Words in it.  [default: 500]")
    ] = None,
    cache_theta: Annotated[
        float | None, typer.Option(min=0, help="Its sharpness.  [default: 0.66]")
    ] = None,
    cache_lambda: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Its share, below 1.  [default: 0.13]"),
    ] = None,
) -> None:
    """Evaluate a run, a model or a model file; every token counts exactly once.

    --dynamic lets a language model learn from the text as it reads, --cache gives it a memory of
    the last words. Stored weights are not changed.
    """
    check_choice("--split", split, SPLITS)
    if dynamic and cache:
        raise UsageError("Give --dynamic or --cache, not both.")
    # The defaults of both are those of the functions in `training`.
    adapting = _given(
        "--dynamic",
        dynamic,
        {
            "--dynamic-rate": ("learning_rate", dynamic_rate),
            "--dynamic-decay": ("decay", dynamic_decay),
            "--dynamic-steps": ("steps", dynamic_steps),
            "--dynamic-batches": ("statistics_batches", dynamic_batches),
        },
    )
    caching = _given(
        "--cache",
        cache,
        {
            "--cache-size": ("size", cache_size),
            "--cache-theta": ("sharpness", cache_theta),
            "--cache-lambda": ("share", cache_lambda),
        },
    )
    if caching.get("share", 0) >= 1:
        raise UsageError(f"--cache-lambda must be below 1. Received: {caching['share']}.")
    check_source(source)
    from keras_seq import training

    options = {"weights": weights, "batch_size": batch_size}
    if dynamic:
        figures = training.evaluate_dynamic(source, data_dir, split, **options, **adapting)
    elif cache:
        figures = training.evaluate_cached(source, data_dir, split, **options, **caching)
    else:
        figures = training.evaluate(source, data_dir, split, **options)
    if output.json_wanted:
        output.document(figures)
        return
    unit = "tokens" if "tokens" in figures else "examples"
    output.line(f"{figures['model']}, weights: {figures['weights']}")
    output.line(f"{figures['data']}, {split}: {figures[unit]:,} {unit}")
    for method in ("dynamic", "cache"):
        if method in figures:
            given = {name: v for name, v in figures[method].items() if v is not None}
            told = ", ".join(f"{name} {value}" for name, value in given.items())
            output.line(f"  {method:12}{told}")
    for name in _SHOWN:
        if name in figures:
            output.line(f"  {name:12}{figures[name]:.6g}")
    reported = figures["reported"]
    if reported["value"] is not None:
        told = metric_of(reported["metric"]).reported(reported["value"])
        output.line(f"  reported    {told} ({reported['source']})")


def _given(flag: str, wanted: bool, settings: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """The settings that were given, by the names of the function's arguments."""
    given = {option: pair for option, pair in settings.items() if pair[1] is not None}
    if given and not wanted:
        raise UsageError(f"{next(iter(given))} is a setting of {flag}: give that as well.")
    return dict(given.values())
