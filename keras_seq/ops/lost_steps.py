"""Steps that are not finite, kept from what must not see them.

A product of a probability of zero with NaN is NaN, in a layer's output and in its gradient. So
zeros take the place of steps that are not finite, and the outputs that should have seen them are
marked. What an output does not see cannot reach it, nor the gradient of its inputs.
"""

from keras import ops

from keras_seq._dtypes import float32_at_least, largest


def finite_steps(*tensors):
    """Which steps are finite in all of some tensors (..., t, d): booleans (..., t)."""
    wide = float32_at_least(tensors[0].dtype)
    # A sum is not finite if a part is not: one pass, where a test of each part would be three.
    total = sum(ops.sum(ops.cast(tensor, wide), axis=-1) for tensor in tensors)
    return ops.abs(total) <= largest(wide)


def only(steps, tensor):
    """(..., t, d) with zeros at all but some steps, booleans (..., t)."""
    # Never turned round: optimizers take `not (x <= y)` for `x > y`, which does not hold for NaN.
    return ops.where(ops.expand_dims(steps, -1), tensor, ops.cast(0, tensor.dtype))


def seen_lost(finite, ahead, length, span: int | None):
    """How many steps that are not finite each query sees.

    Args:
        finite: (b, s) booleans; the last t of the s steps are those of the queries.
        ahead: s - t.
        length: t.
        span: how many steps a query sees, its own included; `None` for all.

    Returns:
        (b, t), float32.
    """
    count = ops.cumsum(ops.where(finite, 0.0, 1.0), axis=1)
    if span is None:
        return count[:, ahead:]
    return count[:, ahead:] - ops.pad(count, [[0, 0], [span, 0]])[:, ahead : ahead + length]


def marked(outputs, count):
    """NaN in the outputs (..., t, d) that saw steps that are not finite, from `seen_lost`."""
    # A root, for a NaN that is a constant would be one in a healthy graph too.
    nan = ops.cast(ops.sqrt(-count), outputs.dtype)
    return ops.where(ops.expand_dims(count > 0, -1), ops.expand_dims(nan, -1), outputs)
