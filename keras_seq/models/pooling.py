"""One vector for a sequence, from those of its valid steps."""

import math
from typing import Any

import keras
from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq.ops.packing import last_valid, lengths_of

POOLINGS = ("last", "mean", "max", "attention")


def check_pooling(kind: str) -> str:
    """Returns the argument `pooling`, after a check."""
    if kind not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}. Received: "
            f"pooling={kind!r}."
        )
    return kind


def last_step(hidden, mask):
    """(b, d): the output (b, t, d) at the last valid step, with the valid ones first."""
    return last_valid(hidden, mask, ops.zeros_like(hidden[:, 0]))


def over_levels(function, hidden, mask):
    """A function of (b, t, d) and a mask, also for (b, m, t, d) of m levels."""
    if len(hidden.shape) == 3:
        return function(hidden, mask)
    batch, levels, steps, width = ops.shape(hidden)
    mask = None if mask is None else ops.repeat(mask, levels, axis=0)
    results = function(ops.reshape(hidden, (batch * levels, steps, width)), mask)
    return ops.reshape(results, (batch, levels, *ops.shape(results)[1:]))


class Pooling(keras.layers.Layer):
    """What a reader takes from the outputs of its core at all valid steps.

    * `"mean"`, `"max"`: of each feature.
    * `"attention"`: Σₜ aₜ hₜ with a = softmax(q·hₜ / √d) over the valid steps and a learned query
      q (d,), zero at first, so that training begins with the mean.

    A row without valid steps gives zeros.

    Args:
        kind: one of these.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        hidden: (b, t, d), or (b, m, t, d) of m levels.
        mask: (b, t), true first; `None` where all steps are valid.

    Output shape:
        (b, d), or (b, m, d).
    """

    def __init__(self, kind: str, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.query: Any = None
        self.supports_masking = True

    def build(self, input_shape):
        if self.kind == "attention":
            self.query = self.add_weight(
                shape=(input_shape[-1],), initializer="zeros", name="query"
            )
        self.built = True

    def call(self, hidden, mask=None):
        return over_levels(self._pooled, hidden, mask)

    def _pooled(self, hidden, mask):
        wide = ops.cast(hidden, float32_at_least(hidden.dtype))
        valid = None if mask is None else ops.expand_dims(mask, -1)
        if valid is not None:
            wide = ops.where(valid, wide, ops.zeros_like(wide))
        pooled = getattr(self, f"_{self.kind}")(wide, mask, valid)
        return ops.cast(pooled, hidden.dtype)

    def _mean(self, hidden, mask, valid):
        if mask is None:
            return ops.mean(hidden, axis=1)
        count = ops.cast(ops.maximum(lengths_of(mask), 1), hidden.dtype)
        return ops.sum(hidden, axis=1) / ops.expand_dims(count, 1)

    def _max(self, hidden, mask, valid):
        if mask is None:
            return ops.max(hidden, axis=1)
        most = ops.max(ops.where(valid, hidden, ops.full_like(hidden, -math.inf)), axis=1)
        return ops.where(ops.expand_dims(mask[:, 0], 1), most, ops.zeros_like(most))

    def _attention(self, hidden, mask, valid):
        query = ops.cast(self.query, hidden.dtype) / math.sqrt(hidden.shape[-1])
        scores = ops.sum(hidden * query, axis=-1, keepdims=True)
        if valid is not None:
            scores = ops.where(valid, scores, ops.full_like(scores, -1e30))
        shares = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=1, keepdims=True)))
        return ops.sum(shares * hidden, axis=1) / ops.sum(shares, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}
