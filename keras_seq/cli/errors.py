"""The error of a command that was called wrongly."""


class UsageError(Exception):
    """What was asked for makes no sense; exit code 2."""
