"""Which weights are the best ones of a run that was killed at any moment."""

import h5py
import pytest

from keras_seq.training import best_weights

ROW = {"epoch": 1.0, "step": 6.0}


@pytest.mark.parametrize(
    ("here", "former", "row", "kept"),
    [
        (6, None, ROW, 6),  # nothing happened
        (6, 6, ROW, 6),  # killed before the new ones were written
        (8, 6, ROW, 6),  # before the checkpoint knew of them, or they are of a part of an epoch
        (6, 3, ROW, 6),  # before the former ones were removed
        (8, None, None, None),  # of a part of the first epoch
        (8, 6, None, None),
        (8, 3, ROW, None),  # lost
        (None, 6, ROW, 6),
        (None, None, ROW, None),
        (-1, None, ROW, -1),  # an earlier version does not say
        (-1, None, None, -1),
    ],
)
def test_the_weights_of_the_best_row_are_kept(tmp_path, here, former, row, kept):
    """Steps by file; -1 for a file that has none."""
    paths = tmp_path / "best.weights.h5", tmp_path / "former.weights.h5"
    for path, step in zip(paths, (here, former), strict=True):
        if step is not None:
            with h5py.File(path, "w") as file:
                file.attrs["step"] = step
                if step > 0:
                    file.attrs[best_weights.STEP] = step
    found = best_weights.find(*paths, row)
    assert best_weights.settle(*paths, row) == (row is None or kept is not None)
    assert not paths[1].exists() and paths[0].exists() == (kept is not None)
    if kept is not None:
        with h5py.File(paths[0]) as file:
            assert file.attrs["step"] == kept
    assert (found is not None) == (kept is not None and row is not None)
