"""What models need of the backend."""

import contextlib
from typing import Any

import keras

from keras_seq._backend import tf, wants_portable_operations


def after_all(tensors):
    """A context whose operations are executed after tensors, a nest, have been computed.

    In a graph an operation that needs none of the data does not wait for them: at the end of data
    whose length is not known, it is executed once more than there are batches.
    """
    if tf is None or tf.executing_eagerly():
        return contextlib.nullcontext()
    return tf.control_dependencies([x for x in keras.tree.flatten(tensors) if x is not None])


def outside_graphs():
    """A context in which variables are made at once, also while a graph is traced."""
    return contextlib.nullcontext() if tf is None else tf.init_scope()


def refuses_labels() -> bool:
    """Whether the cross-entropy of the backend refuses a label that does not exist, or gives NaN.

    TensorFlow's does; where it is made of one-hot rows, it is zero, which looks like a perfect
    score.
    """
    return tf is not None


def require(condition, message: str, value):
    """The value, once every element of a condition is true; else an error with the message.

    XLA, and backends other than TensorFlow, compute on: they have no such errors in graphs.
    """
    if tf is None or wants_portable_operations():
        return value
    check: Any = tf.debugging.Assert(tf.reduce_all(condition), [f"{message} Received:", value])
    first: Any = tf.control_dependencies([] if check is None else [check])
    with first:
        return tf.identity(value)
