"""The comparison that every fast function passes against its naive one."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


def check_equals_naive(
    fast: Callable, naive: Callable, *tensors, mode="eager", tolerance=1e-9
) -> None:
    """Values, and gradients of a weighted sum of them by every tensor, are the same.

    Args:
        fast: takes the tensors.
        naive: likewise.
        *tensors: float arrays.
        mode: how the fast one is run, `"eager"`, `"graph"` or `"xla"`.
        tolerance: relative, and absolute to values around one.
    """
    given = [tf.constant(tensor) for tensor in tensors]

    def gradients(function):
        def compute(*given):
            with tf.GradientTape() as tape:
                tape.watch(given)
                results = [tf.convert_to_tensor(x) for x in keras.tree.flatten(function(*given))]
                loss = tf.zeros((), given[0].dtype)
                for place, part in enumerate(results):
                    weights = np.random.default_rng(place).normal(size=part.shape)
                    loss += tf.reduce_sum(tf.cast(part, loss.dtype) * tf.cast(weights, loss.dtype))
            return results, tape.gradient(loss, given, unconnected_gradients="zero")

        return compute

    got = MODES[mode](gradients(fast))(*given)
    want = gradients(naive)(*given)
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
