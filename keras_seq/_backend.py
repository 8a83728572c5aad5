"""The calls that differ between Keras' backends; others than TensorFlow get a plain answer."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import keras
import numpy as np

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


def largest(dtype: str) -> float:
    """The largest finite number of a type, for places where others would write an infinity.

    An infinity that is a constant of a healthy graph would set off tools that look for infinities,
    such as `tf.debugging.enable_check_numerics()`. Of float64 it is float32's, which conversions of
    Python's numbers hold.
    """
    if dtype == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo("float16" if dtype == "float16" else "float32").max)


def read(tensor):
    """What a variable holds now; a tensor is returned as it is.

    A gradient that is written out reads its tensors when it is computed. A variable may have been
    assigned by then, and Keras' own conversion returns it as it is.
    """
    return keras.ops.convert_to_tensor(tensor) if tf is None else tf.convert_to_tensor(tensor)


def densify(gradient):
    """A gradient as a dense tensor; rows that occur twice in a sparse one are added up."""
    return gradient if tf is None or gradient is None else tf.convert_to_tensor(gradient)


def replica_count() -> int:
    """How many replicas run this code together; 1 outside of a `tf.distribute` strategy."""
    context = None if tf is None else tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_id():
    """The number of the current replica, or `None` where there is only one."""
    if tf is None or replica_count() == 1:
        return None
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def sum_over_replicas(tensors: list) -> list:
    """The sums of dense tensors over all replicas, on every replica."""
    if tf is None or replica_count() == 1 or not tensors:
        return tensors
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def adam_step(variable, momentum, velocity, gradient, learning_rate, powers, betas, epsilon):
    """One step of Adam on a variable, as a single operation, where the backend has one.

    Args:
        variable: the variable; momentum, velocity: its moments, updated as well.
        gradient: its dense gradient.
        learning_rate: the rate.
        powers: the two betas to the power of the step's number.
        betas: the decay rates of the moments.
        epsilon: what is added to the root of the velocity.

    Returns:
        Whether the step was made.
    """
    if tf is None or variable.dtype != tf.float32:
        return False
    variables = (variable, momentum, velocity)
    held = [x.value if isinstance(x, keras.Variable) else x for x in variables]
    tf.raw_ops.ResourceApplyAdam(
        var=held[0].handle,
        m=held[1].handle,
        v=held[2].handle,
        beta1_power=powers[0],
        beta2_power=powers[1],
        lr=learning_rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient,
    )
    return True


def halves(x):
    """The even and the odd features of (..., 2n), each (..., n).

    In float32 a pair is the two parts of a complex number, and both the split and its gradient are
    one pass over the data; strided slices, which XLA merges with what follows, take three.
    """
    plain = tf is None or x.dtype != tf.float32 or _PORTABLE.get()
    if plain or traced_for_xla(unknown=True):
        return x[..., ::2], x[..., 1::2]

    @tf.custom_gradient
    def split(x):
        lead, width = tuple(keras.ops.shape(x))[:-1], x.shape[-1] // 2
        pairs = tf.bitcast(tf.reshape(x, (*lead, width, 2)), tf.complex64)

        def grad(even, odd):
            joined = tf.bitcast(tf.complex(even, odd), tf.float32)
            return tf.reshape(joined, (*lead, 2 * width))

        return (tf.math.real(pairs), tf.math.imag(pairs)), grad

    return split(x)


def random_shorts(shape, seed):
    """Integers from -32768 to 32767, all equally likely; `None` where the backend draws none.

    Four of them are one random word of 64 bits, so that they cost far less than as many uniform
    floats, above all with XLA.

    Args:
        shape: the shape; entries may be scalar tensors.
        seed: (2,) integers.
    """
    if tf is None or _PORTABLE.get():
        return None
    known = all(isinstance(size, int) for size in shape)
    count = math.prod(shape) if known else tf.reduce_prod(tf.stack(shape))
    words = tf.random.stateless_uniform(
        ((count + 3) // 4,), tf.cast(seed, "int32"), minval=None, maxval=None, dtype="int64"
    )
    shorts = tf.reshape(tf.bitcast(words, tf.int16), (-1,))
    return tf.reshape(shorts[:count], shape)


def own_zeros(shape, dtype):
    """Zeros that no other tensor shares, to be written to by `write_rows`.

    Plain zeros may become a constant of the graph, and two of one shape may become one.
    """
    if tf is None or _PORTABLE.get():
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
    if _PORTABLE.get():
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
    with tf.control_dependencies(others):
        return tf.identity(tensor)


def after_all(tensors):
    """A context whose operations are executed after tensors, a nest, have been computed.

    In a graph an operation that needs none of the data does not wait for them: at the end of data
    whose length is not known, it is executed once more than there are batches.
    """
    if tf is None or tf.executing_eagerly():
        return contextlib.nullcontext()
    return tf.control_dependencies([x for x in keras.tree.flatten(tensors) if x is not None])


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
    if not _PORTABLE.get():
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


def carried(x):
    """A value that a loop hands on unchanged, for a variable of the loop that is not its own.

    LiteRT writes the outputs of a loop's body over its inputs one by one. So an output that is
    another variable's input, which is what z is to the z before, would be read too late.
    """
    if not _PORTABLE.get():
        return x
    return keras.ops.where(keras.ops.equal(x, x), x, float("nan"))  # equal to x, yet computed


def runs_eagerly() -> bool:
    """Whether operations are executed at once, not put into a graph; other backends say yes."""
    return tf is None or tf.executing_eagerly()


def outside_graphs():
    """A context in which variables are made at once, also while a graph is traced."""
    return contextlib.nullcontext() if tf is None else tf.init_scope()


def refuses_labels() -> bool:
    """Whether the cross-entropy of the backend refuses a label that does not exist, or gives NaN.

    TensorFlow's does; where it is made of one-hot rows, it is zero, which looks like a perfect
    score.
    """
    return tf is not None


def needs_fixed_shapes() -> bool:
    """Whether no shape may depend on the data, as where the code is traced for XLA.

    Where that cannot be known, the answer is yes, which is correct and slower.
    """
    return tf is None or traced_for_xla(unknown=True)


@contextlib.contextmanager
def graphs_released() -> Iterator[None]:
    """Lets go of graphs with custom gradients that were made within, once nothing else holds them.

    TensorFlow registers the gradient of each use of `tf.custom_gradient` in a graph under a name of
    its own, for good, and with it keeps the whole graph: a process that trains one small model
    after the other grows by 6 to 17 MB with each. Leave the context when no gradient of these
    graphs is to be made any more. If TensorFlow moves its private list, they stay.
    """
    names = _gradient_names()
    before = set(names)
    try:
        yield
    finally:
        for name in set(names) - before:
            if name.startswith("CustomGradient-"):
                del names[name]


def _gradient_names() -> dict:
    if tf is None:
        return {}
    try:
        from tensorflow.python.framework.ops import gradient_registry

        return gradient_registry._registry
    except (ImportError, AttributeError):
        return {}


def runs_side_by_side() -> bool:
    """Whether independent operations of the graph that is being made run at the same time.

    So do those of a graph on CPUs, unless TensorFlow was told to start one after the other. Eager
    operations follow one another too, and on a GPU two small operations take longer than one of
    both.
    """
    if tf is None or tf.executing_eagerly() or _PORTABLE.get():
        return False
    if tf.config.list_physical_devices("GPU"):
        return False
    return traced_for_xla() or tf.config.threading.get_inter_op_parallelism_threads() != 1


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
