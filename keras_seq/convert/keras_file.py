"""Weights and configurations of Keras files, whose layers need not be installed."""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq._reading import BrokenFileError, check_unpacked, reading, regular

REMEDY = "Give a `.keras` file as `model.save` of Keras 3 wrote it, or its `.weights.h5`."
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
# What Keras numbers in a file, by the name of a layer.
_NAMES = {
    r"conv\w*|matching_conv\w*|dense(?:_\d+)?": ("kernel", "bias"),
    r"batch_normalization(?:_\d+)?": ("gamma", "beta", "moving_mean", "moving_variance"),
    r"layer_normalization(?:_\d+)?": ("gamma", "beta"),
}


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the model in a `.keras` file.

    Raises:
        FileNotFoundError: if there is no such file.
        BrokenFileError: if it is damaged, or has none.
    """
    with reading(path, "a .keras file", REMEDY), zipfile.ZipFile(regular(path, REMEDY)) as archive:
        check_unpacked(archive)
        config = json.loads(archive.read(_CONFIG))
        if not isinstance(config, dict):
            raise ValueError(f"{_CONFIG} holds no model")
        return config


def read_keras_weights(path: str | Path, limit: int | None = None) -> dict[str, np.ndarray]:
    """The weights of a `.keras` or `.weights.h5` file by their place: `layers/dense/kernel`.

    Args:
        path: the file.
        limit: most bytes of all arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        BrokenFileError: if it is damaged, holds more, or refers to other files.
    """
    with reading(path, "a Keras file of weights", REMEDY), open_weights(path) as file:
        datasets = {}
        for place, dataset in walk(file):
            if not place.startswith("optimizer/"):
                datasets[named(place)] = dataset
        size = sum(dataset.nbytes for dataset in datasets.values())
        if limit is not None and size > limit:
            raise BrokenFileError(
                f"it holds arrays of {size:,} bytes where at most {limit:,} are expected; nothing "
                "was read.",
                path=path,
                remedy=REMEDY,
            )
        return {name: np.asarray(dataset) for name, dataset in datasets.items()}


@contextlib.contextmanager
def open_weights(path: str | Path) -> Iterator[Any]:
    """The open HDF5 file of the weights."""
    import h5py

    if Path(path).suffix == ".keras":
        with zipfile.ZipFile(regular(path, REMEDY)) as archive:
            check_unpacked(archive)
            content = io.BytesIO(archive.read(_WEIGHTS))
        with h5py.File(content, "r") as file:
            yield file
    else:
        with h5py.File(regular(path, REMEDY), "r") as file:
            yield file


def walk(group: Any, start: str = "") -> Iterator[tuple[str, Any]]:
    """Every array of an open file with its place, such as `layers/dense/vars/0`.

    Raises:
        ValueError: a link or an array lies in another file.
    """
    import h5py

    for name in group:
        place = f"{start}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"`{place}` is a link, which no weights need; nothing was followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from walk(item, f"{place}/")
        elif item.external or item.is_virtual:
            raise ValueError(f"`{place}` lies in another file, which was not opened")
        else:
            yield place, item


def named(place: str) -> str:
    """A place with the name of the weight for its number, where the layer is of a known kind."""
    found = re.fullmatch(r"(.*?([^/]+))/vars/(\d+)", place)
    if found is None:
        return place
    for layer, names in _NAMES.items():
        if re.fullmatch(layer, found[2]) and int(found[3]) < len(names):
            return f"{found[1]}/{names[int(found[3])]}"
    return place
