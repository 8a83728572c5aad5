"""What differentiation needs of the backend; there is TensorFlow's only."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_seq.gradients.once import once

_ONCE = (
    "A second derivative through an equilibrium is not supported: its gradient has no derivative "
    'of its own. Use `gradient="unrolled"`.'
)
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
                return once(lambda: gradient(upstream), _ONCE)(upstream, tensor)

            return tf.identity(value), given

        return identity(tensor)

    def once_differentiable(tensor) -> Any:
        """The tensor itself; a second derivative through it is refused."""
        return with_gradient(tensor, lambda upstream: upstream)

    def if_drawn(predicate, function, tensors) -> Any:
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

else:
    _NEEDS_TENSORFLOW = "Gradients of equilibria need Keras' TensorFlow backend."

    def recorded(f, z) -> tuple[Any, Callable]:
        """Refuses: there is no product with a Jacobian that all backends have."""
        raise NotImplementedError(_NEEDS_TENSORFLOW)

    def with_gradient(tensor, gradient) -> Any:
        """Refuses: other backends need other forms of a custom gradient."""
        raise NotImplementedError(_NEEDS_TENSORFLOW)

    def once_differentiable(tensor) -> Any:
        """The tensor itself."""
        return tensor

    def if_drawn(predicate, function, tensors) -> Any:
        """Refuses, as `recorded` does."""
        raise NotImplementedError(_NEEDS_TENSORFLOW)

    def finite_gradient(tensor) -> Any:
        """The tensor itself."""
        return tensor

    def read_weights(variables, guard: bool) -> Weights | None:
        """`None`: variables are left alone."""
        del variables, guard
        return None

    def unrecorded() -> contextlib.AbstractContextManager:
        """Nothing to stop: other backends differentiate functions, not recordings."""
        return contextlib.nullcontext()
