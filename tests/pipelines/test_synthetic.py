"""Copy memory and adding: format, distribution, reproducibility."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import pipelines
from keras_seq.pipelines import counter_random


def load(name, **options):
    sizes = {"n_train": 200, "n_validation": 30, "n_test": 25}
    return pipelines.load(name, batch_size=16, eval_batch_size=10, **{**sizes, **options})


def gather(dataset):
    parts = [(x.numpy(), y.numpy()) for x, y in dataset]
    assert len(parts) == int(dataset.cardinality())
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


@pytest.mark.parametrize("delay", [1, 7])
def test_copy_memory_format(delay):
    data = load("copy_memory", delay=delay)
    assert data.info["length"] == delay + 20
    for dataset, count in ((data.train, 192), (data.validation, 30), (data.test, 25)):
        x, y = gather(dataset)
        assert x.shape == y.shape == (count, delay + 20)
        assert x.dtype == y.dtype == np.int32
        digits = x[:, :10]
        assert digits.min() >= 1 and digits.max() <= 8
        assert not x[:, 10 : 9 + delay].any() and (x[:, 9 + delay :] == 9).all()
        assert not y[:, : delay + 10].any() and np.array_equal(y[:, delay + 10 :], digits)


def test_copy_memory_as_numbers():
    ids = gather(load("copy_memory", delay=3).test)[0]
    numbers = gather(load("copy_memory", delay=3, encoding="float").test)[0]
    assert numbers.dtype == np.float32 and np.array_equal(numbers[..., 0], ids)


def test_adding_format():
    data = load("adding", length=40)
    for dataset, count in ((data.train, 192), (data.validation, 30), (data.test, 25)):
        x, y = gather(dataset)
        assert x.shape == (count, 40, 2) and y.shape == (count, 1) and x.dtype == np.float32
        values, mask = x[..., 0], x[..., 1]
        assert values.min() >= 0 and values.max() < 1
        assert (mask.sum(1) == 2).all() and set(np.unique(mask)) == {0.0, 1.0}
        np.testing.assert_allclose((values * mask).sum(1, keepdims=True), y, atol=1e-6)


def test_distributions():
    x, y = gather(load("adding", length=50, n_train=4000).epoch(0))
    values, places = x[..., 0], np.argwhere(x[..., 1] == 1)[:, 1]
    assert abs(values.mean() - 0.5) < 0.005 and abs(values.var() - 1 / 12) < 0.002
    assert abs(np.mean((y - 1) ** 2) - 1 / 6) < 0.02
    counts = np.bincount(places, minlength=50)
    assert counts.min() > 100 and counts.max() < 230  # 160 expected
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.05
    digits = gather(load("copy_memory", delay=1, n_train=2000).epoch(0))[0][:, :10]
    assert np.bincount(digits.ravel()).min() == 0  # no zeros
    assert np.bincount(digits.ravel())[1:].min() > 2200  # 2,480 expected


@pytest.mark.parametrize("name", ["copy_memory", "adding"])
def test_reproducible(name):
    options = {"delay": 5} if name == "copy_memory" else {"length": 12}

    def train(seed, epoch=0, skip=0, **more):
        return gather(load(name, seed=seed, **options, **more).epoch(epoch, skip))[0]

    assert np.array_equal(train(0), train(0))
    assert not np.array_equal(train(0), train(1))
    assert np.array_equal(train(0, 2, skip=5), train(0, 2)[80:])

    def rows(x):
        return {row.tobytes() for row in x}

    # Another epoch is another order of the same examples; another batch size too.
    everything = rows(train(0, n_train=192))
    assert rows(train(0, 1, n_train=192)) == everything
    assert not np.array_equal(train(0, 0, n_train=192), train(0, 1, n_train=192))
    first, second = (gather(load(name, seed=seed, **options).test)[0] for seed in (0, 1))
    assert np.array_equal(first, second)
    validation = rows(gather(load(name, **options).validation)[0])
    assert not validation & rows(first) and not validation & everything


def test_graph_and_numpy_agree():
    counter = np.arange(1000, dtype=np.uint64) * np.uint64(7919)
    for parts in ((0,), (1, 2), (2**40, -5)):
        key = counter_random.stream_key(*parts)
        expected = counter_random.mix_numpy(key, counter)
        assert np.array_equal(counter_random.mix(key, tf.constant(counter)).numpy(), expected)
        uniform = counter_random.uniform(key, tf.constant(counter)).numpy()
        assert np.array_equal(uniform, (expected >> np.uint64(40)).astype(np.float32) / 2**24)
    # The first value of SplitMix64 seeded with 0.
    assert int(counter_random.mix_numpy(0, np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_arguments_are_checked():
    for name, options, word in (
        ("copy_memory", {"delay": 0}, "delay"),
        ("copy_memory", {"encoding": "one_hot"}, "encoding"),
        ("copy_memory", {"length": 30, "delay": 5}, "delay"),
        ("copy_memory", {"n_train": 3}, "n_train"),
        ("copy_memory", {"history": 3}, "history"),
        ("adding", {"length": 1}, "length"),
        ("adding", {"n_test": 0}, "n_test"),
    ):
        with pytest.raises(ValueError, match=word):
            load(name, **options)
