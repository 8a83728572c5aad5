"""What an export says about itself."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import keras
import tensorflow as tf

from keras_seq._version import __version__
from keras_seq.export.signatures import Signature


def describe(
    model: keras.Model, signatures: Mapping[str, Signature], recipe, metrics
) -> dict[str, Any]:
    """The content of `assets.extra/keras_seq.json`, without what the exporter adds.

    Args:
        model: the model.
        signatures: what is exported of it.
        recipe: the recipe that trained it, or `None`.
        metrics: its figures, or `None`.
    """
    if recipe is not None and hasattr(recipe, "to_json"):
        recipe = json.loads(recipe.to_json())
    return {
        "class": type(model).__name__,
        "parameters": model.count_params(),
        "precision": model.dtype_policy.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "keras_seq": __version__,
            "keras": keras.version(),
            "tensorflow": tf.version.VERSION,
            "python": platform.python_version(),
        },
        "signatures": {
            key: {"inputs": _shapes(value.inputs), "outputs": _shapes(value.outputs)}
            for key, value in signatures.items()
        },
        "metrics": None if metrics is None else dict(metrics),
        "recipe": recipe,
    }


def _shapes(tensors) -> dict[str, Any]:
    return {
        name: {
            "dtype": tensor.dtype.name,
            "shape": None if tensor.shape.rank is None else tensor.shape.as_list(),
        }
        for name, tensor in tensors.items()
    }
