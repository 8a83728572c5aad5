"""The error of a command that was called wrongly."""

import contextlib
from collections.abc import Iterator, Sequence


class UsageError(Exception):
    """What was asked for makes no sense; exit code 2."""


@contextlib.contextmanager
def usage(*kinds: type[Exception], of: str = "") -> Iterator[None]:
    """Says of errors within that the command was called wrongly.

    Args:
        *kinds: which errors; those of values by default.
        of: what to say before them.
    """
    refused = kinds or (ValueError,)
    try:
        yield
    except refused as error:
        raise UsageError(f"{of}{error}") from None


def check_choice(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuses a value that is none of those that an option takes."""
    if value is not None and value not in choices:
        raise UsageError(f"{option} must be one of: {', '.join(choices)}. Received: {value}.")
