"""Polyphonic music: counts of the published files, buckets, batches."""

import numpy as np
import pytest
from scipy.io import savemat

from keras_seq import pipelines
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.music import bucket_bounds, read_music

PUBLISHED = {  # tunes, steps, shortest and longest, notes a training step, columns used
    "nottingham": (
        (694, 173, 170), (176_561, 45_513, 44_463), (40, 1793), 3.961, (10, 72)
    ),
    "jsb_chorales": ((229, 76, 77), (13_807, 4_602, 4_725), (25, 160), 3.898, (22, 75)),
    "muse_data": ((524, 135, 124), (245_202, 82_755, 64_339), (9, 4273), 3.493, (0, 84)),
    "piano_midi": ((87, 12, 25), (75_911, 8_540, 19_036), (65, 3857), 3.044, (0, 87)),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A data folder with a small Nottingham.mat: 7 / 2 / 3 tunes whose frames count upwards."""
    rng = np.random.default_rng(0)
    (tmp_path / "music").mkdir()

    def tunes(lengths):
        cells = np.empty((1, len(lengths)), object)
        for i, length in enumerate(lengths):
            cells[0, i] = (rng.random((length, 88)) < 0.1).astype(np.uint8)
            cells[0, i][:, :3] = cells[0, i][:, -9:] = 0  # room to move
        return cells

    arrays = {
        "traindata": tunes([5, 9, 6, 5, 9, 30, 6]),
        "validdata": tunes([7, 12]),
        "testdata": tunes([5, 30, 8]),
    }
    savemat(tmp_path / "music" / "Nottingham.mat", arrays)
    return tmp_path


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name, shared_data):
    tunes, steps, lengths, notes, columns = PUBLISHED[name]
    data = pipelines.load(name, shared_data, batch_size=16)
    assert tuple(data.info["examples"].values()) == tunes
    assert tuple(data.info["steps"].values()) == steps
    assert data.info["frames"]["test"] == steps[2] - tunes[2]
    rolls = read_music(data.info["source"])
    every = [roll for split in rolls.values() for roll in split]
    assert (min(map(len, every)), max(map(len, every))) == lengths
    assert round(float(np.concatenate(rolls["train"]).sum(1).mean()), 3) == notes
    used = np.flatnonzero(np.concatenate(every).any(axis=0))
    assert (used[0], used[-1]) == columns
    # Padding costs little with eight lengths.
    padded = sum(x.shape[0] * x.shape[1] for x, _, _ in data.test)
    assert len(data.info["bounds"]) == 8
    assert padded < 1.3 * data.info["frames"]["test"]


def rows_of(dataset):
    """(x, y) of every tune of a data set, without padding."""
    for x, y, weights in dataset.as_numpy_iterator():
        assert x.shape == y.shape == (*weights.shape, 88)
        for tune, following, weight in zip(x, y, weights, strict=True):
            length = int(weight.sum())
            assert (
                weight[:length].all() and not tune[length:].any() and not following[length:].any()
            )
            if length:
                yield tune[:length], following[:length]


@pytest.mark.parametrize(("batch_size", "buckets"), [(1, 0), (2, 0), (2, 3), (4, 8)])
def test_every_tune_is_there_once(batch_size, buckets, folder):
    data = pipelines.load("nottingham", folder, batch_size=batch_size, buckets=buckets)
    tunes = read_music(folder / "music" / "Nottingham.mat")
    for name in ("train", "validation", "test"):
        dataset = getattr(data, name)
        expected = {tune[:-1].tobytes() + tune[1:].tobytes() for tune in tunes[name]}
        found = [x.astype("uint8").tobytes() + y.astype("uint8").tobytes()
                 for x, y in rows_of(dataset)]  # fmt: skip
        assert len(found) == len(tunes[name]) and set(found) == expected
        assert int(dataset.cardinality()) == len(list(dataset))
        shapes = {x.shape for x, _, _ in dataset.as_numpy_iterator()}
        if buckets:
            assert {shape[1] for shape in shapes} <= set(data.info["bounds"])
            if name == "train":  # filled up, so that there is one shape for each bound
                assert {shape[0] for shape in shapes} == {batch_size}
    if batch_size == 1:
        assert all(weights.all() for _, _, weights in data.train.as_numpy_iterator())


def test_epochs_differ_and_are_reproducible(folder):
    def epoch(number, skip=0, seed=0):
        data = pipelines.load("nottingham", folder, batch_size=2, buckets=3, seed=seed)
        return [x for x, _, _ in data.epoch(number, skip).as_numpy_iterator()]

    def same(a, b):
        return all(x.shape == y.shape and (x == y).all() for x, y in zip(a, b, strict=True))

    first = epoch(0)
    assert same(first, epoch(0))
    assert same(first[2:], epoch(0, skip=2))
    assert not same(first, epoch(1))
    assert not same(first, epoch(0, seed=1))


@pytest.mark.parametrize(("batch_size", "buckets"), [(1, 0), (2, 3)])
def test_training_tunes_are_transposed(batch_size, buckets, folder):
    """As a whole, by up to `transpose` semitones, another number at each visit, none lost."""
    options = {"batch_size": batch_size, "buckets": buckets, "seed": 3}
    plain = pipelines.load("nottingham", folder, **options)
    moved = pipelines.load("nottingham", folder, transpose=4, **options)
    found = []
    for epoch in range(4):
        batches = zip(plain.epoch(epoch), moved.epoch(epoch), strict=True)
        for (x, y, weights), (x_moved, y_moved, weights_moved) in batches:
            np.testing.assert_array_equal(weights, weights_moved)
            for tune in range(x.shape[0]):
                if not weights[tune].numpy().any():
                    continue
                both = np.concatenate([x[tune], y[tune][-1:]])
                both_moved = np.concatenate([x_moved[tune], y_moved[tune][-1:]])
                fits = [s for s in range(-4, 5) if (np.roll(both, s, 1) == both_moved).all()]
                assert len(fits) == 1
                used = np.flatnonzero(both.any(0)) + fits[0]
                assert used[0] >= 0 and used[-1] < 88  # nothing went around
                np.testing.assert_array_equal(np.roll(y[tune], fits[0], 1), y_moved[tune])
                found.append(fits[0])
    assert len(set(found)) > 5
    for name in ("validation", "test"):
        for batch, same in zip(getattr(plain, name), getattr(moved, name), strict=True):
            np.testing.assert_array_equal(batch[0], same[0])


def test_transposition_is_reproducible(folder):
    def epoch(number, skip=0, seed=0):
        options = {"batch_size": 2, "buckets": 3, "seed": seed, "transpose": 6}
        data = pipelines.load("nottingham", folder, **options)
        return [x.sum(1) for x, _, _ in data.epoch(number, skip).as_numpy_iterator()]

    np.testing.assert_array_equal(epoch(1), epoch(1))
    np.testing.assert_array_equal(epoch(1)[2:], epoch(1, skip=2))
    with pytest.raises(ValueError, match="number of semitones from 0 to 87"):
        pipelines.load("nottingham", folder, batch_size=2, transpose=-1)


def test_bounds_waste_least():
    lengths = np.array([1, 2, 2, 10, 11, 11, 50])
    np.testing.assert_array_equal(bucket_bounds(lengths, 3), [2, 11, 50])
    np.testing.assert_array_equal(bucket_bounds(lengths, 1), [50])
    np.testing.assert_array_equal(bucket_bounds(lengths, 20), [1, 2, 10, 11, 50])


def test_what_does_not_fit_is_refused(folder, tmp_path):
    with pytest.raises(MissingDataError, match=r"no Piano_midi\.mat"):
        pipelines.load("piano_midi", folder, batch_size=2)
    with pytest.raises(ValueError, match="lengths of their own"):
        pipelines.load("nottingham", folder, batch_size=2, length=5)
    with pytest.raises(ValueError, match="`buckets` must not be negative"):
        pipelines.load("nottingham", folder, batch_size=2, buckets=-1)
    path = folder / "music" / "Nottingham.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="not a readable MATLAB file"):
        pipelines.load("nottingham", folder, batch_size=2)
    savemat(path, {"traindata": np.zeros((1, 2))})
    with pytest.raises(DataError, match="there is no validdata, testdata"):
        pipelines.load("nottingham", folder, batch_size=2)
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.full((4, 88), 2)
    savemat(path, {"traindata": cells, "validdata": cells, "testdata": cells})
    with pytest.raises(DataError, match="a tune must be an array"):
        pipelines.load("nottingham", folder, batch_size=2)
