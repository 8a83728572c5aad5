"""Trained weights that ship with the package.

A set of weights is a folder `shipped/MODEL/NAME/` with the weights in half precision, the recipe
that trained them, the vocabulary of a text, a description for people (`README.md`) and
`manifest.json`, which holds the SHA-256 of the other files and the figures. Every file is checked
before it is used.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_seq._files import set_aside
from keras_seq._reading import BrokenFileError, read_object
from keras_seq.zoo.recipe import Recipe

FOLDER = Path(__file__).resolve().parent / "shipped"
MANIFEST = "manifest.json"
WEIGHTS = "model.weights.h5"
RECIPE = "recipe.json"
VOCABULARY = "vocabulary.txt"
CARD = "README.md"


@dataclass(frozen=True)
class ShippedWeights:
    """A set of trained weights of a model of the zoo.

    Attributes:
        model: the zoo's name of the model.
        name: the name of the set.
        folder: where its files are.
    """

    model: str
    name: str
    folder: Path

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of `manifest.json`: hashes, data, command, figures, versions."""
        remedy = "Install the package anew, or pack the weights again."
        path = self.folder / MANIFEST
        manifest = read_object(path, "a manifest", remedy)
        for name in ("sha256", "figures"):
            if not isinstance(manifest.get(name), dict):
                raise BrokenFileError(f"it lacks `{name}`.", path=path, remedy=remedy)
        return manifest

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """What the weights were measured to give, by split."""
        return self.manifest["figures"]

    @property
    def card(self) -> str:
        """The description for people, in Markdown."""
        return self.checked(CARD).read_text(encoding="utf-8")

    @property
    def recipe(self) -> Recipe:
        """The recipe that trained the weights, with all changes."""
        return Recipe.from_json(self.checked(RECIPE).read_text(encoding="utf-8"))

    @property
    def vocabulary_file(self) -> Path | None:
        """The vocabulary's file; `None` for a model without one."""
        stem = Path(VOCABULARY).stem
        for name in self.manifest["sha256"]:  # a file of its settings may lie beside it
            if Path(name).stem == stem:
                self.checked(name)
        return self.folder / VOCABULARY if VOCABULARY in self.manifest["sha256"] else None

    def checked(self, name: str) -> Path:
        """The path of a file, once its content has proved to be what was packed.

        Raises:
            ValueError: if the file is missing or was changed.
        """
        path, expected = self.folder / name, self.manifest["sha256"].get(name)
        found = sha256(path) if path.is_file() else "no file"
        if found != expected:
            raise ValueError(
                f"{path} is not the file that was packed. Expected SHA-256: {expected}, found: "
                f"{found}. Install the package anew. {known(self.model)}"
            )
        return path

    def load_into(self, model: keras.Model) -> None:
        """Fills a model that was built with the settings of the recipe.

        Raises:
            ValueError: if the files were changed, or the model is of other sizes.
        """
        path = self.checked(WEIGHTS)
        try:
            model.load_weights(path)
        except ValueError as error:
            raise ValueError(
                f"The weights {self.name!r} of {self.model} belong to a model with the settings "
                f"of {self.folder / RECIPE}, not to this one. Leave out settings that change "
                f"sizes. ({error})"
            ) from error


def weights(model: str | None = None) -> list[ShippedWeights]:
    """The trained weights that ship with the package.

    Args:
        model: of this model only; `None` for all.

    Example:

    >>> [shipped.name for shipped in keras_seq.zoo.weights("trellisnet_python_docs")]
    ['python_docs']
    """
    found: list[ShippedWeights] = []
    for own in sorted(FOLDER.glob("*")):
        if model not in (None, own.name):
            continue
        sets = {manifest.parent.name: manifest.parent for manifest in own.glob(f"[!.]*/{MANIFEST}")}
        sets |= set_aside(own)  # by a writer that was killed
        found += [ShippedWeights(own.name, name, sets[name]) for name in sorted(sets)]
    return found


def find(model: str, name: str) -> ShippedWeights:
    """A set of weights.

    Args:
        model: the zoo's name of the model.
        name: the name of the set.

    Raises:
        ValueError: if it does not exist; the message lists what does.
    """
    for shipped in weights(model):
        if shipped.name == name:
            return shipped
    raise ValueError(f"There are no shipped weights {name!r} of {model}. {known(model)}")


def known(model: str) -> str:
    """A sentence on what ships for a model, and else on what ships at all."""
    own = [shipped.name for shipped in weights(model)]
    if own:
        return f"Those of {model} are: {', '.join(own)}."
    every = ", ".join(f"{shipped.model} ({shipped.name})" for shipped in weights())
    return f"None ship for {model}. There are: {every or 'none'}."


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
