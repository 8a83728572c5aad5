"""A record of what attention layers look at."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keras_seq._backend import runs_eagerly

_RECORD: ContextVar[dict[str, Any] | None] = ContextVar("attention_record", default=None)


@contextlib.contextmanager
def recorded_attention() -> Iterator[dict[str, Any]]:
    """Within it, attention layers note their probabilities.

    `SelfAttention` and `RelativeAttention` do, wherever they are: in Transformer, R-Transformer,
    Transformer-XL and DEQ-Transformer. What is noted are the probabilities before dropout,
    (b, heads, t, m + t) with m steps of the past; each row sums to one. A layer that is called
    several times leaves those of the last call: that of a deep equilibrium is the application at
    the equilibrium, of the last chunk if it is solved in chunks.

    Only calls that are executed at once are noted, such as `model(x)`. Compiled functions, those of
    `fit` and `predict` among them, are neither noted nor changed. Outside of the context nothing is
    noted and nothing is computed differently. Inside, a long sequence is not worked on in blocks,
    so results may differ by rounding, and the probabilities take memory of the order of t².

    Returns:
        Gives a dict to the `with` statement: the probabilities by the path of the layer, in the
        order of the first calls.

    Example:

    >>> layer = keras_seq.layers.RelativeAttention(heads=2)
    >>> with keras_seq.layers.recorded_attention() as found:
    ...     y = layer(ops.ones((3, 5, 8)))
    >>> [tuple(probabilities.shape) for probabilities in found.values()]
    [(3, 2, 5, 5)]
    """
    record: dict[str, Any] = {}
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def record_of_now() -> dict[str, Any] | None:
    """The dict that the present call belongs to; `None` where nothing is to be noted."""
    record = _RECORD.get()
    return record if record is not None and runs_eagerly() else None
