"""Types of numbers: wide enough ones, and how large theirs are."""

import keras
import numpy as np


def float32_at_least(dtype) -> str:
    """The type of sums, norms and losses of values of a type: float64 for itself, else float32."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def largest(dtype: str) -> float:
    """The largest finite number of a type, for places where others would write an infinity.

    An infinity that is a constant of a healthy graph would set off tools that look for infinities,
    such as `tf.debugging.enable_check_numerics()`. Of float64 it is float32's, which conversions of
    Python's numbers hold.
    """
    if dtype == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo("float16" if dtype == "float16" else "float32").max)
