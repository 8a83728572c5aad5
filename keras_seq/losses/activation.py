"""Regularisers on the outputs of a recurrent model."""

from keras import ops


def activation_regularization(dropped_output, alpha: float):
    """`alpha * mean(output^2)`, the activation regulariser (AR).

    Merity et al., *Revisiting Activation Regularization for Language RNNs* (2017), section 3.1. It
    acts on the output *after* dropout.

    Args:
        dropped_output: float tensor, commonly of shape `(b, t, d)`.
        alpha: float, the weight.

    Returns:
        A scalar, float32 at least.

    Example:

    >>> float(keras_seq.losses.activation_regularization(2 * np.ones((1, 3, 4)), alpha=0.5))
    2.0
    """
    return alpha * ops.mean(ops.square(_wide(dropped_output)))


def temporal_activation_regularization(raw_output, beta: float):
    """`beta * mean((output[t + 1] - output[t])^2)`, the temporal activation regulariser (TAR).

    Merity et al., *Revisiting Activation Regularization for Language RNNs* (2017), section 3.2. It
    acts on the output *before* dropout and is zero for a single step.

    Args:
        raw_output: float tensor of shape `(b, t, d)`.
        beta: float, the weight.

    Returns:
        A scalar, float32 at least.

    Example:

    >>> ramp = np.arange(5.0).reshape(1, 5, 1)
    >>> float(keras_seq.losses.temporal_activation_regularization(ramp, beta=3.0))
    3.0
    """
    output = _wide(raw_output)
    squares = ops.square(output[:, 1:] - output[:, :-1])
    count = ops.maximum(ops.cast(ops.size(squares), squares.dtype), 1)
    return beta * ops.sum(squares) / count


def _wide(output):
    """The tensor, in float32 if its type is narrower."""
    output = ops.convert_to_tensor(output)
    return output if output.dtype == "float64" else ops.cast(output, "float32")
