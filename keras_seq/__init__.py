"""Sequence models of four papers for Keras 3 and TensorFlow.

Importing `keras_seq` registers every layer, model, metric and optimizer with Keras, so that
`keras.models.load_model` works at once. The sub-packages `zoo`, `pipelines`, `training`,
`generation`, `export`, `convert`, `tuning` and `analysis` load on first use.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keras_seq._version import __version__

# The command line (`keras-seq`, `python -m keras_seq`) loads Keras when a command needs it, so that
# its help answers at once.
_AS_MODULE = sys.argv[:1] == ["-m"] and "-m keras_seq " in f"{' '.join(sys.orig_argv)} "
_PROGRAM = _AS_MODULE or Path(*sys.argv[:1]).stem == "keras-seq"

if TYPE_CHECKING or not _PROGRAM:
    from keras_seq import gradients, layers, losses, metrics, models, optimizers, solvers
if TYPE_CHECKING:  # these load at first use
    from keras_seq import analysis, convert, export, generation, pipelines, training, tuning, zoo

__all__ = [
    "__version__",
    "analysis",
    "convert",
    "export",
    "generation",
    "gradients",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "pipelines",
    "solvers",
    "training",
    "tuning",
    "zoo",
]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"keras_seq.{name}")
    raise AttributeError(f"module 'keras_seq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
