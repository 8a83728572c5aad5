"""Gradients by the implicit function theorem."""

from typing import Any

from keras import ops

from keras_seq.gradients import _backend
from keras_seq.solvers import solve


def find_equilibrium(f, z0, solver: Any = "broyden", max_steps=30, tolerance=1e-3, stop="relative"):
    """Solves z = f(z) without recording anything for gradients.

    Args:
        f: from z to z.
        z0: the initial guess, (b, ...).
        solver: a name, a configuration or a solver.
        max_steps: the most steps.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"`.

    Returns:
        A `keras_seq.solvers.Solution` that carries no gradient.
    """
    with _backend.unrecorded():
        solution = solve(f, ops.stop_gradient(z0), solver, max_steps, tolerance, stop)
    # The residual too: else a branch around the solve would differentiate its loop.
    return solution._replace(
        value=ops.stop_gradient(solution.value), residual=ops.stop_gradient(solution.residual)
    )


def attach_implicit_gradient(
    f, equilibrium, solver: Any = "broyden", max_steps=30, tolerance=1e-3, stop="relative"
):
    """Applies f once more at the equilibrium, with the gradient of the equilibrium.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), theorem 1. For an incoming
    gradient g, the gradient with respect to everything that f depends on is that of one application
    of f, with u in place of g, where u solves the linear fixed-point problem

        u = g + Jᵀ u,    J = ∂f/∂z at z*

    The memory it needs is that of one application of f, whatever the solvers do. The Jacobian is
    never formed: one recording of f serves all products Jᵀ u.

    Args:
        f: from z to z; weights and inputs that it uses receive gradients.
        equilibrium: z*, (b, ...), without gradient.
        solver: of the backward problem.
        max_steps: of the backward solve.
        tolerance: of the backward solve.
        stop: of the backward solve.

    Returns:
        f(z*), (b, ...).

    Example:

    >>> from keras_seq.gradients import attach_implicit_gradient, find_equilibrium
    >>> f = lambda z: 0.5 * z + 1.0
    >>> z = find_equilibrium(f, np.zeros((1, 2), "float32"), tolerance=1e-5).value
    >>> bool(np.allclose(attach_implicit_gradient(f, z), 2.0, atol=1e-4))
    True
    """
    value, transpose_product = _backend.recorded(f, ops.stop_gradient(equilibrium))

    def gradient(upstream):
        def adjoint(u):
            return upstream + transpose_product(u)

        return solve(adjoint, upstream, solver, max_steps, tolerance, stop).value

    return _backend.with_gradient(value, gradient)
