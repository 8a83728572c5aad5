"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "trellisnet_python_docs"  # where none is given; its weights ship with the package
SPLITS = ("test", "validation")

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output and nothing else."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and TensorFlow's messages.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the raw data files, where the data need any."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="For a MODEL, a weights file or the name of shipped weights; `best` or `last` for a "
        "RUN.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, for example --set units=64 or "
        "--set optimizer.learning_rate=1e-3. May be repeated.",
    ),
]
Variant = Annotated[str | None, typer.Option(help="A named variant of the recipe.")]
Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help=f"A model's name; {DEFAULT_MODEL} if there is none."),
]
RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN|MODEL", help="A run folder, a model's name, or a .weights.h5 or .keras file."
    ),
]
Split = Annotated[str, typer.Option(help="`test` or `validation`.")]
