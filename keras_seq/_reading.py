"""Reading files that may be broken: every error names the file, the place in it and the remedy."""

import contextlib
import json
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_seq._files import CHECKSUM, checksum

RATIO, SLACK = 100, 1 << 26  # what may be unpacked: so many times the file's own size, and 64 MiB
UNPACK = "If that is right, unpack it with another program and give the unpacked file."


class BrokenFileError(ValueError):
    """A file that cannot be used.

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


@contextlib.contextmanager
def reading(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Within, whatever a damaged file makes a reader raise becomes an error that names the file.

    Args:
        path: the file.
        what: what it should be, for example `"a checkpoint"`.
        remedy: what the user can do about it.

    Raises:
        BrokenFileError: in place of any other error but that of a file which is not there.
    """
    try:
        yield
    except (BrokenFileError, FileNotFoundError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if not isinstance(error, ValueError | OSError) or not text:
            text = f"{type(error).__name__}: {text}"
        raise BrokenFileError(
            f"it cannot be read as {what}: {text[:500].rstrip('.')}.", path=path, remedy=remedy
        ) from error


def regular(path: str | Path, remedy: str = "Give the path of a file on disk.") -> Path:
    """The path, once it has proved to be a file: nobody waits for a pipe or reads a device.

    Raises:
        FileNotFoundError: if there is nothing.
        BrokenFileError: for a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise BrokenFileError(f"no file has this name ({error}).", path=path) from error
    if stat.S_ISREG(mode):
        return path
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise BrokenFileError(f"it is {kind}, not a file.", path=path, remedy=remedy)


def read_text(path: str | Path, what: str, remedy: str) -> str:
    """The text of a file in UTF-8, without a byte order mark."""
    with reading(path, what, remedy):
        content = regular(path, remedy).read_bytes()
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BrokenFileError(
            f"the byte {content[error.start]:#04x} is not valid UTF-8 here.",
            path=path,
            place=f"byte {error.start}, line {content[: error.start].count(10) + 1}",
            remedy=remedy,
        ) from error


def read_object(path: str | Path, what: str, remedy: str) -> dict[str, Any]:
    """The object of a JSON file, whose values must be those that were written with its checksum.

    A file without a checksum, as earlier versions wrote them, is taken as it is.
    """
    text = read_text(path, what, remedy)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        problem = f"this is not JSON ({error.msg})." if text.strip() else "the file is empty."
        raise BrokenFileError(problem, path=path, place=place, remedy=remedy) from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        problem = f"this is not {what} ({type(error).__name__}: {error})."
        raise BrokenFileError(problem, path=path, remedy=remedy) from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise BrokenFileError(
            f"{what} must be a JSON object, not a {kind}.", path=path, remedy=remedy
        )
    expected = value.pop(CHECKSUM, None)
    if expected is not None and expected != checksum(value):
        raise BrokenFileError(
            "its values have changed since it was written.",
            path=path,
            remedy=f"{remedy} Where the change is meant, remove the entry `{CHECKSUM}`.",
        )
    return value


def check_unpacked(archive: zipfile.ZipFile, limit: int | None = None) -> None:
    """Refuses a zip file that would unpack to far more than it holds.

    Args:
        archive: the open file; nothing is unpacked yet.
        limit: most bytes of all its entries; by default a hundred times the stored ones and 64 MiB.

    Raises:
        ValueError: if there is more.
    """
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    most = SLACK + RATIO * sum(entry.compress_size for entry in entries)
    most = most if limit is None else min(most, limit)
    if unpacked > most:
        raise ValueError(
            f"it unpacks to {unpacked:,} bytes where at most {most:,} are expected; nothing was "
            "unpacked"
        )


class TooMuchUnpackedError(ValueError):
    """A packed file holds far more than its own size.

    Args:
        packed: its own size in bytes.
    """

    def __init__(self, packed: int):
        super().__init__(
            f"it unpacks to more than {most_unpacked(packed):,} bytes, {RATIO} times its own size "
            f"and {SLACK >> 20} MiB."
        )


def most_unpacked(packed: int) -> int:
    """The most bytes that a packed file of so many bytes is unpacked to."""
    return SLACK + RATIO * packed


def bounded(blocks: Iterable[bytes], packed: int) -> Iterator[bytes]:
    """Blocks as they are unpacked.

    Args:
        blocks: what comes out of a packed file.
        packed: its own size in bytes.

    Raises:
        TooMuchUnpackedError: once there is more than `most_unpacked`.
    """
    count, most = 0, most_unpacked(packed)
    for block in blocks:
        count += len(block)
        if count > most:
            raise TooMuchUnpackedError(packed)
        yield block


class BoundedFile:
    """A file that is unpacked while read, for readers that look for places in it.

    Args:
        file: the file to read and seek in.
        packed: its size in bytes before it is unpacked.

    Raises:
        TooMuchUnpackedError: by all methods beyond `most_unpacked`.
    """

    def __init__(self, file: Any, packed: int):
        self._file = file
        self._packed = packed

    def read(self, size: int) -> bytes:
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, place: int) -> int:
        self._check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, place: int) -> None:
        if place > most_unpacked(self._packed):
            raise TooMuchUnpackedError(self._packed)
