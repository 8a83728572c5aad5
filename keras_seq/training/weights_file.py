"""Weight files that say which recipe they belong to, and whether they are as they were written."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq import _files
from keras_seq._reading import SLACK, BrokenFileError, check_unpacked, reading, regular
from keras_seq.zoo import Recipe

MEMBER = "keras_seq_recipe.json"
DIGEST = "keras_seq_sha256"  # of all arrays of an HDF5 file
SUFFIXES = (".weights.h5", ".keras")
REMEDY = "Restore it from a copy, or write it again."


def save_model_file(model: keras.Model, path: str | Path, recipe: Recipe) -> Path:
    """Writes a model with its recipe, whole or not at all.

    Keras reads the file as any other; `keras_seq` also finds the recipe in it, so that
    `keras_seq.training.evaluate(path)` needs nothing else.

    Args:
        model: the model.
        path: a file name that ends in `.weights.h5` (weights) or `.keras` (architecture and
            weights).
        recipe: the recipe that the model was built from.

    Raises:
        ValueError: for another ending.
    """
    path = Path(path)
    suffix = check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".weights.h5":
        save_weights(model, path, {MEMBER: recipe.to_json()})
        return path
    with _files.atomic(path, suffix) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, recipe.to_json())
    return path


def save_weights(model: keras.Model, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Writes a `.weights.h5` file with a hash of its arrays, whole or not at all.

    Args:
        model: the model.
        path: the file.
        facts: attributes for the file.
    """
    import h5py

    with _files.atomic(path, SUFFIXES[0]) as temporary:
        model.save_weights(temporary)
        with h5py.File(temporary, "a") as file:
            for name, value in (facts or {}).items():
                file.attrs[name] = value
            file.attrs[DIGEST] = _digest(file)


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Fills a model from a `.weights.h5` file.

    Args:
        model: the built model.
        path: the file. If it has a hash, its arrays must be those that were written.

    Raises:
        FileNotFoundError: if there is no such file.
        BrokenFileError: for a file that is damaged, of another model, or holds a weight that is
            not a finite number. The message names it.
    """
    import h5py

    path = regular(path, REMEDY)
    needed = sum(weight.shape.num_elements() for weight in model.weights)
    with reading(path, "a file of weights", REMEDY), h5py.File(path, "r") as file:
        held = sum(array.size for array in _arrays(file).values())
        if held > 10 * needed + 1_000_000:  # the optimizer's are there, too
            raise ValueError(f"it holds {held:,} numbers, the model {needed:,}")
        expected = file.attrs.get(DIGEST)
        if expected is not None and expected != _digest(file):
            raise ValueError("its content has changed since it was written")
    with reading(path, "weights of this model", "Give weights of a model of the same settings."):
        model.load_weights(path)
    check_finite(model, path)


def load_model_file(path: str | Path) -> keras.Model:
    """The model of a `.keras` file, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        BrokenFileError: for a file that is damaged or holds a weight that is not a finite number.
    """
    path = regular(path, REMEDY)
    with reading(path, "a model", REMEDY):
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, SLACK + 10 * path.stat().st_size)  # Keras does not compress
            damaged = archive.testzip()  # Keras reads on where a checksum is wrong
            if damaged is not None:
                raise ValueError(f"its part {damaged} has changed since it was written")
        model = keras.models.load_model(path, compile=False)
    check_finite(model, path)
    return model


def check_finite(model: keras.Model, path: Path) -> None:
    """Refuses weights that are not finite numbers: every answer of theirs would be none.

    Raises:
        BrokenFileError: if there is one; the message names the file and the weight.
    """
    for weight in model.weights:
        if not keras.backend.is_float_dtype(weight.dtype):
            continue
        values = keras.ops.convert_to_numpy(weight)
        if not np.isfinite(values).all():
            raise BrokenFileError(
                "it holds a weight that is not a finite number.",
                path=path,
                place=f"weight {weight.path}",
                remedy="Train anew, or take the weights of an earlier epoch.",
            )


def check_suffix(path: Path) -> str:
    """The ending of a model file; an error if it is none."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    endings = " or ".join(SUFFIXES)
    raise ValueError(f"The file name must end in {endings}. Received: {path.name}.")


def recipe_of(path: str | Path) -> Recipe | None:
    """The recipe in a model file; `None` if there is none.

    Raises:
        FileNotFoundError: if there is no such file.
        BrokenFileError: for a damaged file.
    """
    path = Path(path)
    suffix, text = check_suffix(path), None
    path = regular(path, REMEDY)
    with reading(path, "a model file", REMEDY):
        if suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                if MEMBER in archive.namelist():
                    check_unpacked(archive, SLACK + 10 * path.stat().st_size)
                    text = archive.read(MEMBER).decode()
        else:
            text = attribute(path, MEMBER)
        return None if text is None else Recipe.from_json(str(text))


def attribute(path: Path, name: str) -> Any:
    """An attribute of a `.weights.h5` file; `None` if it has none of this name."""
    import h5py

    with h5py.File(path, "r") as file:
        value = file.attrs.get(name)
    return value.item() if isinstance(value, np.generic) else value


def _arrays(file) -> dict[str, Any]:
    """The arrays of an HDF5 file by their paths, in a fixed order."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(note)
    return dict(sorted(found.items()))


def _digest(file) -> str:
    """The SHA-256 of all arrays: their paths, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in _arrays(file).items():
        values = np.ascontiguousarray(array[()])
        kind = array.attrs.get("dtype", "")  # Keras' note on types that HDF5 does not know
        digest.update(f"{name} {values.dtype} {kind} {array.shape}\n".encode())
        plain = values.dtype.kind in "biufV"
        digest.update(values.tobytes() if plain else repr(values).encode())
    return digest.hexdigest()
