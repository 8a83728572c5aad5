"""Gradients by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq.gradients import _backend
from keras_seq.solvers import solve
from keras_seq.solvers.driver import FALLBACK


def find_equilibrium(
    f: Callable,
    z0: Any,
    solver: Any = "broyden",
    max_steps: int = 30,
    tolerance: float = 1e-3,
    stop: str = "relative",
    keep: Any = (),
    fallback: Any = FALLBACK,
    transient: Any = 0,
):
    """Solves z = f(z) without recording anything for gradients.

    Args:
        f: from z to z.
        z0: the initial guess, (b, ...).
        solver: a name, a configuration or a solver.
        max_steps: the most steps.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"`.
        keep: steps whose iterates are returned too.
        fallback: solvers for samples that stagnate or diverge, or `None`; as in
            `keras_seq.solvers.solve`, like `transient`.
        transient: steps in which a residual may grow before it falls.

    Returns:
        A `keras_seq.solvers.Solution` that carries no gradient.
    """
    z0 = ops.stop_gradient(z0)
    with _backend.unrecorded():
        f = _backend.detached(f, z0)
        solution = solve(
            f,
            z0,
            solver,
            max_steps,
            tolerance,
            stop,
            keep=keep,
            fallback=fallback,
            transient=transient,
        )
    # The residual too: else a branch around the solve would differentiate its loop.
    return solution._replace(
        value=ops.stop_gradient(solution.value),
        residual=ops.stop_gradient(solution.residual),
        kept=[ops.stop_gradient(z) for z in solution.kept],
    )


def attach_implicit_gradient(
    f: Callable,
    equilibrium: Any,
    solver: Any = "broyden",
    max_steps: int = 30,
    tolerance: float = 1e-3,
    stop: str = "relative",
    fallback: Any = FALLBACK,
    transient: Any = 0,
):
    """Applies f once more at the equilibrium, with the gradient of the equilibrium.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), theorem 1. For an incoming
    gradient g, the gradient with respect to everything that f depends on is that of one application
    of f, with u in place of g, where u solves the linear fixed-point problem

        u = g + Jᵀ u,    J = ∂f/∂z at z*

    The memory it needs is that of one application of f, whatever the solvers do. The Jacobian is
    never formed: one recording of f serves all products Jᵀ u. A second derivative is refused.

    Args:
        f: from z to z; weights and inputs that it uses receive gradients.
        equilibrium: z*, (b, ...), without gradient.
        solver: of the backward problem.
        max_steps: of the backward solve.
        tolerance: of the backward solve.
        stop: `"relative"` to the length of g in each sample, or `"absolute"`.
        fallback: as in `find_equilibrium`.
        transient: as in `find_equilibrium`.

    Returns:
        f(z*), (b, ...).

    Example:

    >>> from keras_seq.gradients import attach_implicit_gradient, find_equilibrium
    >>> f = lambda z: 0.5 * z + 1.0
    >>> z = find_equilibrium(f, np.zeros((1, 2), "float32"), tolerance=1e-5).value
    >>> bool(np.allclose(attach_implicit_gradient(f, z), 2.0, atol=1e-4))
    True
    """

    def adjoint(upstream, transpose_product):
        # The problem is linear, so a relative tolerance is an absolute one at length one. Measured
        # so, an iterate that grows without bound is never the best one.
        length = _lengths(upstream) if stop == "relative" else ops.ones((), upstream.dtype)
        start = upstream / length

        def problem(u):
            return start + transpose_product(u)

        with _backend.unrecorded():
            found = solve(
                problem,
                start,
                solver,
                max_steps,
                tolerance,
                "absolute",
                fallback=fallback,
                transient=transient,
            )
        return found.value * length

    return _backend.with_adjoint(f, ops.stop_gradient(equilibrium), adjoint)


def _lengths(tensor):
    """The Euclidean length of each sample, (b, 1, ...); one where it is zero."""
    wide = float32_at_least(tensor.dtype)
    axes = tuple(range(1, len(tensor.shape)))
    squared = ops.sum(ops.square(ops.cast(tensor, wide)), axis=axes, keepdims=True)
    return ops.cast(ops.where(squared > 0, ops.sqrt(squared), 1), tensor.dtype)
