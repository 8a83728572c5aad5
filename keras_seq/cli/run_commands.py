"""Commands about runs: `train`, `evaluate`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq._tasks import METRICS, TASKS, metric_of
from keras_seq.cli.errors import UsageError
from keras_seq.cli.model_commands import find_recipe
from keras_seq.cli.options import (
    BatchSize,
    Cache,
    CacheLambda,
    CacheSize,
    CacheTheta,
    DataDir,
    DataService,
    DataServiceShare,
    Debug,
    Devices,
    Dynamic,
    DynamicBatches,
    DynamicDecay,
    DynamicRate,
    DynamicSteps,
    Json,
    Settings,
    Strategy,
    Weights,
)
from keras_seq.cli.output import FAILED, Output, command, restore_interrupt
from keras_seq.cli.settings import apply_settings
from keras_seq.cli.sources import RunOrModel, check_source

DEFAULT_MODEL = "trellisnet_python_docs"
_SHOWN = [metric.key for metric in METRICS]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help=f"A model's name; {DEFAULT_MODEL} if there is none."
        ),
    ] = None,
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
    variant: Annotated[str | None, typer.Option(help="A named variant of the recipe.")] = None,
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
    strategy: Strategy = None,
    devices: Devices = None,
    data_service: DataService = None,
    data_service_share: DataServiceShare = None,
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
    json_wanted: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model as its recipe says; alone, a small one on Python's own documentation.

    Ctrl-C ends the run between two steps, saves it and exits with code 1; --resume continues it.
    With --strategy multi_worker, start the same command on every machine of TF_CONFIG.
    """
    command(_train)(
        json_wanted,
        debug,
        model=model,
        data_dir=data_dir,
        run_dir=run_dir,
        epochs=epochs,
        max_steps=max_steps,
        seed=seed,
        resume=resume,
        settings=settings or [],
        variant=variant,
        recipe_file=recipe,
        start=start,
        checkpoint_seconds=checkpoint_seconds,
        strategy=strategy,
        devices=devices,
        data_service=data_service,
        data_service_share=data_service_share,
        watch=watch,
        quiet=quiet,
    )


def _train(
    output: Output,
    model: str | None,
    run_dir: Path | None,
    resume: bool,
    settings: list[str],
    variant: str | None,
    recipe_file: Path | None,
    start: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    if resume and (settings or variant or recipe_file or start):
        raise UsageError("--resume goes on with the run's own recipe: leave the other options out.")
    if model is not None and recipe_file is not None:
        raise UsageError("Give MODEL or --recipe, not both.")
    recipe = _chosen(model, variant, recipe_file, resume)
    if recipe is not None and not resume:
        recipe = apply_settings(recipe, settings)
    restore_interrupt()
    from keras_seq import training

    if options["strategy"] not in (None, *training.STRATEGIES):
        raise UsageError(
            f"--strategy must be one of: {', '.join(training.STRATEGIES)}. "
            f"Received: {options['strategy']}."
        )
    name = None if recipe is None else recipe.name
    run = training.train(
        name if resume else recipe,
        run_dir=run_dir,
        resume=resume,
        start=start,
        verbose=0 if quiet else "auto",
        console=output.console,
        **options,
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
        try:
            text = read_text(recipe_file, *what)
            with reading(recipe_file, *what):
                return Recipe.from_json(text)
        except ValueError as error:
            raise UsageError(str(error)) from None
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


def evaluate(
    source: RunOrModel,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="`test` or `validation`.")] = "test",
    weights: Weights = None,
    batch_size: BatchSize = None,
    dynamic: Dynamic = False,
    dynamic_rate: DynamicRate = None,
    dynamic_decay: DynamicDecay = None,
    dynamic_steps: DynamicSteps = None,
    dynamic_batches: DynamicBatches = None,
    cache: Cache = False,
    cache_size: CacheSize = None,
    cache_theta: CacheTheta = None,
    cache_lambda: CacheLambda = None,
    json_wanted: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run, a model or a model file; every token counts exactly once.

    --dynamic lets a language model learn from the text as it reads, --cache gives it a memory of
    the last words. Stored weights are not changed.
    """
    command(_evaluate)(
        json_wanted,
        debug,
        source=source,
        data_dir=data_dir,
        split=split,
        weights=weights,
        batch_size=batch_size,
        dynamic=dynamic,
        cache=cache,
        dynamic_settings={
            "--dynamic-rate": ("learning_rate", dynamic_rate),
            "--dynamic-decay": ("decay", dynamic_decay),
            "--dynamic-steps": ("steps", dynamic_steps),
            "--dynamic-batches": ("statistics_batches", dynamic_batches),
        },
        cache_settings={
            "--cache-size": ("size", cache_size),
            "--cache-theta": ("sharpness", cache_theta),
            "--cache-lambda": ("share", cache_lambda),
        },
    )


def _evaluate(
    output: Output,
    source: str,
    data_dir: Path | None,
    split: str,
    dynamic: bool,
    cache: bool,
    dynamic_settings: dict[str, tuple[str, Any]],
    cache_settings: dict[str, tuple[str, Any]],
    **options: Any,
) -> None:
    if split not in ("test", "validation"):
        raise UsageError(f"--split must be test or validation. Received: {split}.")
    if dynamic and cache:
        raise UsageError("Give --dynamic or --cache, not both.")
    adapting = _given("--dynamic", dynamic, dynamic_settings)
    caching = _given("--cache", cache, cache_settings)
    if caching.get("share", 0) >= 1:
        raise UsageError(f"--cache-lambda must be below 1. Received: {caching['share']}.")
    check_source(source)
    from keras_seq import training

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
