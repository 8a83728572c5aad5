"""`seq_mnist`, `perm_mnist`, `seq_cifar10`: images as sequences of pixels, row by row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_seq.pipelines.corpus_files import data_folder
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.epochs import EpochSource, index_dataset, shuffled_batches
from keras_seq.pipelines.errors import MissingDataError
from keras_seq.pipelines.image_files import (
    Images,
    check_images,
    read_cifar_binary,
    read_idx,
    read_npz,
)
from keras_seq.pipelines.published import chosen_source
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.tfds_source import prepared_builder
from keras_seq.pipelines.token_file import as_tensor

CLASSES = 10
MNIST_MOMENTS = (0.1307, 0.3081)  # mean and deviation of the pixels, in the released scripts
CIFAR_MOMENTS = (0.5, 0.5)


@dataclass(frozen=True)
class PixelOptions:
    """Options of the pixel sequences.

    Attributes:
        validation: images at the end of the training split that are held out: a number, or a
            fraction below 1. 0 for none. `"test"`: validation is the test split and training keeps
            all images, as in the released TrellisNet script (which selects on the test split).
        permutation_seed: `None` keeps the order of the pixels; else they are permuted by
            `numpy.random.RandomState(permutation_seed).permutation(pixels)`.
        source, download: see `CorpusOptions`.
    """

    validation: int | float | str = 5000
    permutation_seed: int | None = None
    source: str = "auto"
    download: bool = False


@register("seq_mnist", PixelOptions())
def seq_mnist(request: Request, options: PixelOptions) -> Data:
    """MNIST, x (b, 784, 1): 55,000 / 5,000 / 10,000 images."""
    images = _load(request, options, "mnist", (28, 28, 1), _local_mnist)
    return _pixel_data(request, options, images, MNIST_MOMENTS)


@register("perm_mnist", PixelOptions(permutation_seed=92916))
def perm_mnist(request: Request, options: PixelOptions) -> Data:
    """MNIST with one fixed permutation of the pixels, x (b, 784, 1)."""
    return seq_mnist(request, options)


@register("seq_cifar10", PixelOptions(validation=0.1))
def seq_cifar10(request: Request, options: PixelOptions) -> Data:
    """CIFAR-10, x (b, 1024, 3): 45,000 / 5,000 / 10,000 images."""
    images = _load(request, options, "cifar10", (32, 32, 3), _local_cifar10)
    return _pixel_data(request, options, images, CIFAR_MOMENTS)


def _load(request, options, name, shape, local) -> dict[str, tuple[Images, str]]:
    """Images and label of the source for `train` and `test`."""
    folder = data_folder(request.data_dir)
    loaded = {}
    if chosen_source(options.source, folder) == "files":
        for split in ("train", "test"):
            images, labels, path = local(folder, split)
            loaded[split] = (check_images(images, labels, shape, CLASSES, path), str(path))
        return loaded
    builder = prepared_builder(name, request.data_dir, options.download)
    for split in ("train", "test"):
        dataset = builder.as_dataset(split=split, shuffle_files=False).batch(1000)
        blocks = list(dataset.as_numpy_iterator())
        images, labels = (np.concatenate([b[key] for b in blocks]) for key in ("image", "label"))
        label = f"{builder.info.full_name} ({split})"
        loaded[split] = (check_images(images, labels, shape, CLASSES, label), label)
    return loaded


def _local_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, Path]:
    prefix = {"train": "train", "test": "t10k"}[split]
    for place in (folder / "mnist", folder / "MNIST" / "raw", folder):
        for dot in ("-", "."):
            for ending in ("", ".gz"):
                images = place / f"{prefix}-images{dot}idx3-ubyte{ending}"
                labels = place / f"{prefix}-labels{dot}idx1-ubyte{ending}"
                if images.is_file() and labels.is_file():
                    return read_idx(images, 3), read_idx(labels, 1), images
        npz = place / "mnist.npz"
        if npz.is_file():
            return *read_npz(npz, (f"x_{split}",), (f"y_{split}",)), npz
    raise MissingDataError(
        f"no MNIST {split} images: neither {prefix}-images-idx3-ubyte and "
        f"{prefix}-labels-idx1-ubyte (or with .gz) nor mnist.npz, here or in mnist/.",
        path=folder,
        remedy='Put the published files there, or use `source="tfds", download=True`.',
    )


def _local_cifar10(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, Path]:
    batches = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    for place in (folder / "cifar10", folder / "cifar-10-batches-bin", folder):
        paths = [place / name for name in batches[split]]
        if all(path.is_file() for path in paths):
            return *read_cifar_binary(paths), paths[0]
        npz = sorted(place.glob(f"{split}*.npz")) + sorted(place.glob("cifar10.npz"))
        if npz:
            return *read_npz(npz[0], ("x", f"x_{split}"), ("y", f"y_{split}")), npz[0]
    raise MissingDataError(
        f"no CIFAR-10 {split} images: neither {', '.join(batches[split])} nor {split}*.npz, here, "
        "in cifar10/ or in cifar-10-batches-bin/.",
        path=folder,
        remedy='Put the files there, or use `source="tfds", download=True`.',
    )


def _pixel_data(
    request: Request,
    options: PixelOptions,
    loaded: dict[str, tuple[Images, str]],
    moments: tuple[float, float],
) -> Data:
    pixels = int(np.prod(loaded["train"][0][0].shape[1:3]))
    if request.length not in (None, pixels):
        raise ValueError(
            f"A sequence of {request.name!r} has {pixels} pixels. Received: "
            f"length={request.length}. Leave `length` out."
        )
    if request.history:
        raise ValueError(f"{request.name!r} has no history. Received: history={request.history}.")
    splits = _hold_out(options.validation, {name: images for name, (images, _) in loaded.items()})
    order = None
    if options.permutation_seed is not None:
        order = np.random.RandomState(options.permutation_seed).permutation(pixels)
    mean, deviation = moments

    def fetcher(images: np.ndarray, labels: np.ndarray):
        flat = np.ascontiguousarray(images.reshape(len(images), pixels, -1))
        stored = as_tensor(flat if order is None else np.ascontiguousarray(flat[:, order]))
        classes = as_tensor(np.ascontiguousarray(labels))

        def fetch(rows):
            x = tf.cast(tf.gather(stored, rows), tf.float32)
            x = (x * (1 / 255) - mean) * (1 / deviation)
            return x, tf.cast(tf.gather(classes, rows), tf.int32)

        return fetch

    count = len(splits["train"][1])
    steps = count // request.batch_size
    if not steps:
        raise ValueError(
            f"`batch_size` must be at most the {count} training images. "
            f"Received: batch_size={request.batch_size}."
        )
    train = EpochSource(
        lambda epoch: shuffled_batches(epoch, request.seed, count, request.batch_size),
        fetcher(*splits["train"]),
        steps,
        parallel=True,
        copy_constants=False,
    )
    held_out = {
        name: index_dataset(len(split[1]), request.eval_batch_size, fetcher(*split))
        for name, split in splits.items()
        if name != "train"
    }
    return Data(
        name=request.name,
        train=train.repeated(),
        validation=held_out.get("validation"),
        test=held_out["test"],
        info={
            "examples": {name: len(split[1]) for name, split in splits.items()},
            "classes": CLASSES,
            "length": pixels,
            "source": {name: label for name, (_, label) in loaded.items()},
        },
        epoch_fn=train.epoch,
    )


def _hold_out(validation: int | float | str, splits: dict[str, Images]) -> dict[str, Images]:
    """Train, validation (where there is one) and test."""
    images, labels = splits["train"]
    if validation == "test":
        return {"train": splits["train"], "validation": splits["test"], "test": splits["test"]}
    if isinstance(validation, (str, bool)) or validation < 0:
        raise ValueError(
            "`validation` must be a number of images, a fraction below 1 or 'test'. "
            f"Received: validation={validation!r}."
        )
    count = round(validation * len(images)) if validation < 1 else int(validation)
    if not count:
        return {"train": splits["train"], "test": splits["test"]}
    if count >= len(images):
        raise ValueError(
            f"`validation` must leave training images: there are {len(images)}. "
            f"Received: validation={validation!r}."
        )
    return {
        "train": (images[:-count], labels[:-count]),
        "validation": (images[-count:], labels[-count:]),
        "test": splits["test"],
    }
