"""Damped fixed-point iteration."""

from keras_seq._export import export
from keras_seq.solvers.solver import Solver


@export("keras_seq.solvers.FixedPoint")
class FixedPoint(Solver):
    """Damped fixed-point iteration: z ← (1 - damping) f(z) + damping z.

    It needs no memory and converges where f contracts, by the spectral radius of its Jacobian a
    step. Damping helps where an eigenvalue is large and negative.

    Args:
        damping: part of the old iterate that is kept, in [0, 1).

    Example:

    >>> from keras_seq.solvers import FixedPoint, solve
    >>> solution = solve(lambda z: 0.5 * z + 1.0, np.zeros((1, 3), "float32"), FixedPoint(), 40)
    >>> bool(np.allclose(solution.value, 2.0, atol=1e-2))
    True
    """

    def __init__(self, damping: float = 0.0):
        if not 0 <= damping < 1:
            raise ValueError(f"`damping` must be in [0, 1). Received: damping={damping}.")
        self.damping = damping

    def propose(self, z, g, state, step):
        return z + (1 - self.damping) * g, state

    def get_config(self):
        return {"damping": self.damping}
