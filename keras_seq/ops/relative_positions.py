"""What relative attention knows of positions: sinusoids, the relative shift, who sees whom."""

import keras
from keras import ops

from keras_seq._dtypes import float32_at_least, largest


def sinusoids(distances, units: int, dtype: str):
    """Sines of a distance in the first half of the features, cosines in the second.

    Args:
        distances: (n,), integers.
        units: d, an even number; the frequencies are 10000^(-2i/d).
        dtype: of the result.

    Returns:
        (n, d).
    """
    wide = float32_at_least(dtype)
    rates = ops.arange(0, units, 2, dtype=wide) * (-1 / units)
    angles = ops.cast(distances, wide)[:, None] * ops.power(ops.cast(10_000.0, wide), rates)
    return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), dtype)


def shift(scores, length, total):
    """From scores by distance to scores by key.

    Dai et al., *Transformer-XL* (2019), appendix B. Row i holds, after an empty column, the scores
    of distances total - 1, ..., 0; key j is at distance i + total - length - j of query i. Read as
    one line, all rows move into place by dropping the first `length` numbers.

    Args:
        scores: (..., length, total + 1).
        length: number of queries.
        total: number of keys.

    Returns:
        (..., length, total); what lies in the future of a query holds no sensible value.
    """
    lead = scores.shape[:-2]
    lead = [-1 if size is None else size for size in lead]
    line = ops.reshape(scores, (*lead, length * (total + 1)))
    if isinstance(length, int) and isinstance(total, int):
        line = ops.split(line, [length], axis=-1)[1]  # its gradient is one concatenation
    else:
        line = line[..., length:]
    return ops.reshape(line, (*lead, length, total))


def visibility(length, total, span: int | None, dtype: str, valid=None):
    """What is added to the scores: zero where a query sees a key, else a large negative number.

    Args:
        length: number of queries, the last ones of the keys.
        total: number of keys.
        span: how many steps a query sees, itself included; `None` for all.
        dtype: of the result.
        valid: (b, total), zero for keys that nobody sees; or `None`.

    Returns:
        (1 or b, 1, length, total).
    """
    distance = ops.arange(length)[:, None] + (total - length) - ops.arange(total)[None]
    seen = distance >= 0
    if span is not None:
        seen = ops.logical_and(seen, distance < span)
    seen = seen[None, None]
    if valid is not None:
        seen = ops.logical_and(seen, ops.expand_dims(valid > 0, (1, 2)))
    # Half of the largest number: no score reaches it, and their sum is finite.
    far = -largest(keras.backend.standardize_dtype(dtype)) / 2
    return ops.where(seen, ops.cast(0, dtype), ops.cast(far, dtype))
