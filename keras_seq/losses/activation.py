"""Regularisers on the outputs of a recurrent model."""

from typing import Any

from keras import ops

from keras_seq._dtypes import float32_at_least


def activation_regularization(dropped_output: Any, alpha: float, counts: Any = None):
    """`alpha * mean(output^2)`, the activation regulariser (AR).

    Merity et al., *Revisiting Activation Regularization for Language RNNs* (2017), section 3.1. It
    acts on the output *after* dropout.

    Args:
        dropped_output: float tensor, commonly of shape `(b, t, d)`.
        alpha: float, the weight.
        counts: optional booleans of shape `(b, t)`: the steps that the mean is taken over.

    Returns:
        A scalar, float32 at least.

    Example:

    >>> float(keras_seq.losses.activation_regularization(2 * np.ones((1, 3, 4)), alpha=0.5))
    2.0
    """
    squares = ops.square(_wide(dropped_output))
    return alpha * (_mean(squares) if counts is None else _mean_of(squares, counts))


def temporal_activation_regularization(raw_output: Any, beta: float, counts: Any = None):
    """`beta * mean((output[t + 1] - output[t])^2)`, the temporal activation regulariser (TAR).

    Merity et al., *Revisiting Activation Regularization for Language RNNs* (2017), section 3.2. It
    acts on the output *before* dropout and is zero for a single step.

    Args:
        raw_output: float tensor of shape `(b, t, d)`.
        beta: float, the weight.
        counts: optional booleans of shape `(b, t)`: the mean is taken over pairs of these steps.

    Returns:
        A scalar, float32 at least.

    Example:

    >>> ramp = np.arange(5.0).reshape(1, 5, 1)
    >>> float(keras_seq.losses.temporal_activation_regularization(ramp, beta=3.0))
    3.0
    """
    output = _wide(raw_output)
    squares = ops.square(output[:, 1:] - output[:, :-1])
    if counts is not None:
        return beta * _mean_of(squares, ops.logical_and(counts[:, 1:], counts[:, :-1]))
    return beta * _mean(squares)


def _mean(values):
    """The mean of all values; zero if there are none, as of a batch without rows."""
    return ops.sum(values) / ops.maximum(ops.cast(ops.size(values), values.dtype), 1)


def _mean_of(values, counts):
    """The mean of the values (b, t, d) of the steps that count; zero if there are none."""
    counts = ops.expand_dims(counts, -1)
    values = ops.where(counts, values, ops.zeros_like(values))
    number = ops.sum(ops.cast(counts, values.dtype)) * values.shape[-1]
    return ops.sum(values) / ops.maximum(number, 1)


def _wide(output):
    """The tensor, in float32 if its type is narrower."""
    output = ops.convert_to_tensor(output)
    return ops.cast(output, float32_at_least(output.dtype))
