"""Rows of different length in one batch: valid steps in front, and back in their places.

A masked step is left out. What reads a sequence step by step then needs to know nothing of masks:
the valid steps of each row are moved to its front, in their order, and zeros stand behind them.
Where causal layers give an output for a valid step, nothing behind it has been seen.
"""

import contextlib
from typing import Any

import keras
from keras import ops


class Packing:
    """Where the valid steps of each row of a batch stand.

    Args:
        mask: (b, t), true at valid steps.
        at_front: whether these are known to be the first ones of each row.

    Attributes:
        mask: (b, t) booleans, true at the first steps of each row, as many as it has valid ones.
    """

    def __init__(self, mask: Any, at_front: bool = False):
        mask = ops.cast(mask, "bool")
        length = ops.shape(mask)[1]
        steps = ops.arange(length, dtype="int32")
        seen = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        self.mask = mark_packed(steps < seen[:, -1:])
        order = steps
        if not at_front:
            # All keys differ, so that any sort keeps the order of the valid steps.
            order = ops.argsort(ops.where(mask, steps, steps + length), axis=1)
        # Where what stands at a step comes from; -1 for nowhere.
        self._packed = ops.where(self.mask, order, -1)
        self._unpacked = ops.where(mask, seen - 1, -1)
        self._repeated = seen - 1

    def pack(self, x):
        """(b, t, ...) with the valid steps in front and zeros behind them."""
        return _moved(x, self._packed, self._unpacked)

    def unpack(self, outputs, zeros: bool = False):
        """Outputs (b, t, ...) of packed steps in the places of the steps.

        Args:
            outputs: the outputs.
            zeros: whether masked steps get zeros; else the output of the last valid step before
                them, and zeros where there is none.
        """
        if zeros:
            return _moved(outputs, self._unpacked, self._packed)
        return _taken(outputs, self._repeated)

    def unpack_pairs(self, pairs):
        """Values (b, h, t, p + t) of packed queries and keys in the places of the steps.

        Args:
            pairs: the values; the first p keys are those of steps before the t ones.
        """
        past = ops.shape(pairs)[3] - ops.shape(pairs)[2]
        pairs = ops.transpose(self.unpack(ops.transpose(pairs, (0, 2, 1, 3))), (0, 3, 2, 1))
        keys = self.unpack(pairs[:, past:], zeros=True)
        return ops.transpose(ops.concatenate([pairs[:, :past], keys], axis=1), (0, 2, 3, 1))


def mark_packed(mask):
    """A mask whose rows are true first and then false, marked so that none packs it again."""
    # Tensors of some backends take no marks; packing such a mask again changes nothing.
    with contextlib.suppress(AttributeError):
        mask._keras_seq_packed = True
    return mask


def is_packed(mask) -> bool:
    """Whether a mask is marked as one whose rows are true first and then false."""
    return getattr(mask, "_keras_seq_packed", False)


def take_steps(x, places):
    """(b, s, ...): steps of (b, t, ...) at places (b, s) of each row."""
    batch, length, *inner = ops.shape(x)
    flat = ops.reshape(x, (batch * length, *inner))
    taken = ops.take(flat, ops.reshape(places + _first(batch, length), (-1,)), axis=0)
    return ops.reshape(taken, (batch, ops.shape(places)[1], *inner))


def _first(batch, length):
    """(b, 1) the first step of each row among the steps of all rows."""
    return ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)


def _taken(x, places):
    """(b, s, ...): as `take_steps`, with zeros where a place is -1."""
    batch, length, *inner = ops.shape(x)
    flat = ops.reshape(x, (batch * length, *inner))
    # A row of zeros to take, for a choice between all values costs more than this copy.
    flat = ops.concatenate([ops.zeros((1, *inner), x.dtype), flat], axis=0)
    places = ops.where(places < 0, 0, places + _first(batch, length) + 1)
    taken = ops.take(flat, ops.reshape(places, (-1,)), axis=0)
    return ops.reshape(taken, (batch, ops.shape(places)[1], *inner))


def _moved(x, places, back):
    """(b, t, ...) as `_taken`, from places that differ, with the way back as its gradient."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return _taken(x, places)

    @ops.custom_gradient
    def move(x):
        def gradient(*arguments, upstream=None):
            (given,) = keras.tree.flatten(arguments if upstream is None else upstream)
            return _moved(given, back, places)

        return _taken(x, places), gradient

    return move(x)


def lengths_of(mask):
    """(b,) the number of valid steps of each row."""
    return ops.sum(ops.cast(mask, "int32"), axis=1)


def last_valid(sequence, mask, before):
    """The value of (b, t, ...) at the last valid step of each row: (b, ...).

    Args:
        sequence: the values.
        mask: (b, t), true first.
        before: (b, ...) the value of rows without valid steps.
    """
    lengths = lengths_of(mask)
    last = take_steps(sequence, ops.expand_dims(ops.maximum(lengths - 1, 0), 1))[:, 0]
    return choose_rows(lengths > 0, last, ops.cast(before, last.dtype))


def choose_rows(rows, one, other):
    """Rows of one tensor (b, ...) where the booleans (b,) are true, of the other elsewhere."""
    return ops.where(over(rows, one), one, other)


def last_steps(joined, mask, size: int):
    """The `size` steps of each row that end with its last valid one: (b, size, ...).

    Args:
        joined: (b, past + t, ...) what was before and the t steps of the mask.
        mask: (b, t), true first.
        size: at most `past`, which may be a tensor.
    """
    past = ops.shape(joined)[1] - ops.shape(mask)[1]
    first = lengths_of(mask) + past - size
    return take_steps(joined, ops.expand_dims(first, 1) + ops.arange(size, dtype="int32"))


def over(leading, values):
    """A tensor of the leading axes with further ones of size one, up to those of the values."""
    ones = (1 for _ in values.shape[len(leading.shape) :])
    return ops.reshape(leading, (*ops.shape(leading), *ones))


def check_mask(mask: Any, x: Any) -> None:
    """Refuses a mask that does not belong to the steps of x (b, t, ...).

    Raises:
        ValueError: says both shapes.
    """
    shape, steps = tuple(getattr(mask, "shape", ())), tuple(x.shape)[:2]
    if len(shape) != 2 or any(
        None not in pair and pair[0] != pair[1] for pair in zip(shape, steps, strict=False)
    ):
        raise ValueError(
            f"`mask` must have shape (b, t), true at valid steps. Received: mask of shape {shape} "
            f"for (b, t) = {steps}."
        )
