"""The command `export`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keras_seq.cli.errors import UsageError, check_choice
from keras_seq.cli.options import DataDir, RunOrModel, Weights
from keras_seq.cli.output import Output, command
from keras_seq.cli.parsing import stop_texts
from keras_seq.cli.sources import open_source

FORMATS = {"savedmodel": "tf_saved_model", "litert": "litert"}
KINDS = ("int8", "bfloat16")


@command
def export(
    output: Output,
    source: RunOrModel,
    to: Annotated[Path, typer.Option("--to", help="Folder for the versions of the model.")],
    weights: Weights = None,
    data_dir: DataDir = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model's folder.  [default: the recipe's name]")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Number of the version.  [default: one more than the highest]"),
    ] = None,
    weights_as: Annotated[
        str | None,
        typer.Option(
            "--weights-as",
            metavar="TYPE",
            help="Store matrices as int8 or bfloat16; the graph restores them.",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", help="`savedmodel`, or `litert` for a file for devices.")
    ] = "savedmodel",
    top_k: Annotated[int, typer.Option(min=1, help="Next tokens in an answer to a text.")] = 10,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a text that are read.  [default: 1024 at most]"),
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=1, help="Most tokens that one call generates.")
    ] = 1024,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="`generate` ends before this token or text. May be repeated."
        ),
    ] = None,
    ban: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="`generate` never takes it. May be repeated."),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Of `generate`; 1 for none, above 1 for less repetition.")
    ] = 1.0,
    beams: Annotated[
        int | None, typer.Option(min=1, help="Add `beam_search`, with so many beams.")
    ] = None,
) -> None:
    """Write a SavedModel, with the vocabulary in it, for TensorFlow Serving; or a LiteRT file."""
    check_choice("--format", format, [*FORMATS])
    check_choice("--weights-as", weights_as, KINDS)
    if format == "litert" and weights_as == "bfloat16":
        raise UsageError("--format litert takes --weights-as int8 or none. Received: bfloat16.")
    opened = open_source(source, weights, data_dir)
    from keras_seq import export as exporting

    path = exporting.export_model(
        opened.model,
        opened.vocabulary,
        to,
        recipe=opened.recipe,
        metrics=_validation_metrics(opened.run),
        weights_as=weights_as,
        format=FORMATS[format],
        name=name,
        version=version,
        top_k=top_k,
        max_tokens=max_tokens,
        max_length=max_length,
        stop=stop_texts(stop, opened.vocabulary),
        ban=ban or [],
        repetition_penalty=repetition_penalty,
        beams=beams,
    )
    description = json.loads((path / "assets.extra" / "keras_seq.json").read_text())
    signatures, left_out = [*description["signatures"]], description.get("left_out", {})
    if output.json_wanted:
        document = {"model": opened.recipe.name, "path": str(path), "signatures": signatures}
        output.document({**document, "left_out": left_out})
        return
    output.line(f"{path}: written, with {', '.join(signatures)}.")
    for key, reason in left_out.items():
        output.line(f"Left out: {key}, since {reason}.")
    if format == "savedmodel":
        output.line(f"Next: saved_model_cli show --dir {shlex.quote(str(path))} --all")


def _validation_metrics(run) -> dict[str, float] | None:
    """The validation figures of the best epoch of a run."""
    best = None if run is None else run.status.get("best")
    if not best:
        return None
    return {name: value for name, value in best.items() if name.startswith("val_")}
