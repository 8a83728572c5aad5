"""Files of this process, gone when it ends."""

import atexit
import shutil
import tempfile
from pathlib import Path

_scratch: list[str] = []


def scratch_folder() -> Path:
    """A new folder that is removed when this process ends."""
    if not _scratch:
        _scratch.append(tempfile.mkdtemp(prefix="keras_seq_"))
        atexit.register(shutil.rmtree, _scratch[0], ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=_scratch[0]))
