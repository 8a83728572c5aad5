"""Rows of different length in one batch: which steps of the inputs of a model count."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_seq.models import _backend
from keras_seq.models.targets import as_array, shape_in_words
from keras_seq.ops.packing import Packing, check_mask, is_packed, lengths_of


class Given(NamedTuple):
    """The inputs of a model in their parts.

    Attributes:
        x: (b, t) ids or (b, t, d) floats.
        lengths: (b,) the number of steps of each row, those behind them are padding; or `None`.
        mask: (b, t), true at valid steps; or `None`.
    """

    x: Any
    lengths: Any = None
    mask: Any = None

    @classmethod
    def of(cls, inputs: Any, of_ids: bool = False) -> "Given":
        """The parts of what a model was given: `x` itself, or a dictionary.

        Args:
            inputs: a tensor or array; or a dictionary of `"inputs"` and `"lengths"` or `"mask"`.
            of_ids: whether the inputs may be called `"ids"` too.

        Raises:
            ValueError: for other keys.
        """
        if not isinstance(inputs, Mapping):
            return cls(inputs)
        names = ("ids", "inputs") if of_ids else ("inputs",)
        given = [name for name in names if name in inputs]
        others = sorted(set(map(str, inputs)) - {*names, "lengths", "mask"})
        if len(given) != 1 or others or {"lengths", "mask"} <= set(inputs):
            raise ValueError(
                f"`inputs` must be an array, or a dictionary of {' or '.join(map(repr, names))} "
                "and, where rows are padded, 'lengths' (b,) or 'mask' (b, t). Received: a "
                f"dictionary of {sorted(map(str, inputs))}."
            )
        return cls(inputs[given[0]], inputs.get("lengths"), inputs.get("mask"))


class ValidSteps:
    """The valid steps of each row of a batch, moved to its front and back to their places.

    Args:
        mask: (b, t), true at valid steps. One whose rows are true first, marked so, is of inputs
            that stand so already.
        at_front: whether all masked steps stand at the ends of the rows.

    Attributes:
        mask: (b, t), true at as many first steps of each row as it has valid ones.
        valid: (b, t), true at valid steps.
    """

    def __init__(self, mask: Any, at_front: bool = False):
        self.valid = mask if is_packed(mask) else ops.cast(mask, "bool")
        self._packing = None if is_packed(mask) else Packing(self.valid, at_front)
        self.mask = mask if self._packing is None else self._packing.mask

    @property
    def lengths(self):
        """(b,) the number of valid steps of each row."""
        return lengths_of(self.mask)

    def pack(self, x):
        """(b, t, ...) with the valid steps of each row in front and zeros behind them."""
        return x if self._packing is None else self._packing.pack(x)

    def place(self, x):
        """Values (b, t, ...) of packed steps in the places of the steps.

        A masked step gets the value of the last valid one before it; zeros, if there is none.
        """
        return x if self._packing is None else self._packing.unpack(x)


def valid_steps(given: Given, carried: Any = None, zero: bool = False) -> ValidSteps | None:
    """Which steps count: those that nothing leaves out.

    Args:
        given: the inputs in their parts.
        carried: a further mask (b, t), such as that of Keras which the inputs carry.
        zero: whether the id 0 stands for padding.

    Returns:
        The steps, or `None` where all count.

    Raises:
        ValueError: for masks or lengths of another shape.
    """
    if carried is not None and given.mask is None and given.lengths is None and not zero:
        check_mask(carried, given.x)
        return ValidSteps(carried)
    masks = [mask for mask in (carried, given.mask) if mask is not None]
    for mask in masks:
        check_mask(mask, given.x)
    if zero:
        masks.append(ops.not_equal(given.x, 0))
    first = None
    if given.lengths is not None:
        first = _first(given.lengths, given.x)
        if not masks:
            return ValidSteps(first, at_front=True)
        masks.append(first)
    if not masks:
        return None
    mask, *others = (ops.cast(mask, "bool") for mask in masks)
    for other in others:
        mask = ops.logical_and(mask, other)
    return ValidSteps(mask)


def mask_in_arrays(given: Given, zero: bool = False) -> np.ndarray | None:
    """The mask (b, t) of inputs that are arrays; `None` without one, or for other data.

    Raises:
        ValueError: for masks or lengths that belong to no such inputs.
    """
    x, mask = as_array(given.x), None
    if x is None or x.ndim < 2:
        return None
    if given.lengths is not None:
        lengths = as_array(given.lengths)
        if lengths is None:
            return None
        _check_lengths(lengths, x)
        wrong = (lengths < 0) | (lengths > x.shape[1]) | (lengths != np.floor(lengths))
        if wrong.any():
            raise ValueError(
                f"`lengths` must be whole numbers from 0 to t = {x.shape[1]}. Received: "
                f"lengths[{int(np.argmax(wrong))}]={lengths[wrong][0]}."
            )
        mask = np.arange(x.shape[1]) < lengths[:, None]
    if given.mask is not None:
        own = as_array(given.mask)
        if own is None:
            return None
        check_mask(own, x)
        if not np.isin(own, (0, 1)).all():
            raise ValueError(
                "`mask` must be true or 1 at valid steps, false or 0 at others. Received: a mask "
                f"with {own[~np.isin(own, (0, 1))][0]}."
            )
        mask = own.astype(bool)
    if zero:
        mask = x != 0 if mask is None else mask & (x != 0)
    return mask


def with_arrays(inputs: Any) -> Any:
    """Inputs with arrays in place of lists within a dictionary."""
    if not isinstance(inputs, Mapping):
        return inputs
    return {
        name: np.asarray(value) if isinstance(value, list | tuple) else value
        for name, value in inputs.items()
    }


def _first(lengths, x):
    """(b, t), true at so many first steps."""
    _check_lengths(lengths, x)
    steps = ops.shape(x)[1]
    given, lengths = lengths, ops.cast(lengths, "int32")
    right = ops.logical_and(lengths >= 0, lengths <= steps)
    if "int" not in keras.backend.standardize_dtype(given.dtype):
        # Keras builds models under a strategy with floats in place of whole numbers.
        right = ops.logical_and(right, ops.equal(ops.cast(lengths, given.dtype), given))
    message = "`lengths` must be whole numbers from 0 to t."
    lengths = _backend.require(right, message, lengths)
    return ops.expand_dims(ops.arange(steps, dtype="int32"), 0) < ops.expand_dims(lengths, 1)


def _check_lengths(lengths, x) -> None:
    shape, rows = tuple(lengths.shape), x.shape[0]
    if len(shape) != 1 or (None not in (shape[0], rows) and shape[0] != rows):
        raise ValueError(
            "`lengths` must be whole numbers of shape (b,), the steps of each row. Received: "
            f"lengths of shape {shape_in_words(shape)} for inputs of shape "
            f"{shape_in_words(tuple(x.shape))}."
        )
