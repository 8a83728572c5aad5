"""Weights that are stored small and given back their type in the graph."""

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

KINDS = ("int8", "bfloat16")
SMALLEST = 256  # elements; what has fewer stays as it is


class StoredWeights:
    """How the weights of a model are stored in an export.

    Matrices, tables and kernels are stored as `kind`; vectors and whatever is small keep their
    type. `bfloat16` rounds to 8 significant bits. `int8` stores w as round(w / s) with a scale s
    for each index of the last axis (of a kernel: each output) or of the first one (of a table: each
    row), whichever comes closer to the weights. In the graph they are float32 again before anything
    is computed, so that computations and signatures are those of the model.

    Args:
        model: a built model.
        kind: `"int8"`, `"bfloat16"`, or `None` to store the weights as they are.

    Raises:
        ValueError: for another `kind`.
    """

    def __init__(self, model: keras.Model, kind: str | None = None):
        if kind is not None and kind not in KINDS:
            raise ValueError(
                f"`weights_as` must be one of {KINDS}, or `None` to store the weights as they "
                f"are. Received: weights_as={kind!r}."
            )
        self.kind = kind
        self._stored: dict[int, tuple[Any, ...]] = {}
        for weight in model.weights if kind else ():
            real = tf.as_dtype(weight.dtype).is_floating
            if real and len(weight.shape) > 1 and np.prod(weight.shape) >= SMALLEST:
                self._stored[id(weight)] = _small(keras.ops.convert_to_numpy(weight), kind)

    def __len__(self) -> int:
        """Number of weights that are stored small."""
        return len(self._stored)

    def scope(self) -> contextlib.AbstractContextManager:
        """While it is open, the model computes with the stored weights. For traced functions."""
        return _Scope(self._stored) if self._stored else contextlib.nullcontext()


class _Scope(keras.StatelessScope):
    """Answers for the weights of the model, each restored once a graph."""

    def __init__(self, stored: dict[int, tuple[Any, ...]]):
        super().__init__()
        self._stored = stored
        # A weight may be read first inside of a loop; its value belongs outside, for all to read.
        self._graph = tf.compat.v1.get_default_graph()

    def get_current_value(self, variable) -> Any:
        key = id(variable)
        if key in self._stored and key not in self.state_mapping:
            with self._graph.as_default():
                self.state_mapping[key] = _restored(self._stored[key], variable.dtype)
        return self.state_mapping.get(key)


def _small(values: np.ndarray, kind: str | None) -> tuple[Any, ...]:
    """The variables that hold an array: itself in bfloat16, or integers and scales."""
    if kind == "bfloat16":
        return (tf.Variable(tf.cast(values, tf.bfloat16), trainable=False, name="weight"),)
    values = values.astype("float64")
    best: tuple[float, Any, Any] | None = None
    for axis in (values.ndim - 1, 0):
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-30)
        scale = scale.astype("float32")
        integers = np.clip(np.rint(values / scale), -127, 127)
        error = float(np.square(values - integers * scale).sum())
        if best is None or error < best[0]:
            best = (error, integers.astype("int8"), scale)
    _, integers, scale = best or (0.0, values, values)
    return (
        tf.Variable(integers, trainable=False, name="weight"),
        tf.Variable(scale, trainable=False, name="scale"),
    )


def _restored(stored: tuple[Any, ...], dtype: str) -> Any:
    value = tf.cast(stored[0], dtype)
    return value * tf.cast(stored[1], dtype) if len(stored) > 1 else value
