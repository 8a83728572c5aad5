"""The program: commands, exit codes, and what goes to which stream."""

import codecs
import io
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
from keras_seq.cli.output import WRONG_USAGE
from keras_seq.cli.parsing import Command, Program

app = typer.Typer(
    name="keras-seq",
    cls=Program,
    help="Sequence models of four papers for Keras 3 and TensorFlow.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keras-seq {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(WRONG_USAGE)


for _name, _function in {
    "list": model_commands.list_models,
    "describe": model_commands.describe,
    "convert": model_commands.convert,
    "train": run_commands.train,
    "evaluate": run_commands.evaluate,
    "export": export_command.export,
    "tune": tune_command.tune,
    "analyze": analyze_command.analyze,
    "generate": generate_command.generate,
    "data-service": service_command.data_service,
    "weights": weights_commands.weights,
}.items():
    app.command(_name, cls=Command)(_function)


def main() -> None:
    """Runs the program on the process's arguments and exits."""
    # TensorFlow reads this when it is loaded; --debug shows all it has to say.
    level = "0" if "--debug" in sys.argv else "3"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    _print_any_text()
    app()


def _print_any_text() -> None:
    """A text or a file name that the locale's encoding does not have is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if codecs.lookup(stream.encoding).name == "ascii":
                stream.reconfigure(encoding="utf-8")
            if stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
