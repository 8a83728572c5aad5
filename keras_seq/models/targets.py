"""What a model is trained towards: the shape of targets, and labels that exist."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops


def check_targets(y, accepted: Sequence[tuple], predictions: tuple, what: str, remedy: str) -> None:
    """Refuses targets whose shape does not belong to the predictions.

    Args:
        y: the targets.
        accepted: the shapes that are right; `None` stands for a size that is not known.
        predictions: the shape of the predictions.
        what: what the targets hold, in words.
        remedy: what to do, in a sentence or two.

    Raises:
        ValueError: if the targets have another shape.
    """
    shape = tuple(y.shape)
    for right in accepted:
        if len(shape) == len(right) and all(
            one is None or other is None or one == other
            for one, other in zip(shape, right, strict=True)
        ):
            return
    rights = " or ".join(shape_in_words(right) for right in accepted)
    raise ValueError(
        f"`y` must hold {what}, of shape {rights}, for predictions of shape "
        f"{shape_in_words(predictions)}. Received: y of shape {shape_in_words(shape)}. {remedy}"
    )


def with_shape(y, shape: tuple):
    """Targets in a shape of as many elements; sizes may be scalar tensors."""
    same = len(y.shape) == len(shape) and all(
        isinstance(size, int) and size == own for size, own in zip(shape, y.shape, strict=True)
    )
    return ops.convert_to_tensor(y) if same else ops.reshape(y, shape)


def is_label(labels, classes: int):
    """Whether each label is a whole number from 0 to `classes` - 1."""
    labels = ops.convert_to_tensor(labels)
    right = ops.logical_and(labels >= 0, labels < classes)
    if "float" in ops.dtype(labels):
        right = ops.logical_and(right, ops.equal(labels, ops.floor(labels)))
    return right


def marked(losses, labels, classes: int):
    """The losses, with NaN in place of those of labels that do not exist."""
    nan = ops.full_like(losses, float("nan"))
    return ops.where(is_label(labels, classes), losses, nan)


def existing_ids(ids, count: int):
    """Ids, with one that no lookup finds in place of negative ones.

    Keras would count those from the end. A lookup refuses this one, or gives zeros where the
    device cannot refuse.
    """
    ids = ops.convert_to_tensor(ids)
    if ops.dtype(ids) not in ("int32", "int64"):
        ids = ops.cast(ids, "int32")
    return ops.where(ids < 0, ops.cast(count, ids.dtype), ids)


def check_ignored(ignore_class) -> int | None:
    """Returns the argument `ignore_class` after a check of its type."""
    if ignore_class is None:
        return None
    if isinstance(ignore_class, bool) or not isinstance(ignore_class, int | np.integer):
        raise ValueError(
            f"`ignore_class` must be an integer or None. Received: ignore_class={ignore_class!r}."
        )
    return int(ignore_class)


def check_labels(name: str, labels, classes: int, sample_weight=None, ignored=None) -> None:
    """Refuses arrays with labels that do not exist and that count.

    Args:
        name: of the argument.
        labels: (b, ...); no check is made of what is no array, such as a dataset.
        classes: how many labels there are.
        sample_weight: the weights that go with them.
        ignored: a further label, which does not count.

    Raises:
        ValueError: if there are such labels.
    """
    array = as_array(labels)
    if array is None or array.dtype.kind not in "iuf" or array.ndim == 0:
        return
    wrong = ~((array >= 0) & (array < classes))
    if array.dtype.kind == "f":
        wrong |= array != np.floor(array)
    if ignored is not None:
        wrong &= array != ignored
    if not wrong.any():
        return
    wrong &= _counts(array, as_array(sample_weight))
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        where = ", ".join(map(str, place))
        raise ValueError(
            f"`{name}` must hold whole numbers from 0 to {classes - 1}. Received: "
            f"{name}[{where}]={array[place]}. Elements that are not to count need a "
            "`sample_weight` of 0" + (", or `ignore_class`." if name == "y" else ".")
        )


def as_array(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, if it is an array that holds its values already."""
    if isinstance(value, np.ndarray):
        return value
    for method in ("to_numpy", "numpy"):
        if hasattr(value, method) and hasattr(value, "shape"):
            return np.asarray(getattr(value, method)())
    return None


def shape_in_words(shape: tuple) -> str:
    """A shape, with a question mark for a size that is not known."""
    sizes = ["?" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _counts(labels: np.ndarray, weights: np.ndarray | None):
    """Where the weight is not zero, in the shape of the labels."""
    if weights is None or weights.ndim == 0 or len(weights) != len(labels):
        return True
    rows = labels.reshape(len(labels), -1)
    weights = weights.reshape(len(labels), -1)
    if weights.shape[1] not in (1, rows.shape[1]):
        return True  # weights of a wrong shape are refused where they meet the loss
    return np.broadcast_to(weights != 0, rows.shape).reshape(labels.shape)
