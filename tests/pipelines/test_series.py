"""Series with classes: buckets, batches, epochs, missing values."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq import pipelines
from keras_seq.pipelines.buckets import Buckets
from keras_seq.pipelines.errors import DataError, MissingDataError

HEADER = "@problemName {}\n@classLabel true a b c\n@data\n"


def lines(count, seed, dimensions=2, shortest=3, longest=15):
    """Series of different lengths, whose classes take turns."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        length = rng.integers(shortest, longest + 1)
        values = rng.normal(size=(dimensions, length)).round(4)
        rows = (",".join(map(str, row)) for row in values)
        made.append(":".join([*rows, "abc"[i % 3]]))
    return made


def write(folder, problem, train, test):
    for split, content in (("TRAIN", train), ("TEST", test)):
        if content is not None:
            text = HEADER.format(problem) + "\n".join(content) + "\n"
            (folder / f"{problem}_{split}.ts").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "series").mkdir()
    write(tmp_path / "series", "Short", lines(30, 0), lines(17, 1))
    return tmp_path


def load(folder, **options):
    options = {"batch_size": 4, **options}
    return pipelines.load("series_classification", folder, **options)


def rows_of(dataset):
    """(values, label) of every series, in order, after a check of the padding."""
    for x, y in dataset.as_numpy_iterator():
        assert set(x) == {"inputs", "lengths"}
        assert x["inputs"].dtype == np.float32 and x["lengths"].dtype == y.dtype == np.int32
        assert len(x["inputs"]) == len(x["lengths"]) == len(y)
        for values, length, label in zip(x["inputs"], x["lengths"], y, strict=True):
            assert 0 < length <= len(values) and not values[length:].any()
            yield values[:length].tobytes(), int(label)


@pytest.mark.parametrize("batch_size, buckets", [(1, 0), (4, 0), (4, 3), (7, 1), (64, 4), (5, 50)])
def test_every_series_is_there_once(folder, batch_size, buckets):
    data = load(folder, batch_size=batch_size, buckets=buckets, validation=0.3)
    together = {}
    for name, split in data.splits.items():
        found = list(rows_of(split))
        assert len(found) == data.info["examples"][name] == len(set(found))
        assert int(split.cardinality()) == len(list(split))
        shapes = {x["inputs"].shape for x, _ in split.as_numpy_iterator()}
        if buckets:
            assert {shape[1] for shape in shapes} <= set(data.info["bounds"])
            assert len(data.info["bounds"]) <= buckets
            assert len(shapes) <= len(data.info["bounds"]) + 1
        smaller = [len(y) for _, y in split.as_numpy_iterator() if len(y) < batch_size]
        assert len(smaller) <= 1
        together[name] = set(found)
    everything = {
        np.asarray([*map(eval, line.split(":")[:-1])], "float32").T.tobytes()
        for line in lines(30, 0)
    }
    assert {values for values, _ in together["train"] | together["validation"]} == everything
    assert not together["train"] & together["validation"]


def test_a_step_is_traced_once(folder):
    traces = []

    @tf.function
    def step(x, y):
        traces.append(x)
        return tf.reduce_sum(x["inputs"]) + tf.cast(tf.reduce_sum(y), tf.float32)

    @tf.function
    def epoch(dataset):
        total = 0.0
        for x, y in dataset:
            total += step(x, y)
        return total

    data = load(folder, buckets=4)
    for number in range(2):
        epoch(data.epoch(number))
    assert len(traces) == 1


def test_without_buckets_the_order_is_that_of_the_file(folder):
    data = load(folder, buckets=0)
    labels = np.concatenate([y for _, y in data.test.as_numpy_iterator()])
    np.testing.assert_array_equal(labels, np.arange(17) % 3)
    for x, _ in data.test.as_numpy_iterator():
        assert x["inputs"].shape[1] == x["lengths"].max()


def test_epochs_differ_and_are_reproducible(folder):
    one, again, other = (load(folder, buckets=3, seed=seed) for seed in (0, 0, 1))

    def epoch(number, skip=0, data=one):
        return list(data.epoch(number, skip).as_numpy_iterator())

    def same(one, other):
        return len(one) == len(other) and all(
            a["inputs"].shape == b["inputs"].shape and (a["inputs"] == b["inputs"]).all()
            for (a, _), (b, _) in zip(one, other, strict=True)
        )

    first = epoch(0)
    assert same(first, epoch(0, data=again))
    assert same(first[2:], epoch(0, skip=2))
    assert not same(first, epoch(1)) and not same(first, epoch(0, data=other))
    for number in range(2):
        assert same(epoch(number), list(one.train.as_numpy_iterator()))


def test_what_is_held_out(folder):
    data = load(folder, validation=0.2)
    assert data.info["examples"] == {"train": 24, "validation": 6, "test": 17}
    labels = [label for _, label in rows_of(data.validation)]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]  # of each class the same share
    other = load(folder, validation=0.2, seed=5)
    assert set(rows_of(data.validation)) == set(rows_of(other.validation))
    assert load(folder, validation=0.0).validation is None


@pytest.mark.parametrize("pass_on, widths, left", [(False, [2, 2, 5, 9], 6), (True, [2, 5, 9], 2)])
def test_plans(pass_on, widths, left):
    """Five of length 2, three of 5 and two of 9 in batches of four."""
    lengths = np.array([2, 5, 2, 9, 2, 2, 5, 9, 2, 5])
    buckets = Buckets(lengths, [2, 5, 9], pass_on)
    assert buckets.steps(4) == len(widths)
    for number in range(3):
        rows, bounds = (t.numpy() for t in buckets.shuffled(tf.constant([0, number], tf.int64), 4))
        assert rows.shape == (len(widths), 4) and sorted(bounds) == widths
        assert sorted(rows[rows >= 0]) == list(range(10)) and (rows < 0).sum() == left
        for row, bound in zip(rows, bounds, strict=True):
            assert (lengths[row[row >= 0]] <= bound).all()


def test_missing_values(tmp_path):
    train = ["1,2,3:4,?,6:a", "1,2,?:3,4,?:b", "5,6:7,8:c"] * 2
    write(tmp_path, "Gaps", train, None)
    with pytest.raises(DataError, match="line 4: the value of dimension 2 at step 2 is missing"):
        load(tmp_path, validation=0.4)
    options = {"validation": 0.0, "buckets": 0, "batch_size": 6}
    x, y = next(iter(load(tmp_path, missing="skip", **options).train))
    place = int(np.argmax(y.numpy() == 0))
    np.testing.assert_array_equal(x["lengths"], [2] * 6)  # what ends without a value is shorter
    np.testing.assert_array_equal(x["inputs"][place], [[1, 4], [3, 6]])
    data = load(tmp_path, missing="mark", **options)
    x, y = next(iter(data.train))
    place = int(np.argmax(y.numpy() == 0))
    marked = [[1, 4, 1, 1], [2, 0, 1, 0], [3, 6, 1, 1]]
    np.testing.assert_array_equal(x["inputs"][place], marked)
    assert data.info["features"] == 4
    assert sorted(x["lengths"].numpy()) == [2, 2, 2, 2, 3, 3]


def test_features_are_standardized_by_the_training_series(tmp_path):
    """Missing values have no part in it, nor have series that are held out; a constant is kept."""
    rng = np.random.default_rng(0)
    train = []
    for i in range(30):
        values = rng.normal(5, 3, size=(2, 4 + i % 3)).round(3).astype(str)
        values[0, 1] = "?"
        train.append(
            ":".join([*map(",".join, values), ",".join("7" * values.shape[1]), "abc"[i % 3]])
        )
    write(tmp_path, "Scaled", train, train)
    data = load(tmp_path, missing="mark", standardize=True, batch_size=1)
    steps = np.concatenate([x["inputs"][0] for x, _ in data.train.as_numpy_iterator()])
    there = steps[:, 3:].astype(bool)
    for feature in range(2):
        values = steps[there[:, feature], feature]
        assert abs(values.mean()) < 1e-5 and abs(values.std() - 1) < 1e-5
        assert not steps[~there[:, feature], feature].any()
    assert not there[:, 0].all() and there[:, 1:].all() and not steps[:, 2].any()
    moments = data.info["moments"]
    assert moments["mean"][2] == 7 and moments["deviation"][2] == 1
    raw = load(tmp_path, missing="mark", batch_size=1)
    for (x, _), (scaled, _) in zip(raw.test, data.test, strict=True):
        expected = (x["inputs"][0, :, 1] - moments["mean"][1]) / moments["deviation"][1]
        np.testing.assert_allclose(scaled["inputs"][0, :, 1], expected, rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_anew_at_each_visit_of_a_training_series(folder):
    options = {"buckets": 2, "validation": 0.3, "seed": 4}
    plain, noisy, again = (load(folder, noise=n, **options) for n in (0.0, 0.5, 0.5))
    found = []
    for epoch in range(2):
        triples = zip(plain.epoch(epoch), noisy.epoch(epoch), again.epoch(epoch), strict=True)
        for (x, y), (x_noisy, y_noisy), (x_again, _) in triples:
            np.testing.assert_array_equal(y, y_noisy)
            np.testing.assert_array_equal(x_noisy["inputs"], x_again["inputs"])
            there = np.arange(x["inputs"].shape[1]) < x["lengths"].numpy()[:, None]
            difference = (x_noisy["inputs"] - x["inputs"]).numpy()
            assert not difference[~there].any()
            found.append(difference[there])
    assert 0.4 < np.concatenate(found).std() < 0.6
    values = np.concatenate(found).ravel()
    assert len(np.unique(values)) > 0.99 * len(values)
    rest = next(iter(noisy.epoch(1, skip=2)))[0]["inputs"]
    np.testing.assert_array_equal(rest, list(again.epoch(1))[2][0]["inputs"])
    for one, other in zip(plain.test, noisy.test, strict=True):
        np.testing.assert_array_equal(one[0]["inputs"], other[0]["inputs"])


def test_the_embedded_series():
    data = load(None, batch_size=16)
    assert data.info["examples"] == {"train": 192, "validation": 48, "test": 240}
    assert data.info["source"]["train"] == "computed"
    first, again = (next(iter(load(None).test))[0]["inputs"].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    splits = {name: {values for values, _ in rows_of(split)} for name, split in data.splits.items()}
    assert len(set.union(*splits.values())) == 480


def test_files_are_found(folder):
    assert load(folder).info["source"] == load(folder / "series").info["source"]
    write(folder, "Other", lines(12, 2), None)
    assert load(folder, problem="Short").info["examples"]["test"] == 17
    assert load(folder).test is None  # the folder's own come first
    write(folder, "Third", lines(6, 2), lines(3, 3))
    with pytest.raises(DataError, match=r"several data sets: Other, Third\. .*problem=NAME"):
        load(folder)
    with pytest.raises(MissingDataError, match=r"no JapaneseVowels_TRAIN\.ts.*Give `data_dir`"):
        pipelines.load("japanese_vowels", folder, batch_size=4)
    with pytest.raises(MissingDataError, match="Give `data_dir`"):
        load(None, problem="Short")


def test_two_files_of_different_sets_are_refused(tmp_path):
    write(tmp_path, "Mixed", lines(6, 0), lines(3, 1, dimensions=3))
    with pytest.raises(DataError, match=r"Mixed_TEST\.ts: the series have 3 dimensions, those of"):
        load(tmp_path)
    (tmp_path / "Mixed_TEST.ts").write_text("@classLabel true a c b\n@data\n1:2:a\n")
    with pytest.raises(DataError, match="the classes are a, c, b, those of"):
        load(tmp_path)
    (tmp_path / "Mixed_TEST.ts").write_text("@classLabel true\n@data\n1:2:a\n1:2:d\n")
    with pytest.raises(DataError, match=r"line 4: no series of .* has the class 'd'"):
        load(tmp_path)
    (tmp_path / "Mixed_TEST.ts").write_text("@data\n1:2\n")
    with pytest.raises(DataError, match="the series have no classes"):
        load(tmp_path)
    (tmp_path / "Mixed_TEST.ts").write_text("@classLabel true a b c\n@data\n?,?:?,?:a\n")
    with pytest.raises(DataError, match="line 3: the series has no step with values"):
        load(tmp_path)


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"length": 5}, "have lengths of their own"),
        ({"history": 5}, "have lengths of their own"),
        ({"buckets": -1}, "`buckets` must be"),
        ({"buckets": 2.5}, "`buckets` must be"),
        ({"noise": -1.0}, "`noise` must be a deviation"),
        ({"missing": "zero"}, "`missing` must be one of"),
        ({"validation": 1.0}, r"`validation` must be a fraction in \[0, 1\)"),
        ({"validation": "test"}, "`validation` must be a fraction"),
        ({"validation": 0.001}, "`validation` must hold out a series"),
    ],
)
def test_options_are_checked(folder, options, problem):
    with pytest.raises(ValueError, match=problem):
        load(folder, **options)
