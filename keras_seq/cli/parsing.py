"""How the program reads its arguments: a mistake in them is one line, as every other error is."""

import os
import re
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from keras_seq.cli.output import Output, fail

# Free texts. Every other option names something, which nothing at all is not.
TEXTS = ("prompt", "text", "note")
TOKENS = ("stop", "ban")  # lists of texts that are not empty


class Program(TyperGroup):
    """The program: what is wrong with its arguments goes where all errors go."""

    def main(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Runs a command and exits."""
        arguments = sys.argv[1:] if args is None else list(args)
        options["standalone_mode"] = False
        try:
            code = super().main(arguments, *others, **options)
        except Exception as error:
            # Click's class of these errors, or Typer's copy of it, depending on Typer's version.
            if not callable(getattr(error, "format_message", None)):
                raise
            output = Output("--json" in arguments)
            with output.opened():
                code = fail(output, _sentence(error), error.exit_code, "--debug" in arguments)
        sys.exit(code)


class Command(TyperCommand):
    """A command whose options are not empty, whose texts are text, and whose errors say what came.

    A shell gives an empty argument for a variable that is not set: `--run-dir "$RUN"` is no wish
    to train in this folder, nor `train "$MODEL"` one for the default model.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments of the command into the context."""
        given = self.make_parser(ctx).parse_args(list(args))[0]
        parameters: list[Any] = self.params
        for parameter in parameters:
            if parameter.name not in TEXTS and "" in _values(given.get(parameter.name)):
                message = "it is empty. Give a value, or leave it out."
                raise typer.BadParameter(message, ctx, parameter)
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            values = _values(given.get(error.param.name or "")) if error.param else []
            if values:
                error.message = f"{error.message.rstrip('.')}. Received: {', '.join(values)}."
            raise
        for parameter in parameters:
            name, value = parameter.name, ctx.params.get(parameter.name)
            try:
                if name in TEXTS and isinstance(value, str):
                    ctx.params[name] = as_text(value)
                elif name in TOKENS and value:
                    ctx.params[name] = [as_text(token) for token in value]
            except ValueError as error:
                raise typer.BadParameter(str(error), ctx, parameter) from None
        return rest


def stop_texts(given: list[str] | None, vocabulary: Any) -> list[str]:
    r"""The texts of --stop, in which a shell does not easily write line ends.

    `\n` and `\t` are a line end and a tabulator, `\\` a backslash, but for what is a token itself.
    """
    written = {r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
    return [
        text
        if vocabulary is not None and text in vocabulary
        else re.sub(r"\\[nt\\]", lambda found: written[found[0]], text)
        for text in given or []
    ]


def as_text(value: str) -> str:
    """The text of an argument, also in a locale that does not know UTF-8.

    Python hands over the bytes that are none of the locale's characters as lone surrogates.

    Raises:
        ValueError: for bytes that are not UTF-8.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(value)
    else:
        return value
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it must be UTF-8. Received: the byte {raw[error.start]:#04x} at place {error.start}. "
            "Convert it, for example with `iconv -t UTF-8`."
        ) from None


def _values(given: Any) -> list[str]:
    """The words that were given for an option or argument."""
    values = given if isinstance(given, list | tuple) else [given]
    return [value for value in values if isinstance(value, str)]


def _sentence(error: Any) -> str:
    text = " ".join(error.format_message().split())
    if text[-1] not in ".?)":
        text += "."
    context = getattr(error, "ctx", None)
    return f"{text} See `{context.command_path} --help`." if context is not None else text
