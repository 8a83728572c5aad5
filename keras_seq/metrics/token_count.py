"""The number of tokens."""

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.metrics.perplexity import _align


@export("keras_seq.metrics.TokenCount")
class TokenCount(keras.metrics.Metric):
    """The sum of the weights of all values seen: the number of tokens where weights are one or zero.

    The sum is float64, and so exact for any corpus; so is the result unless `dtype` is given.

    Args:
        name: optional string.
        dtype: the type of the result; `"float64"` by default.

    Call arguments:
        values: tensor of shape `(...)`, one number a token; only its shape counts.
        sample_weight: optional weights that broadcast to `(...)`.

    Example:

    ```python
    import numpy as np
    from keras_seq.metrics import TokenCount

    metric = TokenCount()
    metric.update_state(np.zeros((2, 3)), sample_weight=np.array([[1, 1, 1], [1, 0, 0]]))
    print(int(metric.result()))  # 4
    ```
    """

    def __init__(self, name: str | None = None, dtype="float64"):
        super().__init__(name=name, dtype=dtype)
        self._count = self.add_variable((), "zeros", dtype="float64", name="count")

    def update_state(self, values, sample_weight=None):
        ones = ops.ones(ops.shape(ops.convert_to_tensor(values)), self._count.dtype)
        if sample_weight is not None:
            ones = ones * _align(sample_weight, ones)
        self._count.assign_add(ops.sum(ones))

    def result(self):
        return ops.cast(self._count, self.dtype)
