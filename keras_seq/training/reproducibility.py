"""The one setting of TensorFlow without which two equal runs on a CPU differ in the last digit."""

import contextlib
import os


def order_operations() -> None:
    """Has TensorFlow start the operations of a graph one after the other, each on all cores.

    TensorFlow adds up three or more gradients of a shared weight beginning with the one whose
    memory is free first, which depends on how parallel operations happened to be scheduled; the
    sums then differ by rounding from run to run. On a CPU without XLA this makes a run reproducible
    to the last bit. It can only be set before TensorFlow's first operation, and what the user has
    set is left alone. With a GPU nothing is
    changed: the host runs little there.
    """
    import tensorflow as tf

    if "TF_NUM_INTEROP_THREADS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    if tf.config.threading.get_inter_op_parallelism_threads() == 0:
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already
            tf.config.threading.set_inter_op_parallelism_threads(1)
