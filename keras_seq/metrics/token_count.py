"""The number of tokens."""

from typing import Any

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.metrics.perplexity import _align


@export("keras_seq.metrics.TokenCount")
class TokenCount(keras.metrics.Metric):
    """The sum of the weights of all values: the number of tokens if weights are one or zero.

    The sum is float64, and so exact for any corpus; so is the result unless `dtype` is given.

    Args:
        name: optional string.
        dtype: the type of the result; `"float64"` by default.

    Call arguments:
        y_true: tensor of shape `(...)`, one number a token; only its shape counts.
        y_pred: not used; there so that `compile(metrics=[...])` takes the metric.
        sample_weight: optional weights that broadcast to `(...)`.

    Example:

    >>> metric = keras_seq.metrics.TokenCount()
    >>> metric.update_state(np.zeros((2, 3)), sample_weight=np.array([[1, 1, 1], [1, 0, 0]]))
    >>> int(metric.result())
    4
    """

    def __init__(self, name: str = "tokens", dtype: Any = "float64"):
        super().__init__(name=name, dtype=dtype)
        self._count = self.add_variable((), "zeros", dtype="float64", name="count")

    def update_state(self, y_true, y_pred=None, sample_weight=None):
        ones = ops.ones(ops.shape(ops.convert_to_tensor(y_true)), self._count.dtype)
        if sample_weight is not None:
            ones = ones * _align(sample_weight, ones)
        self._count.assign_add(ops.sum(ones))

    def result(self):
        return ops.cast(self._count, self.dtype)
