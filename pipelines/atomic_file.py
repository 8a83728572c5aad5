"""Files that are written whole or not at all, and files of this process."""

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

_scratch: list[str] = []


def atomic_write(path: Path, blocks: bytes | Iterable[bytes | memoryview]) -> None:
    """Writes a file so that readers see all of it or nothing.

    Args:
        path: the file; folders above it are made.
        blocks: its content, in one piece or several.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with unfinished.open("xb") as file:
            for block in [blocks] if isinstance(blocks, bytes) else blocks:
                file.write(block)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def scratch_folder() -> Path:
    """A new folder that is removed when this process ends."""
    if not _scratch:
        _scratch.append(tempfile.mkdtemp(prefix="keras_seq_"))
        atexit.register(shutil.rmtree, _scratch[0], ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_scratch[0]))
