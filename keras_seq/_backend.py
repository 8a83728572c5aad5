"""What is known of the backend, and of the graph that is being made.

Calls that differ between Keras' backends stand in the part that makes them, in a file of this name;
others than TensorFlow get a plain answer.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


_PORTABLE: ContextVar[bool] = ContextVar("portable_operations", default=False)


@contextlib.contextmanager
def portable_operations() -> Iterator[None]:
    """Within it, graphs get ordinary operations alone, such as runtimes for devices have too."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def wants_portable_operations() -> bool:
    """Whether the graph that is being made is for runtimes with ordinary operations alone."""
    return _PORTABLE.get()


def runs_eagerly() -> bool:
    """Whether operations are executed at once, not put into a graph; other backends say yes."""
    return tf is None or tf.executing_eagerly()


def needs_fixed_shapes() -> bool:
    """Whether no shape may depend on the data, as where the code is traced for XLA.

    Where that cannot be known, the answer is yes, which is correct and slower.
    """
    return tf is None or traced_for_xla(unknown=True)


def traced_for_xla(unknown: bool = False) -> bool:
    """Whether the graph that is being made is one that XLA compiles.

    `tf.function(jit_compile=True)` marks its graph, but there is no public way to read the mark.

    Args:
        unknown: the answer if TensorFlow moves the private one.
    """
    if tf is None:
        return False
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        return unknown
    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )


def read(tensor):
    """What a variable holds now; a tensor is returned as it is.

    A gradient that is written out reads its tensors when it is computed. A variable may have been
    assigned by then, and Keras' own conversion returns it as it is.
    """
    return keras.ops.convert_to_tensor(tensor) if tf is None else tf.convert_to_tensor(tensor)


def is_variable(value) -> bool:
    """Whether a value is a variable, of Keras or of TensorFlow."""
    return isinstance(value, keras.Variable if tf is None else (keras.Variable, tf.Variable))


def densify(gradient):
    """A gradient as a dense tensor; rows that occur twice in a sparse one are added up."""
    return gradient if tf is None or gradient is None else tf.convert_to_tensor(gradient)
