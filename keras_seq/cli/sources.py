"""What commands read models from: runs, models of the zoo, model files."""

from pathlib import Path
from typing import Annotated

import typer

from keras_seq.cli.errors import UsageError

RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN|MODEL", help="A run folder, a model's name, or a .weights.h5 or .keras file."
    ),
]


def check_source(source: str) -> None:
    """A `UsageError` for what is neither a run nor a file nor a model."""
    from keras_seq.training import opening

    try:
        opening.check_source(source)
    except ValueError as error:
        raise UsageError(str(error)) from None


def open_source(source: str, weights: str | None, data_dir: Path | None):
    """The model of a source, opened; a `UsageError` where there is none."""
    check_source(source)
    from keras_seq import training

    return training.open_model(source, weights, data_dir)
