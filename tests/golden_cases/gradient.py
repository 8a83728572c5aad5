"""Gradients of a function with Keras' TensorFlow or JAX backend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Run = Callable[[dict[str, Any]], tuple[Any, Mapping[str, Any]]]


def with_gradients(run: Run, variables: Sequence[Any], inputs: dict[str, Any]):
    """Runs a function and differentiates its loss.

    Args:
        run: from the inputs by name to the loss and the outputs.
        variables: Keras variables that it reads.
        inputs: arrays by name.

    Returns:
        The loss, the outputs, the gradient for each variable as an array (`None` where TensorFlow
        knows that there is none) and the gradients for the inputs by name, zero where the loss
        does not depend on one, such as h0 with a single tap.
    """
    tensors = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
    differentiate = _with_jax if keras.backend.backend() == "jax" else _with_tensorflow
    total, outputs, of_variables, of_inputs = differentiate(run, variables, tensors)
    return (
        total,
        outputs,
        [None if gradient is None else np.asarray(gradient) for gradient in of_variables],
        {
            name: np.zeros(tensors[name].shape) if gradient is None else np.asarray(gradient)
            for name, gradient in of_inputs.items()
        },
    )


def _with_tensorflow(run: Run, variables, inputs):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total, outputs = run(inputs)
    values = [variable.value for variable in variables]
    gradients: Any = tape.gradient(total, [*values, *inputs.values()])
    dense = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    of_inputs = dict(zip(inputs, dense[len(values) :], strict=True))
    return total, outputs, dense[: len(values)], of_inputs


def _with_jax(run: Run, variables, inputs):
    import jax

    def loss(values, inputs):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            total, outputs = run(inputs)
        return total, (total, dict(outputs))

    values = [variable.value for variable in variables]
    differentiate = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    gradients, (total, outputs) = differentiate(values, inputs)
    return total, outputs, *gradients
