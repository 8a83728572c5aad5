"""Dropout on the elements of a convolution kernel, as pure functions."""

from typing import Any

from keras import ops

from keras_seq._random import bernoulli_mask


def _dropped_taps(kernel_size: int, temporal: bool) -> int:
    return kernel_size - 1 if temporal and kernel_size > 1 else kernel_size


def weight_drop_mask(
    shape: Any, rate: float, seed: Any, temporal: bool = True, dtype: Any = "float32"
):
    """Draws the mask of `weight_drop` for a kernel of the given shape.

    Args:
        shape: the kernel's shape `(k, d, channels)`; tap k-1 multiplies the current step.
        rate: the probability of dropping an element.
        seed: a seed tensor, from `keras_seq._random.draw_seed`.
        temporal: drop only the taps of past steps, 0 to k-2. A kernel of one tap is dropped whole.
        dtype: the mask's type.

    Returns:
        A mask of zeros and `1 / (1 - rate)`: `(k-1, d, channels)` if only the past taps are
        dropped, else `(k, d, channels)`.
    """
    taps = _dropped_taps(int(shape[0]), temporal)
    return bernoulli_mask((taps, *shape[1:]), rate, seed, dtype)


def weight_drop(kernel: Any, mask: Any):
    """Weight dropout (DropConnect) on the leading taps of a convolution kernel.

    Merity, Keskar and Socher, *Regularizing and Optimizing LSTM Language Models* (2018), section 2,
    in the form of TrellisNet: one mask a call, shared by all levels and time steps. A mask with
    fewer taps than the kernel leaves the last taps as they are, without rescaling.

    Args:
        kernel: `(k, d, channels)`. With weight normalisation this is the direction, and the norm is
            taken afterwards.
        mask: `(m, d, channels)` with m at most k, holding the factor `1 / (1 - rate)`.

    Returns:
        The kernel with its first m taps multiplied by the mask.
    """
    taps = int(mask.shape[0])
    dropped = kernel[:taps] * ops.cast(mask, kernel.dtype)
    if taps == int(kernel.shape[0]):
        return dropped
    return ops.concatenate([dropped, kernel[taps:]], axis=0)
