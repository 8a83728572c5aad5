"""A tf.data service makes the same batches, for one trainer or several."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import pipelines, training
from keras_seq.training.cluster import Cluster
from keras_seq.training.data_service import Share, Source


@pytest.fixture(scope="module")
def service():
    with training.DataService() as service:
        yield service


@pytest.fixture(scope="module")
def data(tiny_text):
    return pipelines.load("text", tiny_text, batch_size=4, length=8, cache_dir=False)


def source(data, *arguments) -> Source:
    return Source(data, Cluster(tf.distribute.get_strategy()), *arguments)


def read(dataset) -> list[np.ndarray]:
    return [np.stack([ids, targets]) for ids, targets in dataset.as_numpy_iterator()]


@pytest.mark.parametrize(("skip", "left"), [(0, 100), (2, 3)])
def test_same_batches_in_order(service, data, skip, left):
    here = source(data).batches(1, skip, left)
    served = source(data, service.address).batches(1, skip, left)
    assert int(served.cardinality()) == int(here.cardinality()) == min(left, 6 - skip)
    assert served.element_spec == here.element_spec
    for batch, ours in zip(read(served), read(here), strict=True):
        np.testing.assert_array_equal(batch, ours)


def test_several_trainers_read_one_job(service, data, monkeypatch):
    """Each of two gets every batch, and each batch is made once for both."""
    made = []

    def note(number):
        made.append(int(number))
        return np.int32(0)

    def counted(epoch, skip=0):
        def add(number, batch):
            zero = tf.ensure_shape(tf.numpy_function(note, [number], tf.int32), ())
            return tf.nest.map_structure(lambda x: x + zero, batch)

        dataset = data.epoch(epoch, skip).enumerate()
        return dataset.map(add)

    whole = read(data.epoch(0))
    sources = [source(data, service.address, f"two:{index}/2") for index in range(2)]
    for each in sources:
        each.data = type("Counted", (), {"epoch": staticmethod(counted), "steps_per_epoch": 6})
    found: list[list] = [[], []]
    threads = [
        threading.Thread(target=lambda i=i: found[i].extend(read(sources[i].batches(0, 0, 6))))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for batches in found:
        assert len(batches) == 6
        for batch, ours in zip(batches, whole, strict=True):
            np.testing.assert_array_equal(batch, ours)
    assert made[:6] == [0, 1, 2, 3, 4, 5]
    assert len(made) < 12  # the service may have begun the next round


def test_training_with_a_service(service, tiny_recipe, tiny_text, tmp_path):
    runs = [
        training.train(
            tiny_recipe,
            tiny_text,
            tmp_path / name,
            epochs=1,
            max_steps=4,
            verbose=0,
            watch=False,
            data_service=address,
        )
        for name, address in (("here", None), ("served", service.address))
    ]
    here, served = (run.load_model("last").get_weights() for run in runs)
    for one, other in zip(here, served, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("5050",), "grpc://host:5050"),
        ((None, "a:0/2"), "needs `data_service`"),
        (("host:1", "a"), "NAME:INDEX/COUNT"),
    ],
)
def test_wrong_settings(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        source(data, *arguments)


def test_share():
    assert Share.parse("search-1:2/4") == ("search-1", 2, 4)
    for wrong in ("search", "search:4/4", ":0/2", "a:0/0"):
        with pytest.raises(ValueError, match="NAME:INDEX/COUNT"):
            Share.parse(wrong)
