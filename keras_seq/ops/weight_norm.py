"""Weight normalisation as pure functions."""

from typing import Any

from keras import ops


def direction_norm(direction):
    """The Euclidean norm of a kernel over all axes but the last, one number an output channel.

    Args:
        direction: a kernel, `(..., channels)`.

    Returns:
        A tensor `(channels,)`.
    """
    axes = tuple(range(len(direction.shape) - 1))
    return ops.sqrt(ops.sum(ops.square(direction), axis=axes))


def weight_normalize(direction: Any, gain: Any):
    """Weight normalisation, `gain * direction / ||direction||`.

    Salimans and Kingma, *Weight Normalization* (2016), equation 2. The norm is taken over all axes
    but the last, so there is one norm and one gain an output channel; for a convolution kernel
    `(k, d, channels)` it runs over taps and inputs together. A weight-tied stack calls this once a
    call and uses the result at every level.

    Args:
        direction: the direction v, `(..., channels)`.
        gain: the gain g, `(channels,)`.

    Returns:
        The kernel, with the shape of `direction`.

    Example:

    >>> import numpy as np
    >>> gain = np.array([2.0, 4.0, 6.0], "float32")
    >>> kernel = weight_normalize(np.ones((2, 2, 3), "float32"), gain)
    >>> [float(x) for x in kernel[0, 0]]
    [1.0, 2.0, 3.0]
    """
    axes = tuple(range(len(direction.shape) - 1))
    square = ops.sum(ops.square(direction), axis=axes)
    # A direction that dropout emptied gives a zero kernel, not a division by zero.
    scale = gain * ops.rsqrt(ops.maximum(square, 1e-30))
    return direction * scale
