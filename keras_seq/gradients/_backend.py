"""What differentiation needs of the backend: TensorFlow's here, JAX's in `_jax`."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_seq.gradients.once import ONCE, once

Weights = list[tuple[Any, Any]]  # variables and their values

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def recorded(f, z) -> tuple[Any, Callable]:
        """f(z), and a function that multiplies with its Jacobian: u to Jᵀ u.

        The function may be called often, in a loop too; each call costs one backward pass.
        """
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(z)
            value = f(z)

        def transpose_product(u):
            product = tape.gradient(value, z, u)
            return tf.zeros_like(z) if product is None else tf.convert_to_tensor(product)

        return value, transpose_product

    def with_gradient(tensor, gradient) -> Any:
        """The tensor itself, with `gradient(upstream)` as its gradient. Once differentiable."""

        @tf.custom_gradient
        def identity(value):
            def given(upstream):
                # The tensor stands for all that the gradient depends on: so does the tensor.
                return once(lambda: gradient(upstream), ONCE)(upstream, tensor)

            return tf.identity(value), given

        return identity(tensor)

    def with_adjoint(f, z, adjoint) -> Any:
        """f(z), whose gradient is that of f with another tensor in place of the incoming one.

        Once differentiable.

        Args:
            f: a function of z and of what it reads from around it; gradients flow to the latter.
            z: where to evaluate it.
            adjoint: from the incoming gradient, and a function that multiplies with the Jacobian of
                f at z, u to Jᵀ u, to that tensor.
        """
        value, transpose_product = recorded(f, z)
        return with_gradient(value, lambda upstream: adjoint(upstream, transpose_product))

    def once_differentiable(f, z) -> Any:
        """f(z); a second derivative through it is refused."""
        return with_gradient(f(z), lambda upstream: upstream)

    def detached(f, z) -> Callable:
        """f for a loop that is not differentiated."""
        del z
        return f

    def if_drawn(predicate: Any, function: Callable, tensors: Any) -> Any:
        """`function()`, a float32 or float64 scalar of `tensors`, if the predicate holds, else 0.

        Its gradient is a branch that computes the function anew. As the gradient of a branch, a
        second derivative would take sizes and permutations from that branch's results, and XLA
        needs them as constants.

        Args:
            predicate: a boolean scalar, which may be known only when the graph runs.
            function: called without arguments; it reads the tensors from around it.
            tensors: what gradients flow to, such as `GuardedCell.tensors`.
        """

        @tf.custom_gradient
        def scalar(*_):
            def gradient(upstream):
                def taken():
                    with tf.GradientTape(watch_accessed_variables=False) as tape:
                        tape.watch(tensors)
                        value = function()
                    return tape.gradient(value, tensors, upstream, unconnected_gradients="zero")

                return tf.cond(predicate, taken, lambda: [tf.zeros_like(t) for t in tensors])

            wide = any(tensor.dtype == tf.float64 for tensor in tensors)
            nothing = tf.zeros((), "float64" if wide else "float32")
            return tf.cond(predicate, function, lambda: nothing), gradient

        return scalar(*tensors)

    def finite_gradient(tensor) -> Any:
        """The tensor itself; entries of its gradient that are not finite become zero."""

        @tf.custom_gradient
        def identity(value):
            def gradient(upstream):
                upstream = tf.convert_to_tensor(upstream)
                return tf.where(tf.math.is_finite(upstream), upstream, tf.zeros_like(upstream))

            return tf.identity(value), gradient

        return identity(tensor)

    def read_weights(variables, guard: bool) -> Weights | None:
        """The variables with their values read once, or `None` where they must be left alone.

        That is within another scope that replaces variables, as when a model is built
        symbolically. If Keras moves the private test for it, they always are.
        """
        try:
            from keras.src.backend.common.stateless_scope import in_stateless_scope
        except ImportError:
            return None
        if in_stateless_scope():
            return None
        values = [tf.convert_to_tensor(variable._value) for variable in variables]
        if guard:
            values = [finite_gradient(value) for value in values]
        return list(zip(variables, values, strict=True))

    def outer_values(variables) -> Weights:
        """What a scope that replaces variables must hand on: nothing, variables hold it."""
        del variables
        return []

    def unrecorded() -> contextlib.AbstractContextManager:
        """A context in which no tape records: eager solves would keep every iterate.

        There is no public way to stop all tapes. If TensorFlow moves the private one, eager solves
        use more memory and all else stays.
        """
        try:
            from tensorflow.python.eager.record import stop_recording
        except ImportError:
            return contextlib.nullcontext()
        return stop_recording()

elif keras.backend.backend() == "jax":
    from keras_seq.gradients._jax import detached as detached
    from keras_seq.gradients._jax import finite_gradient as finite_gradient
    from keras_seq.gradients._jax import if_drawn as if_drawn
    from keras_seq.gradients._jax import once_differentiable as once_differentiable
    from keras_seq.gradients._jax import outer_values as outer_values
    from keras_seq.gradients._jax import read_weights as read_weights
    from keras_seq.gradients._jax import recorded as recorded
    from keras_seq.gradients._jax import unrecorded as unrecorded
    from keras_seq.gradients._jax import with_adjoint as with_adjoint

else:

    def _refused() -> NotImplementedError:
        return NotImplementedError(
            "Gradients of equilibria need Keras' TensorFlow or JAX backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()!r}."
        )

    def recorded(f, z) -> tuple[Any, Callable]:
        """Refuses: there is no product with a Jacobian that all backends have."""
        raise _refused()

    def with_adjoint(f, z, adjoint) -> Any:
        """Refuses, as `recorded` does."""
        raise _refused()

    def if_drawn(predicate: Any, function: Callable, tensors: Any) -> Any:
        """Refuses, as `recorded` does."""
        raise _refused()

    def once_differentiable(f, z) -> Any:
        """f(z), with its ordinary gradient."""
        return f(z)

    def detached(f, z) -> Callable:
        """f itself."""
        del z
        return f

    def finite_gradient(tensor) -> Any:
        """The tensor itself."""
        return tensor

    def read_weights(variables, guard: bool) -> Weights | None:
        """`None`: variables are left alone."""
        del variables, guard
        return None

    def outer_values(variables) -> Weights:
        """Nothing."""
        del variables
        return []

    def unrecorded() -> contextlib.AbstractContextManager:
        """Nothing to stop."""
        return contextlib.nullcontext()
