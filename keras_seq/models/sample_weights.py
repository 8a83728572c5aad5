"""Weights of samples and of steps: how they line up with a loss, and what weight zero means."""

from typing import Any

import numpy as np
from keras import ops

from keras_seq.models.targets import as_array, is_label, shape_in_words
from keras_seq.ops.packing import over


def for_each_step(sample_weight, targets) -> bool:
    """Whether weights (b, t) were given, which say for each step whether it counts."""
    if sample_weight is None or len(sample_weight.shape) < 2:
        return False
    return sample_weight.shape[1] != 1 or targets.shape[1] == 1


def aligned(sample_weight, like, dtype: str):
    """Weights for each element of a loss.

    Args:
        sample_weight: (b,) or (b, 1), one weight a sequence; or (b, t), one a step, for a loss of
            each step. `None` for none.
        like: a tensor whose shape begins with that of the loss.
        dtype: the type of the result.

    Returns:
        (b,) or (b, t), as the first axes of `like`, or `None`.

    Raises:
        ValueError: if the weights have another shape.
    """
    if sample_weight is None:
        return None
    shape, expected = tuple(sample_weight.shape), tuple(like.shape)
    fits = 1 <= len(shape) <= 2 and _may_equal(shape[0], expected[0])
    if fits and len(shape) == 2 and shape[1] != 1:
        fits = len(expected) == 2 and _may_equal(shape[1], expected[1])
    if not fits:
        each = "(b,) or (b, 1) for each sequence"
        each += ", or (b, t) for each step" if len(expected) == 2 else ""
        raise ValueError(
            f"`sample_weight` must have shape {each}; the loss of this model has shape "
            f"{shape_in_words(expected)}. Received: sample_weight of shape {shape_in_words(shape)}."
        )
    weights = ops.cast(sample_weight, dtype)
    if len(expected) == 1:
        return ops.reshape(weights, ops.shape(like))
    if len(shape) == 1:
        weights = ops.expand_dims(weights, 1)
    return ops.broadcast_to(weights, ops.shape(like))


def in_arrays(sample_weight, mask: np.ndarray | None, y) -> Any:
    """Which elements of targets in arrays count, from their weights and the mask of the inputs.

    Args:
        sample_weight: see `aligned`.
        mask: (b, t), or `None` for the weights as they are.
        y: the targets.
    """
    labels, weights = as_array(y), as_array(sample_weight)
    if mask is None or labels is None or (sample_weight is not None and weights is None):
        return sample_weight
    counts: Any = mask if labels.shape[:2] == mask.shape else mask.any(axis=1)
    if weights is None or weights.ndim not in (1, 2):
        return counts
    rows = weights.reshape(len(weights), -1)
    if len(rows) != len(counts) or rows.shape[1] not in (1, *counts.shape[1:]):
        return counts  # weights of a wrong shape are refused where they meet the loss
    return (rows != 0) & counts if counts.ndim == 2 else (rows[:, 0] != 0) & counts


def blank(values, weights):
    """The values (b, ...) with zeros where the weight is zero, whatever was there.

    A product with the weight would keep NaN and infinity, in the value and in its gradient.
    """
    if weights is None:
        return values
    return ops.where(over(weights, values) == 0, ops.zeros_like(values), values)


def without_unread(x, weights, causal: bool = True):
    """The inputs with zeros at steps that no element of a weight other than zero depends on.

    In a causal model an input reaches its own step and later ones; in another one, all of its row.
    What zeros hide would otherwise come back in the gradient, where zero times NaN is NaN.

    Args:
        x: (b, t, ...).
        weights: (b,) or (b, t), or `None`.
        causal: whether the model is causal.
    """
    if weights is None:
        return x
    if len(weights.shape) == 1:
        return blank(x, weights)
    if not causal:
        return blank(x, ops.max(ops.abs(weights), axis=1))
    places = ops.arange(ops.shape(weights)[1])
    last = ops.max(ops.where(weights == 0, -1, places), axis=1, keepdims=True)
    return blank(x, ops.cast(places <= last, weights.dtype))


def class_weight_table(class_weight, classes: int | None) -> tuple[float, ...] | None:
    """The weight of each class, from the dictionary that `fit` takes; 1 where it names none.

    Raises:
        ValueError: if the model has no classes, or the dictionary names others.
    """
    if class_weight is None:
        return None
    if classes is None:
        raise ValueError(
            "`class_weight` needs a model whose targets are classes. Received: "
            f"class_weight={class_weight!r}. Give `sample_weight`."
        )
    wrong = [key for key in class_weight if not (_whole(key) and 0 <= key < classes)]
    if wrong:
        raise ValueError(
            f"`class_weight` must map classes from 0 to {classes - 1} to weights. Received: "
            f"class_weight with {', '.join(map(repr, wrong[:3]))}."
        )
    return tuple(float(class_weight.get(label, 1.0)) for label in range(classes))


def class_weights_of(labels, table: tuple[float, ...], dtype: str):
    """The weight of each label's class; 1 for a label that does not exist."""
    exists = is_label(labels, len(table))
    places = ops.where(exists, ops.cast(labels, "int32"), 0)
    weights = ops.take(ops.convert_to_tensor(table, dtype), places, axis=0)
    return ops.where(exists, weights, ops.ones_like(weights))


def _may_equal(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other


def _whole(key) -> bool:
    return not isinstance(key, bool | str) and key == int(key)
