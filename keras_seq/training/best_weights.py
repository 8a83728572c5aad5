"""The weights of the best epoch, which agree with the rows of a run after any kill.

They are written before the checkpoint that knows of their epoch. Until that one is written, and as
long as the epoch has not come to its end, those of the former best epoch lie in the backup: a run
that goes on from before has them again.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from keras_seq import _files
from keras_seq._reading import reading
from keras_seq.training.selection import as_losses, best_epoch, monitored
from keras_seq.training.weights_file import REMEDY, attribute, save_weights

STEP = "keras_seq_step"  # of the run, at which the weights were taken


def best_row(rows: Sequence[Mapping[str, float]], monitor: str) -> Mapping[str, float] | None:
    """The row of the best epoch; `None` before the first one has ended."""
    best = best_epoch(as_losses([monitored(row, monitor) for row in rows], monitor))
    return None if best is None else rows[best - 1]


def replace(model: keras.Model, path: Path, former: Path, step: int) -> None:
    """Writes the weights of a new best epoch and keeps the former ones.

    Args:
        model: the model.
        path: where the best weights are.
        former: where those before them stay.
        step: the step of the run.
    """
    if path.is_file():
        with _files.atomic(former, ".weights.h5") as temporary:
            try:
                temporary.hardlink_to(path)
            except OSError:  # a file system without links
                shutil.copyfile(path, temporary)
    save_weights(model, path, {STEP: step})


def find(path: Path, former: Path, row: Mapping[str, float] | None) -> Path | None:
    """The file that holds the weights of the best epoch.

    Args:
        path: where the best weights are.
        former: where those before them are.
        row: the row of the best epoch.

    Returns:
        One of the two; `None` if neither holds them. A file that an earlier version wrote does not
        say of which step it is: it is believed.
    """
    for file in (path, former):
        if file.is_file() and row is not None and _step(file) in (None, int(row["step"])):
            return file
    return None


def settle(path: Path, former: Path, row: Mapping[str, float] | None) -> bool:
    """Brings the best weights of a run that goes on into agreement with its rows.

    Returns:
        Whether they are there, if there is a best row.
    """
    found = find(path, former, row)
    if found == former:
        former.replace(path)
    elif found is None and path.is_file() and _step(path) is not None:
        path.unlink()
    former.unlink(missing_ok=True)
    return row is None or found is not None


def _step(path: Path) -> int | None:
    with reading(path, "a file of weights", REMEDY):
        return attribute(path, STEP)
