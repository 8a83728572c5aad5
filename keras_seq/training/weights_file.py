"""Weight files that say which recipe they belong to."""

import zipfile
from pathlib import Path

import keras

from keras_seq.training import files
from keras_seq.zoo import Recipe

MEMBER = "keras_seq_recipe.json"
SUFFIXES = (".weights.h5", ".keras")


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
    with files.atomic(path, suffix) as temporary:
        if suffix == ".keras":
            model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(MEMBER, recipe.to_json())
        else:
            model.save_weights(temporary)
            _h5_write(temporary, recipe.to_json())
    return path


def check_suffix(path: Path) -> str:
    """The ending of a model file; an error if it is none."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    endings = " or ".join(SUFFIXES)
    raise ValueError(f"The file name must end in {endings}. Received: {path.name}.")


def recipe_of(path: str | Path) -> Recipe | None:
    """The recipe in a model file; `None` if there is none."""
    path = Path(path)
    text = None
    if check_suffix(path) == ".keras":
        with zipfile.ZipFile(path) as archive:
            if MEMBER in archive.namelist():
                text = archive.read(MEMBER).decode()
    else:
        import h5py

        with h5py.File(path, "r") as file:
            text = file.attrs.get(MEMBER)
    return None if text is None else Recipe.from_json(str(text))


def _h5_write(path: Path, text: str) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        file.attrs[MEMBER] = text
