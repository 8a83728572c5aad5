"""What differentiation needs of JAX, which differentiates functions, not recordings.

A function that reads tensors from around it is made one of all of them first, since what stands for
a tensor while a function is differentiated has no meaning in its backward pass.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_seq.gradients.once import ONCE


def recorded(f, z) -> tuple[Any, Callable]:
    """f(z), and a function that multiplies with its Jacobian: u to Jᵀ u."""
    import jax

    value, pull = jax.vjp(f, z)
    return value, lambda u: pull(u)[0]


def with_adjoint(f, z, adjoint) -> Any:
    """f(z), whose gradient is that of f with another tensor in place of the incoming one.

    Once differentiable.

    Args:
        f: a function of z and of what it reads from around it; gradients flow to the latter.
        z: where to evaluate it.
        adjoint: from the incoming gradient, and a function that multiplies with the Jacobian of f
            at z, u to Jᵀ u, to that tensor.
    """
    import jax

    converted, outside = jax.closure_convert(f, z)

    def given(upstream, *arguments):
        _, pull = jax.vjp(converted, *arguments)
        return pull(adjoint(upstream, lambda u: pull(u)[0]))

    def refuse(saved, upstream):
        raise NotImplementedError(ONCE)

    gradient = jax.custom_vjp(given)
    gradient.defvjp(lambda *arguments: (given(*arguments), None), refuse)
    value = jax.custom_vjp(converted)
    value.defvjp(
        lambda *arguments: (converted(*arguments), arguments),
        lambda arguments, upstream: gradient(upstream, *arguments),
    )
    return value(z, *outside)


def once_differentiable(f, z) -> Any:
    """f(z); a second derivative through it is refused."""
    return with_adjoint(f, z, lambda upstream, product: upstream)


def detached(f, z) -> Callable:
    """f for a loop that is not differentiated: what it reads from around it is constant."""
    import jax

    converted, outside = jax.closure_convert(f, z)
    outside = [jax.lax.stop_gradient(tensor) for tensor in outside]
    return lambda z: converted(z, *outside)


def if_drawn(predicate, function, tensors) -> Any:
    """`function()`, a float32 or float64 scalar, if the predicate holds, else 0.

    Args:
        predicate: a boolean scalar.
        function: called without arguments; it reads the tensors from around it.
        tensors: what gradients flow to; without effect here.
    """
    import jax

    dtype = jax.eval_shape(function).dtype
    return ops.cond(predicate, function, lambda: ops.zeros((), dtype))


def finite_gradient(tensor) -> Any:
    """The tensor itself; entries of its gradient that are not finite become zero."""
    import jax

    identity = jax.custom_vjp(lambda value: value)
    identity.defvjp(
        lambda value: (value, None),
        lambda saved, upstream: (ops.where(ops.isfinite(upstream), upstream, 0),),
    )
    return identity(tensor)


def read_weights(variables, guard: bool) -> list[tuple[Any, Any]]:
    """The variables with what they hold, in the scope around too that holds what is traced."""
    values = [variable.value for variable in variables]
    if guard:
        values = [finite_gradient(value) for value in values]
    return list(zip(variables, values, strict=True))


def outer_values(variables) -> list[tuple[Any, Any]]:
    """What a scope that replaces variables must hand on of the scope around it."""
    return read_weights(variables, False)


def unrecorded() -> contextlib.AbstractContextManager:
    """Nothing to stop."""
    return contextlib.nullcontext()
