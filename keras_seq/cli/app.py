"""The program: commands, exit codes, and what goes to which stream."""

import os
import sys
from typing import Annotated

import typer

from keras_seq._version import __version__
from keras_seq.cli import (
    analyze_command,
    export_command,
    generate_command,
    model_commands,
    run_commands,
    service_command,
    tune_command,
    weights_commands,
)

app = typer.Typer(
    name="keras-seq",
    help="Sequence models of four papers for Keras 3 and TensorFlow.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keras-seq {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


for _module in (
    model_commands,
    run_commands,
    export_command,
    tune_command,
    analyze_command,
    generate_command,
    service_command,
    weights_commands,
):
    _module.add_to(app)


def main() -> None:
    """Runs the program on the process's arguments and exits."""
    # TensorFlow reads this when it is loaded; --debug shows all it has to say.
    level = "0" if "--debug" in sys.argv else "3"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    app()
