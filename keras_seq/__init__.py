"""Sequence models of four papers for Keras 3 and TensorFlow.

Importing `keras_seq` registers every layer, model, metric and optimizer with Keras, so that
`keras.models.load_model` works at once. The sub-packages `zoo`, `pipelines`, `training`,
`generation`, `export`, `convert` and `tuning` load on first use.
"""

import importlib

from keras_seq import layers, losses, metrics, models, optimizers
from keras_seq._version import __version__

_LAZY = ("convert", "export", "generation", "pipelines", "training", "tuning", "zoo")

__all__ = ["__version__", "layers", "losses", "metrics", "models", "optimizers", *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"keras_seq.{name}")
    raise AttributeError(f"module 'keras_seq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
