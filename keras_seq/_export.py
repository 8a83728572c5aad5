"""Registration of public classes with Keras."""

from collections.abc import Callable
from typing import TypeVar

import keras

PACKAGE = "keras_seq"  # part of every saved file: never change it

T = TypeVar("T", bound=type)


def export(path: str) -> Callable[[T], T]:
    """Registers a class with Keras under package `keras_seq` and notes its public path.

    Args:
        path: the public dotted path, for example `"keras_seq.layers.TrellisNet"`.
            `tests/test_public_api.py` checks that the class is found there.
    """

    def decorate(cls: T) -> T:
        cls.public_path = path
        return keras.saving.register_keras_serializable(package=PACKAGE)(cls)

    return decorate
