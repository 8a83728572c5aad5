"""The calls that differ between Keras' backends; others than TensorFlow get a plain answer."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


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


def needs_fixed_shapes() -> bool:
    """Whether the code that runs is traced for XLA, where no shape may depend on the data.

    `tf.function(jit_compile=True)` marks its graph, but there is no public way to read the mark. If
    TensorFlow moves the private one, the answer is always yes, which is correct and slower.
    """
    if tf is None:
        return True
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        return True
    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )
