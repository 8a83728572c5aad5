"""Files that are always whole: a reader, or a run that was killed, sees the old or the new one."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """Gives the path of a new file to write; on leaving, it takes the place of `path`.

    The file is flushed to disk before it is renamed, so that a kill or a power cut at any moment
    leaves the former file or the new one, never a part. If the body raises, the former file stays.

    Args:
        path: the file to replace.
        suffix: ending that the temporary name must have, for writers that look at it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp{suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - one place for tests to interrupt
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Replaces a text file."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a JSON file; numbers that are not finite become `null`."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


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
            raise RuntimeError(f"{folder}: another process is training here.") from None
        except OSError:  # a file system without locks
            pass
        yield
