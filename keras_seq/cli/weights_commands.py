"""The command `weights`: what ships with the package, and packing more."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from keras_seq._tasks import FIGURES
from keras_seq.cli.errors import UsageError
from keras_seq.cli.options import DataDir
from keras_seq.cli.output import Output, command


@command
def weights(
    output: Output,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder whose weights to pack.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the packed weights, for example that of the data.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to pack into.  [default: the package's own]")
    ] = None,
    data_dir: DataDir = None,
    force: Annotated[bool, typer.Option("--force", help="Replace weights of this name.")] = False,
    note: Annotated[str, typer.Option(help="A sentence for the model card.")] = "",
) -> None:
    """List the trained weights that ship with the package; with RUN, pack those of a run.

    Packed weights are in half precision. They are evaluated as packed, and a model card says on
    which data, with which command and to which figures they were trained.
    """
    if run is None:
        options = {"name": name, "to": to, "data-dir": data_dir, "force": force, "note": note}
        given = next((option for option, value in options.items() if value), None)
        if given is not None:
            raise UsageError(f"--{given} needs a RUN to pack.")
        _list(output)
        return
    if name is None:
        raise UsageError("Give the packed weights a --name, for example that of the data.")
    if not (run / "recipe.json").is_file():
        raise UsageError(f"{run} is no run folder.")
    from keras_seq import training

    packed = training.pack_weights(run, name, to, data_dir=data_dir, force=force, note=note)
    if output.json_wanted:
        output.document(packed.manifest | {"folder": str(packed.folder)})
        return
    output.line(packed.card)
    size = sum(file.stat().st_size for file in packed.folder.iterdir())
    output.line(f"{packed.folder}: {size / 1e6:.2f} MB.")


def _list(output: Output) -> None:
    from keras_seq import zoo

    sets = zoo.weights()
    if output.json_wanted:
        output.document([packed.manifest for packed in sets])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "weights", "parameters", "test"):
        table.add_column(title, justify="right" if title == "parameters" else "left", no_wrap=True)
    for packed in sets:
        test = packed.figures.get("test", {})
        figures = [
            f"{metric.key.replace('_', ' ')} {test[metric.key]:.4g}"
            for metric in FIGURES
            if metric.key in test
        ]
        parameters = f"{packed.manifest['parameters']:,}"
        table.add_row(packed.model, packed.name, parameters, ", ".join(figures))
    if not output.console.is_terminal:
        output.console.width = 160
    output.console.print(table)
