"""A record of what attention layers look at."""

import contextlib
from collections.abc import Callable, Iterator
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

    With a `mask` the probabilities stand in the places of the steps: zero for masked keys, and at a
    masked query those of the last valid one before it. A layer that is called for chunks of the
    masked steps, or with `lookahead`, is refused there.

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


@contextlib.contextmanager
def record_of_steps(place: Callable[[Any], Any], length: int) -> Iterator[None]:
    """Within it, what attention layers note is that of steps in another order than it is read in.

    Args:
        place: from probabilities (b, heads, t, m + t) to those in the places of the steps.
        length: t, the number of steps.

    Raises:
        ValueError: at the end, where a layer has read another number of steps.
    """
    record = record_of_now()
    if record is None:
        yield
        return
    with recorded_attention() as found:
        yield
    for path, probabilities in found.items():
        if probabilities.shape[2] != length:
            raise ValueError(
                f"`mask` must be None where the attention of '{path}' is recorded: it reads the "
                f"steps in chunks or looks ahead. Received: mask of {length} steps, of which "
                f"{probabilities.shape[2]} were read at once. Record the valid steps of each row "
                "alone, or without `subsequence_length` and `lookahead`."
            )
        record[path] = place(probabilities)


def record_of_now() -> dict[str, Any] | None:
    """The dict that the present call belongs to; `None` where nothing is to be noted."""
    record = _RECORD.get()
    return record if record is not None and runs_eagerly() else None
