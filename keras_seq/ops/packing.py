"""Rows of different length in one batch: valid steps in front, and back in their places.

A masked step is left out. What reads a sequence step by step then needs to know nothing of masks:
the valid steps of each row are moved to its front, in their order, and zeros stand behind them.
Where causal layers give an output for a valid step, nothing behind it has been seen.
"""

import contextlib
from typing import Any

from keras import ops


class Packing:
    """Where the valid steps of each row of a batch stand.

    Args:
        mask: (b, t), true at valid steps.

    Attributes:
        mask: (b, t) booleans, true at the first steps of each row, as many as it has valid ones.
    """

    def __init__(self, mask: Any):
        mask = ops.cast(mask, "bool")
        length = ops.shape(mask)[1]
        steps = ops.arange(length, dtype="int32")
        seen = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        self._valid = mask
        self._seen = seen
        # All keys differ, so that any sort keeps the order of the valid steps.
        self._order = ops.argsort(ops.where(mask, steps, steps + length), axis=1)
        self.mask = mark_packed(steps < seen[:, -1:])

    def pack(self, x):
        """(b, t, ...) with the valid steps in front and zeros behind them."""
        packed = take_steps(x, self._order)
        return ops.where(_over(self.mask, packed), packed, ops.zeros_like(packed))

    def unpack(self, outputs, zeros: bool = False):
        """Outputs (b, t, ...) of packed steps in the places of the steps.

        Args:
            outputs: the outputs.
            zeros: whether masked steps get zeros; else the output of the last valid step before
                them, and zeros where there is none.
        """
        placed = take_steps(outputs, ops.maximum(self._seen - 1, 0))
        known = self._valid if zeros else self._seen > 0
        return ops.where(_over(known, placed), placed, ops.zeros_like(placed))

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
    rows = ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)
    flat = ops.reshape(x, (batch * length, *inner))
    taken = ops.take(flat, ops.reshape(places + rows, (-1,)), axis=0)
    return ops.reshape(taken, (batch, ops.shape(places)[1], *inner))


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
    return ops.where(_over(rows, one), one, other)


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


def _over(booleans, values):
    """Booleans with axes of size one at the end, up to those of the values."""
    ones = (1 for _ in values.shape[len(booleans.shape) :])
    return ops.reshape(booleans, (*ops.shape(booleans), *ones))
