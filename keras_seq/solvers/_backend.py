"""Buffers of solvers that are written in place, where the backend can."""

from typing import Any

import keras

from keras_seq._backend import tf, traced_for_xla, wants_portable_operations


def own_zeros(shape, dtype):
    """Zeros that no other tensor shares, to be written to by `write_rows`.

    Plain zeros may become a constant of the graph, and two of one shape may become one.
    """
    if tf is None or wants_portable_operations():
        return keras.ops.zeros(shape, dtype)
    return tf.raw_ops.Empty(shape=tf.stack(shape), dtype=tf.as_dtype(dtype), init=True)


def write_rows(buffer, rows, slot):
    """Writes a row of every sample in place.

    The buffer must stem from `own_zeros`, and the rows must be `after` all that reads its old
    values. TensorFlow's other operations of the kind copy the buffer.

    Args:
        buffer: (b, m, n).
        rows: (b, n).
        slot: which of the m rows, a scalar integer tensor.
    """
    slot = keras.ops.cast(slot, "int32")
    if wants_portable_operations():
        chosen = keras.ops.equal(keras.ops.arange(buffer.shape[1]), slot)
        chosen = keras.ops.reshape(chosen, (1, -1, 1))
        return keras.ops.where(chosen, keras.ops.expand_dims(rows, 1), buffer)
    if tf is None or traced_for_xla():
        none = keras.ops.zeros_like(slot)
        return keras.ops.slice_update(buffer, (none, slot, none), rows[:, None])
    batch, slots, size = keras.ops.shape(buffer)
    places = tf.range(batch) * slots + slot
    flat = tf.reshape(buffer, (batch * slots, size))
    flat = tf.raw_ops.InplaceUpdate(x=flat, i=places, v=rows)
    return tf.reshape(flat, (batch, slots, size))


def after(tensor, *others):
    """The tensor itself, once the others have been computed.

    Operations of a graph run in any order that the data allow. A zero made of the others would not
    do: where shapes are known, TensorFlow's optimizer takes products with zero out.
    """
    if tf is None or tf.executing_eagerly():
        return tensor
    others_first: Any = tf.control_dependencies(others)
    with others_first:
        return tf.identity(tensor)


def carried(x):
    """A value that a loop hands on unchanged, for a variable of the loop that is not its own.

    LiteRT writes the outputs of a loop's body over its inputs one by one. So an output that is
    another variable's input, which is what z is to the z before, would be read too late.
    """
    if not wants_portable_operations():
        return x
    return keras.ops.where(keras.ops.equal(x, x), x, float("nan"))  # equal to x, yet computed
