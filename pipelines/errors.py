"""Errors about data: each names the file, the place in it and the remedy."""

from keras_seq._reading import BrokenFileError


class DataError(BrokenFileError):
    """Data that cannot be used.

    Args:
        problem: what is wrong, in one sentence.
        path: the file or folder at fault, or `None` where there is none.
        place: where in the file, for example `"line 12"` or `"byte 4096"`.
        remedy: what the user can do about it.
    """


class MissingDataError(DataError, FileNotFoundError):
    """Files that were looked for and not found."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.problem
