"""What optimizers need of the backend."""

import keras

from keras_seq._backend import tf


def adam_step(variable, momentum, velocity, gradient, learning_rate, powers, betas, epsilon):
    """One step of Adam on a variable, as a single operation, where the backend has one.

    Args:
        variable: the variable; momentum, velocity: its moments, updated as well.
        gradient: its dense gradient.
        learning_rate: the rate.
        powers: the two betas to the power of the step's number.
        betas: the decay rates of the moments.
        epsilon: what is added to the root of the velocity.

    Returns:
        Whether the step was made.
    """
    if tf is None or variable.dtype != tf.float32:
        return False
    variables = (variable, momentum, velocity)
    held = [x.value if isinstance(x, keras.Variable) else x for x in variables]
    tf.raw_ops.ResourceApplyAdam(
        var=held[0].handle,
        m=held[1].handle,
        v=held[2].handle,
        beta1_power=powers[0],
        beta2_power=powers[1],
        lr=learning_rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient,
    )
    return True
