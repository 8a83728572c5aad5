"""Errors about data: each names the file, the place in it and the remedy."""

from pathlib import Path


class DataError(ValueError):
    """Data that cannot be used.

    Args:
        problem: what is wrong, in one sentence.
        path: the file or folder at fault, or `None` where there is none.
        place: where in the file, for example `"line 12"` or `"byte 4096"`.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        place: str | None = None,
        remedy: str | None = None,
    ):
        self.problem = problem
        self.path = None if path is None else str(path)
        self.place = place
        self.remedy = remedy
        where = ", ".join(part for part in (self.path, place) if part)
        text = f"{where}: {problem}" if where else problem
        super().__init__(f"{text} {remedy}" if remedy else text)


class MissingDataError(DataError, FileNotFoundError):
    """Files that were looked for and not found."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.problem
