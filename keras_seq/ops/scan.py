"""Loops over time that runtimes for devices have too."""

import keras

from keras_seq._backend import wants_portable_operations


def scan(step, start, steps):
    """`keras.ops.scan` of a step whose outputs have the structure of what it carries.

    LiteRT runs no arrays of tensors whose sizes are not known, so there the outputs are written
    into tensors.

    Args:
        step: takes what is carried and an element of `steps`; returns what is carried, and outputs.
        start: a nest of tensors.
        steps: (t,), integers 0, ..., t - 1.

    Returns:
        What is carried at the end, and the outputs of all steps, (t, ...) each.
    """
    if not wants_portable_operations():
        return keras.ops.scan(step, start, steps)
    count, each = keras.ops.shape(steps)[0], keras.tree.map_structure
    written = each(lambda x: keras.ops.zeros((count, *keras.ops.shape(x)), x.dtype), start)

    def body(turn, carry, written):
        carry, outputs = step(carry, turn)

        def write(buffer, row):
            place = (turn, *[0] * len(row.shape))
            return keras.ops.slice_update(buffer, place, keras.ops.expand_dims(row, 0))

        return turn + 1, carry, each(write, written, outputs)

    loop = (keras.ops.zeros((), "int32"), start, written)
    return keras.ops.while_loop(lambda turn, *_: turn < count, body, loop)[1:]
