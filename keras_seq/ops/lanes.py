"""Parts of a sequence that a layer works on side by side.

TensorFlow on CPUs gives a matrix product of few rows to one thread, and XLA shares it badly among
several. Cut in two along time, such a layer is two chains of operations that run at the same time.
"""

from keras_seq import _backend

_FEW, _MANY = 64, 1024  # rows of a product that are worth a cut
_NARROW = 64  # features; where the rows are not known, narrow products are left whole


def lanes(batch, length, width: int) -> list[tuple]:
    """Where to cut a sequence in training: the (first, end) of every part.

    Args:
        batch: sequences, `None` or a tensor if not known.
        length: their steps t, an integer or a scalar tensor.
        width: features of a step.

    Returns:
        One part or two, whose ends are of the type of `length`.
    """
    whole = [(0, length)]
    if not _backend.runs_side_by_side():
        return whole
    if isinstance(batch, int) and isinstance(length, int):
        if length < 2 or not _FEW <= batch * length <= _MANY:
            return whole
    elif width < _NARROW:
        return whole
    middle = length // 2
    return [(0, middle), (middle, length)]
