"""Pixel sequences: files, normalisation, permutation, epochs, errors."""

import gzip
import json

import numpy as np
import pytest
from pipeline_files import images, write_idx

from keras_seq import pipelines
from keras_seq.pipelines import DataError, MissingDataError


def load(name, folder, **options):
    return pipelines.load(name, folder, **{"batch_size": 8, **options})


def gather(dataset):
    parts = [(x.numpy(), y.numpy()) for x, y in dataset]
    assert len(parts) == int(dataset.cardinality())
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_mnist(mnist_folder):
    data = load("seq_mnist", mnist_folder, eval_batch_size=7, validation=6)
    assert data.info["examples"] == {"train": 44, "validation": 6, "test": 20}
    assert json.loads(json.dumps(data.info)) == data.info
    raw, labels = images(50, (28, 28), 50)
    x, y = gather(data.validation)
    assert x.dtype == np.float32 and y.dtype == np.int32
    expected = ((raw[44:] / 255 - 0.1307) / 0.3081).reshape(6, 784, 1)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    assert np.array_equal(y, labels[44:])
    x, y = gather(data.test)
    assert x.shape == (20, 784, 1) and np.array_equal(y, images(20, (28, 28), 20)[1])
    x, y = gather(data.train)
    assert x.shape == (40, 784, 1)  # the remainder of an epoch is left out
    numbers = np.rint((x[:, 0, 0] * 0.3081 + 0.1307) * 255).astype(int)
    assert len(set(numbers)) == 40 and max(numbers) < 44
    assert np.array_equal(y, labels[numbers])


def test_epochs_are_shuffled_by_seed_and_number(mnist_folder):
    def order(seed, epoch, skip=0):
        data = load("seq_mnist", mnist_folder, validation=0, seed=seed)
        return gather(data.epoch(epoch, skip))[0][:, 0, 0].tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) != order(0, 0)
    assert order(4, 2, skip=3) == order(4, 2)[24:]
    data = load("seq_mnist", mnist_folder, validation=0, seed=4)
    for epoch in range(3):
        assert gather(data.train)[0][:, 0, 0].tolist() == order(4, epoch)


def test_permutation_is_fixed(mnist_folder):
    plain = gather(load("seq_mnist", mnist_folder, validation=6).test)[0]
    permuted = gather(load("perm_mnist", mnist_folder, validation=6, seed=9).test)[0]
    order = np.random.RandomState(92916).permutation(784)
    assert np.array_equal(permuted, plain[:, order])
    assert order[:4].tolist() == [319, 576, 323, 107]


@pytest.mark.parametrize("validation, sizes", [
    (0, (50, None)), (0.2, (40, 10)), (5, (45, 5)), ("test", (50, 20)),
])  # fmt: skip
def test_validation_split(mnist_folder, validation, sizes):
    data = load("seq_mnist", mnist_folder, validation=validation)
    assert (data.info["examples"]["train"], data.info["examples"].get("validation")) == sizes
    assert (data.validation is None) == (sizes[1] is None)


@pytest.mark.parametrize("layout", ["plain", "dots", "torchvision", "npz"])
def test_layouts_of_mnist(mnist_folder, tmp_path, layout):
    arrays = {}
    folder = tmp_path / "other"
    place = folder / "MNIST" / "raw" if layout == "torchvision" else folder
    place.mkdir(parents=True)
    for prefix, split, count in (("train", "train", 50), ("t10k", "test", 20)):
        x, y = images(count, (28, 28), count)
        arrays |= {f"x_{split}": x, f"y_{split}": y}
        dot = "." if layout == "dots" else "-"
        if layout != "npz":
            write_idx(place / f"{prefix}-images{dot}idx3-ubyte", x)
            write_idx(place / f"{prefix}-labels{dot}idx1-ubyte", y)
    if layout == "npz":
        np.savez(place / "mnist.npz", **arrays)  # pyright: ignore[reportArgumentType]
    expected = gather(load("seq_mnist", mnist_folder, validation=6).test)
    found = gather(load("seq_mnist", folder, validation=6).test)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


@pytest.mark.parametrize("layout", ["npz", "binary"])
def test_cifar10(tmp_path, layout):
    x, y = images(50, (32, 32, 3), 1)
    test_x, test_y = images(10, (32, 32, 3), 2)
    if layout == "npz":
        (tmp_path / "cifar10").mkdir()
        np.savez(tmp_path / "cifar10" / "train_50.npz", x=x, y=y)
        np.savez(tmp_path / "cifar10" / "test_10.npz", x=test_x, y=test_y)
    else:
        folder = tmp_path / "cifar-10-batches-bin"
        folder.mkdir()

        def write(name, images, labels):
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            np.concatenate([labels[:, None], planes], 1).tofile(folder / name)

        for i in range(5):
            write(f"data_batch_{i + 1}.bin", x[i * 10 : i * 10 + 10], y[i * 10 : i * 10 + 10])
        write("test_batch.bin", test_x, test_y)
    data = load("seq_cifar10", tmp_path)
    assert data.info["examples"] == {"train": 45, "validation": 5, "test": 10}
    found, labels = gather(data.test)
    expected = ((test_x / 255 - 0.5) / 0.5).reshape(10, 1024, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.array_equal(labels, test_y)
    assert np.array_equal(gather(data.validation)[1], y[45:])


def spoil(path, change):
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(change(content)))


@pytest.mark.parametrize(
    "name, change, word, place",
    [
        ("train-images-idx3-ubyte.gz", lambda c: c[:-1], "the header announces", "byte 39215"),
        ("train-images-idx3-ubyte.gz", lambda c: c + b"x", "the header announces", "byte 39216"),
        ("train-images-idx3-ubyte.gz", lambda c: c[:9], "header is cut short", "byte 9"),
        ("train-images-idx3-ubyte.gz", lambda c: b"", "not an IDX file", "byte 0"),
        ("train-labels-idx1-ubyte.gz", lambda c: b"\x89PNG" + c, "not an IDX file", "byte 0"),
        ("train-labels-idx1-ubyte.gz", lambda c: c[:12] + b"\x0b" + c[13:], "label 11", "image 4"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda c: c[:4] + bytes([0, 0, 0, 19]) + c[8:-1],
            "20 images but 19 labels",
            None,
        ),
        ("t10k-images-idx3-ubyte.gz", lambda c: c[:4] + bytes(4) + c[8:16], "labels", None),
    ],
)
def test_bad_idx_files(mnist_folder, name, change, word, place):
    spoil(mnist_folder / "mnist" / name, change)
    with pytest.raises(DataError, match=word) as caught:
        load("seq_mnist", mnist_folder, validation=6)
    error = caught.value
    assert str(mnist_folder / "mnist" / name.split("-")[0]) in str(error) and error.remedy
    assert error.place == place


def test_truncated_gzip(mnist_folder):
    path = mnist_folder / "mnist" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"plain" + content):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="cut short or damaged") as caught:
            load("seq_mnist", mnist_folder, validation=6)
        assert str(path) in str(caught.value) and "byte" in str(caught.value.place)


def test_bad_npz_files(tmp_path):
    x, y = images(9, (32, 32, 3), 1)
    test, train = tmp_path / "test.npz", tmp_path / "train.npz"
    np.savez(test, x=x, y=y)
    for arrays, word in (
        ({"x": x / 255, "y": y}, "uint8"),
        ({"x": x[:, :16], "y": y}, r"uint8 \(n, 32, 32, 3\)"),
        ({"x": x, "y": y[:5]}, "9 images but 5 labels"),
        ({"x": x, "y": y + 10}, "out of range"),
        ({"x": x[:0], "y": y[:0]}, "no images"),
        ({"images": x, "y": y}, "looked for x or x_train"),
        ({"x": np.array([None]), "y": y}, "not a readable npz"),
    ):
        np.savez(train, **arrays)  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError, match=word) as caught:
            load("seq_cifar10", tmp_path)
        assert str(train) in str(caught.value)
    train.write_bytes(test.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a readable npz"):
        load("seq_cifar10", tmp_path)


def test_bad_cifar_binary(tmp_path):
    for name in ("test_batch.bin", *(f"data_batch_{i}.bin" for i in range(1, 6))):
        (tmp_path / name).write_bytes(bytes(3073 * 2 + (name == "data_batch_3.bin")))
    with pytest.raises(DataError, match="whole number of records") as caught:
        load("seq_cifar10", tmp_path)
    assert caught.value.place == "byte 6146" and "data_batch_3.bin" in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    for name, word in (("seq_mnist", "train-images-idx3"), ("seq_cifar10", "data_batch_1.bin")):
        with pytest.raises(MissingDataError, match=word):
            load(name, tmp_path)


def test_arguments_are_checked(mnist_folder):
    for options, word in (
        ({"length": 100}, "784 pixels"),
        ({"history": 5}, "no history"),
        ({"validation": 50}, "validation"),
        ({"validation": "dev"}, "validation"),
        ({"validation": -1}, "validation"),
        ({"batch_size": 51, "validation": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=word):
            load("seq_mnist", mnist_folder, **{"validation": 6, **options})
    assert load("seq_mnist", mnist_folder, validation=6, length=784).steps_per_epoch == 5


def test_published_mnist(shared_data):
    data = load("seq_mnist", shared_data, eval_batch_size=1000)
    assert data.info["examples"] == {"train": 55_000, "validation": 5_000, "test": 10_000}
    _, y = gather(data.test)
    assert np.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    x, _ = next(iter(data.test))
    assert abs(float(x.numpy().mean())) < 0.1


def test_cifar_subset(shared_data):
    data = load("seq_cifar10", shared_data)
    assert data.info["examples"] == {"train": 4_500, "validation": 500, "test": 1_000}
