"""Numbered folders that appear whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def publish(write: Callable[[Path], None], parent: Path, version: int | None = None) -> Path:
    """Makes the folder `parent/version`.

    `write` fills a hidden folder beside it, whose name no server takes for a version; a rename then
    publishes it. Of several processes that publish at once, each gets a number of its own.

    Args:
        write: called with a new, empty folder.
        parent: the folder of all versions; made if it is missing.
        version: the number; `None` for one more than the highest.

    Returns:
        The published folder.

    Raises:
        FileExistsError: if `version` is given and exists.
    """
    parent.mkdir(parents=True, exist_ok=True)
    if version is not None and (parent / str(version)).exists():
        raise FileExistsError(_taken(parent, version))
    hidden = Path(tempfile.mkdtemp(prefix=".export-", dir=parent))
    try:
        # A folder of its own, since `mkdtemp` lets nobody else read its one.
        made = hidden / "version"
        made.mkdir()
        write(made)
        while True:
            number = version if version is not None else 1 + max(versions(parent), default=0)
            target = parent / str(number)
            try:
                # Path.rename would do the same; an existing folder is never empty, so it refuses.
                os.rename(made, target)  # noqa: PTH104
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                if version is not None:
                    raise FileExistsError(_taken(parent, version)) from error
            else:
                return target
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def versions(parent: Path) -> list[int]:
    """The numbers of the versions in a folder, ascending."""
    return sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal())


def _taken(parent: Path, version: int) -> str:
    return (
        f"Version {version} exists already in {parent}. "
        "Give another `version`, or none to get the next one."
    )
