"""Where a command writes: results to standard output, everything else to standard error."""

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer
from rich.console import Console

from keras_seq.cli.errors import UsageError
from keras_seq.cli.options import Debug, Json
from keras_seq.cli.quiet import load_keras

DONE, FAILED, WRONG_USAGE = 0, 1, 2


class Output:
    """The streams of one command.

    With `json_wanted`, standard output belongs to one JSON document: whatever else is written
    there, by Python or by a library in C++, goes to standard error.

    Args:
        json_wanted: whether `--json` was given.
    """

    def __init__(self, json_wanted: bool):
        self.json_wanted = json_wanted
        self.console = Console(stderr=json_wanted, highlight=False)
        self._result: TextIO = sys.stdout

    @contextlib.contextmanager
    def opened(self) -> Iterator["Output"]:
        """Keeps standard output clean within."""
        if not self.json_wanted:
            yield self
            return
        sys.stdout.flush()
        kept = _copy_of_stdout()
        former = sys.stdout
        if kept is not None:
            self._result = kept
        sys.stdout = sys.stderr
        try:
            yield self
        finally:
            sys.stdout = former
            if kept is not None:
                kept.flush()
                os.dup2(kept.fileno(), 1)
                kept.close()
                self._result = former

    def document(self, value: Any) -> None:
        """Writes the JSON document."""
        json.dump(_strict(value), self._result, indent=2, ensure_ascii=False)
        self._result.write("\n")
        self._result.flush()

    def line(self, text: str = "") -> None:
        """A line for people."""
        self.console.print(text, markup=False, soft_wrap=True)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turns a function of an `Output` and options into a command of the program.

    The command has the function's options and, after them, `--json` and `--debug`. Errors that a
    user can do something about become one line on standard error and the exit code: 2 for wrong
    usage, 1 for everything else. `--debug` shows where they come from.
    """
    _, *own = inspect.signature(function).parameters.values()  # but the output
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("json_wanted", Json), ("debug", Debug))
    ]

    @functools.wraps(function)
    def run(json_wanted: bool = False, debug: bool = False, **options) -> None:
        output = Output(json_wanted)
        code = DONE
        with output.opened():
            try:
                load_keras(debug)
                function(output, **options)
            except typer.Exit as stop:
                code = stop.exit_code
            except KeyboardInterrupt:
                code = fail(output, "interrupted.", FAILED, debug)
            except BrokenPipeError:  # the reader has gone, as `head` does
                code = FAILED
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            except UsageError as error:
                code = fail(output, str(error), WRONG_USAGE, debug)
            except Exception as error:
                code = fail(output, _one_line(error), FAILED, debug)
        raise typer.Exit(code)

    # What Typer reads the options from.
    run.__signature__ = inspect.Signature([*own, *shared])  # pyright: ignore
    run.__annotations__ = {option.name: option.annotation for option in (*own, *shared)}
    return run


def fail(output: Output, message: str, code: int, debug: bool) -> int:
    """Says what went wrong, on standard error and in the JSON document; returns the code."""
    if debug:
        traceback.print_exc()
    print(f"keras-seq: error: {message}", file=sys.stderr, flush=True)
    if output.json_wanted:
        output.document({"error": message})
    return code


def _one_line(error: Exception) -> str:
    """The message of an error; for one that is no message to users, its type as well."""
    text = " ".join(str(error).split())
    known = (ValueError, OSError, RuntimeError)
    if text and isinstance(error, known) and not type(error).__module__.startswith("tensorflow"):
        return text
    hint = "Run the command with --debug to see where it comes from."
    return f"{type(error).__name__}: {text[:300]} {hint}"


def _copy_of_stdout() -> TextIO | None:
    """A stream to the real standard output, whose descriptor 1 then leads to standard error."""
    try:
        if sys.stdout.fileno() != 1:
            return None
        # A file name that is no UTF-8 becomes escapes, which JSON knows too.
        kept = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
        sys.stderr.flush()
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # captured streams have no descriptor
        return None
    return kept


def _strict(value: Any) -> Any:
    """Numbers that JSON does not know become `null`."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    return value


def restore_interrupt() -> None:
    """Makes Ctrl-C raise `KeyboardInterrupt`, also where a parent process has it ignored."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.default_int_handler)
