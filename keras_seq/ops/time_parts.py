"""Parts of a sequence that a layer works on side by side.

TensorFlow on CPUs gives a matrix product of few rows to one thread, and XLA shares it badly among
several. Cut in two along time, such a layer is two chains of operations that run at the same time.
"""

from keras_seq._backend import tf, traced_for_xla, wants_portable_operations

_FEW, _MANY = 64, 1024  # rows of a product that are worth a cut
_NARROW = 64  # features; where the rows are not known, narrow products are left whole


def time_parts(batch, length, width: int) -> list[tuple]:
    """Where to cut a sequence in training: the (first, end) of every part.

    Args:
        batch: sequences, `None` or a tensor if not known.
        length: their steps t, an integer or a scalar tensor.
        width: features of a step.

    Returns:
        One part or two, whose ends are of the type of `length`.
    """
    whole = [(0, length)]
    if not _runs_side_by_side():
        return whole
    if isinstance(batch, int) and isinstance(length, int):
        if length < 2 or not _FEW <= batch * length <= _MANY:
            return whole
    elif width < _NARROW:
        return whole
    middle = length // 2
    return [(0, middle), (middle, length)]


def _runs_side_by_side() -> bool:
    """Whether independent operations of the graph that is being made run at the same time.

    So do those of a graph on CPUs, unless TensorFlow was told to start one after the other. Eager
    operations follow one another too, and on a GPU two small operations take longer than one of
    both.
    """
    if tf is None or tf.executing_eagerly() or wants_portable_operations():
        return False
    if tf.config.list_physical_devices("GPU"):
        return False
    return traced_for_xla() or tf.config.threading.get_inter_op_parallelism_threads() != 1
