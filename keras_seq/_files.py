"""Files that are always whole: a reader, or a run that was killed, sees the old or the new one."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp"  # a part of the name of every file that is not in its place yet
CHECKSUM = "checksum"  # the entry of a JSON file that tells of changes in the others
_FORMER = "former"  # what a folder is called that is being replaced


@contextlib.contextmanager
def atomic(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """Gives the path of a new file to write; on leaving, it takes the place of `path`.

    The file is flushed to disk before it is renamed, so that a kill or a power cut at any moment
    leaves the former file or the new one, never a part. If the body raises, the former file stays.
    Each writer has a file of its own: of several at once, the last one's stays. A link is
    followed. Where `path` is a device or a pipe, as `/dev/stdout` is, it is written itself.

    Args:
        path: the file to replace.
        suffix: ending that the temporary name must have, for writers that look at it.

    Raises:
        OSError: if the file cannot be written; it names `path`.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with _about(path, path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "It is a folder, not a file", str(path))
            yield path
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = _beside(target, suffix)
    with _about(path, temporary):
        try:
            yield temporary
            if target.exists():
                with contextlib.suppress(OSError):  # the rights of another's file
                    shutil.copymode(target, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)  # noqa: PTH105 - one place for tests to interrupt
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _flush_folder(target.parent)


def _beside(target: Path, suffix: str = "") -> Path:
    """A name beside another one that no other writer has."""
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.name[:150]}.{own}{UNFINISHED}{suffix}")


@contextlib.contextmanager
def atomic_folder(folder: str | Path, replace: bool = False) -> Iterator[Path]:
    """Gives an empty folder to fill; on leaving, it takes the place of `folder`.

    A former one is moved aside before and is removed after that: killed at any moment, one of the
    two is there, if not under its name then where `set_aside` finds it. If the body raises, the
    former folder stays.

    Args:
        folder: the folder to make.
        replace: whether to replace one that exists.

    Raises:
        FileExistsError: if it exists, perhaps by another writer meanwhile, and not `replace`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    left = set_aside(folder.parent).get(folder.name)
    if left is not None:
        with contextlib.suppress(OSError):  # there is one again
            left.rename(folder)
    hidden = _beside(folder)
    made, former = hidden / "made", hidden / _FORMER
    try:
        made.mkdir(parents=True)
        yield made
        while made.exists():
            try:
                made.rename(folder)  # which refuses to replace a folder that holds anything
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not replace:
                    text = f"{folder} exists. Choose another name, or replace it."
                    raise FileExistsError(text) from error
                shutil.rmtree(former, ignore_errors=True)  # another writer was faster
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(former)
    finally:
        if former.exists() and not folder.exists():
            former.rename(folder)
        shutil.rmtree(hidden, ignore_errors=True)


def set_aside(parent: str | Path) -> dict[str, Path]:
    """Folders that were to be replaced by a writer that was killed, by the names they had.

    Only those whose names nothing has: `atomic_folder` moves the next one there.
    """
    parent = Path(parent)
    found = {
        former.parent.name[1:].rsplit(".", 2)[0]: former for former in parent.glob(f".*/{_FORMER}")
    }
    return {name: former for name, former in found.items() if not (parent / name).exists()}


@contextlib.contextmanager
def _about(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of writing name the file that was to be written: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:  # HDF5 puts all into the text
            text = str(error).replace(str(temporary), str(path))
            raise OSError(f"{path} cannot be written: {text}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _flush_folder(folder: Path) -> None:
    """Makes a rename durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: str | Path) -> None:
    """Removes what killed writers have left in a folder; call it where nobody else can write."""
    for left in Path(folder).glob(f".*{UNFINISHED}*"):
        if not re.match(rf"\..+\.\d+-[0-9a-f]{{8}}{re.escape(UNFINISHED)}", left.name):
            continue
        if not left.is_dir():
            left.unlink(missing_ok=True)
        elif not (left / _FORMER).exists():
            shutil.rmtree(left, ignore_errors=True)


def write_bytes(path: str | Path, blocks: bytes | Iterable[bytes | memoryview]) -> None:
    """Replaces a file.

    Args:
        path: the file.
        blocks: its content, in one piece or several.
    """
    with atomic(path) as temporary, temporary.open("wb") as file:
        for block in [blocks] if isinstance(blocks, bytes) else blocks:
            file.write(block)


def write_text(path: str | Path, text: str) -> None:
    """Replaces a text file."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, checked: bool = False) -> None:
    """Replaces a JSON file; numbers that are not finite become `null`.

    Args:
        path: the file.
        value: its content.
        checked: add a checksum to an object, by which `_reading.read_object` notices any change of
            its values.
    """
    value = plain(value)
    if checked:
        value = with_checksum(value)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object of JSON values with a checksum as its last entry, in place of a former one."""
    others = {name: item for name, item in value.items() if name != CHECKSUM}
    return {**others, CHECKSUM: checksum(others)}


def checksum(value: Mapping[str, Any]) -> str:
    """The SHA-256 of JSON values: of what they are, not of how they are written."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as strict JSON takes it: tuples as lists, NaN and infinity as `None`."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Keeps other processes out of a run folder. The lock goes with the process, however it ends.

    Raises:
        RuntimeError: if another process works on the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    with (Path(folder) / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"{folder}: another process is training here. Wait until it has ended, or choose "
                "another run folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
