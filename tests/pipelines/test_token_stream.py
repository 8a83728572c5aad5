"""Windows of token streams: contiguity, coverage, cardinality, determinism."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.pipelines import DataError
from keras_seq.pipelines.token_stream import (
    eval_dataset,
    random_window_count,
    random_window_lengths,
    train_source,
)


def batches(dataset):
    listed = [tuple(t.numpy() for t in batch) for batch in dataset]
    assert len(listed) == int(dataset.cardinality())
    return listed


@pytest.mark.parametrize("count", [97, 100, 101])
@pytest.mark.parametrize("history", [0, 3])
@pytest.mark.parametrize("random_lengths", [False, True])
def test_lanes_are_contiguous(count, history, random_lengths):
    ids = np.arange(count * 4, dtype=np.uint16)
    source = train_source(
        ids, batch_size=4, length=9, history=history, random_lengths=random_lengths
    )
    seen = []
    for x, y in batches(source.epoch(2)):
        assert x.dtype == y.dtype == np.int32
        assert np.array_equal(x + 1, y)
        assert x.shape[0] == 4
        if not random_lengths:
            assert x.shape == (4, 9 + history)
        seen.append(x)
    lanes = np.concatenate([seen[0][:, :history], *(x[:, history:] for x in seen)], axis=1)
    assert np.array_equal(lanes, np.arange(4)[:, None] * count + np.arange(lanes.shape[1]))
    assert lanes.shape[1] > count - 1 - (1 if random_lengths else 9)
    for before, after in zip(seen, seen[1:], strict=False):  # context is the end of the last window
        assert np.array_equal(after[:, :history], before[:, before.shape[1] - history :])


@pytest.mark.parametrize("count", [1, 7, 30, 31, 100])
@pytest.mark.parametrize("batch_size, length", [(1, 5), (4, 5), (7, 3), (3, 200)])
@pytest.mark.parametrize("history", [0, 4])
def test_every_token_is_scored_once(count, batch_size, length, history):
    ids = np.arange(100, 100 + count, dtype=np.uint32)
    scored = []
    for x, y, weight in batches(
        eval_dataset(ids, batch_size=batch_size, length=length, history=history, context_id=7)
    ):
        assert x.shape == y.shape == weight.shape == (batch_size, history + length)
        assert weight.dtype == np.float32
        assert not weight[:, :history].any()
        on = weight == 1
        scored += y[on].tolist()
        assert np.array_equal(x[on], np.where(y[on] == 100, 7, y[on] - 1))
        # Context steps hold the text before the scored ones, or the context id.
        first = weight[:, history:].argmax(1) + history
        for row in np.flatnonzero(on.any(1)):
            start = y[row, first[row]]
            past = start - 1 - np.arange(1, history + 1)[::-1]
            assert np.array_equal(x[row, :history], np.where(past < 100, 7, past))
    assert sorted(scored) == ids.tolist()


def test_eval_windows_continue_each_other():
    ids = np.arange(60, dtype=np.uint16)
    xs = [x for x, _, _ in batches(eval_dataset(ids, batch_size=3, length=8))]
    lanes = np.concatenate(xs, axis=1)[:, :20]
    assert np.array_equal(lanes[1:], np.arange(20)[None] + np.array([[19], [39]]))


@pytest.mark.parametrize("length, multiple", [(70, 1), (70, 10), (10, 1), (5, 1)])
def test_random_lengths_are_those_of_awd_lstm(length, multiple):
    usable = 200_000
    units = usable // multiple
    steps = random_window_count(units * multiple, length, multiple)
    lengths = random_window_lengths(tf.constant(0), 3, steps, length, units, multiple).numpy()
    assert lengths.sum() == units * multiple
    assert lengths.min() >= 5
    assert not (lengths % multiple).any()
    if length == 70:
        near, half = lengths[lengths > 52], lengths[lengths <= 52]
        assert 0.03 < len(half) / len(lengths) < 0.07
        assert abs(near.mean() - 69.5) < 0.5 and abs(near.std() - 5) < (0.5 if multiple == 1 else 2)
        assert abs(half.mean() - 34.5) < 2


def test_epochs_are_reproducible_and_differ():
    ids = np.arange(4000, dtype=np.uint16)

    def shapes(seed, epoch, skip=0):
        source = train_source(ids, batch_size=4, length=20, random_lengths=True, seed=seed)
        return [x.shape[1] for x, _ in batches(source.epoch(epoch, skip))]

    assert shapes(1, 0) == shapes(1, 0)
    assert shapes(1, 0) != shapes(1, 1)
    assert shapes(1, 0) != shapes(2, 0)
    assert len(shapes(1, 0)) == len(shapes(1, 5)) == len(shapes(2, 0))
    assert shapes(1, 3, skip=7) == shapes(1, 3)[7:]


def test_repeated_iterations_are_the_epochs():
    ids = np.arange(1000, dtype=np.uint16)
    source = train_source(ids, batch_size=4, length=20, random_lengths=True, seed=5)
    dataset = source.repeated()
    for epoch in range(3):
        for (x, y), (a, b) in zip(batches(dataset), batches(source.epoch(epoch)), strict=True):
            assert np.array_equal(x, a) and np.array_equal(y, b)


def test_iterations_of_one_dataset_at_a_time_keep_their_epoch():
    source = train_source(
        np.arange(1000, dtype=np.uint16), batch_size=4, length=20, random_lengths=True
    )
    first, second = iter(source.epoch(0)), iter(source.epoch(1))
    mixed = [next(first)[0].shape[1], next(second)[0].shape[1], next(first)[0].shape[1]]
    plain = [[x.shape[1] for x, _ in source.epoch(e)] for e in (0, 1)]
    assert mixed == [plain[0][0], plain[1][0], plain[0][1]]


def test_too_short_a_stream():
    with pytest.raises(DataError, match="batch_size"):
        train_source(np.arange(40, dtype=np.uint16), batch_size=4, length=10)
    assert train_source(np.arange(44, dtype=np.uint16), batch_size=4, length=10).steps == 1


def test_large_ids_survive():
    ids = np.array([0, 65535, 65536, 267734] * 20, np.uint32)
    x, y = batches(train_source(ids, batch_size=2, length=8).epoch(0))[0]
    assert set(x.ravel()) == {0, 65535, 65536, 267734} and y.max() == 267734
