"""Registration of public classes with Keras."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

PACKAGE = "keras_seq"  # part of every saved file: never change it

T = TypeVar("T", bound=type)


def export(path: str) -> Callable[[T], T]:
    """Registers a class with Keras under package `keras_seq` and notes its public path.

    Its constructor takes NumPy's numbers and arrays wherever it takes Python's numbers and lists of
    them, and sees the latter, so that configurations are JSON.

    Args:
        path: the public dotted path, for example `"keras_seq.layers.TrellisNet"`.
            `tests/test_public_api.py` checks that the class is found there.
    """

    def decorate(cls: T) -> T:
        cls.public_path = path
        if "__init__" in vars(cls):
            cls.__init__ = _takes_numpy(cls.__init__)
        return keras.saving.register_keras_serializable(package=PACKAGE)(cls)

    return decorate


def _takes_numpy(init: Callable) -> Callable:
    """A constructor that is given Python's numbers for NumPy's."""

    @functools.wraps(init)
    def wrapped(self, *args, **kwargs):
        init(self, *map(plain, args), **{name: plain(value) for name, value in kwargs.items()})

    wrapped.__signature__ = inspect.signature(init)  # type: ignore[attr-defined]  # Keras reads it
    return wrapped


def plain(value: Any) -> Any:
    """Python's number for one of NumPy's, also in lists and tuples, and a list for an array."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value
