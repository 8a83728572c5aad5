"""Anderson acceleration."""

import numpy as np
from keras import ops

from keras_seq._export import export
from keras_seq.solvers._backend import carried, own_zeros, write_rows
from keras_seq.solvers.solver import Solver


@export("keras_seq.solvers.Anderson")
class Anderson(Solver):
    """Anderson acceleration of the fixed-point iteration.

    Anderson, *Iterative Procedures for Nonlinear Integral Equations* (1965), in the form of Walker
    and Ni (2011): with the last differences ΔZ of iterates and ΔG of residuals g = f(z) - z,

        γ = argmin |g - ΔG γ|²,    z ← z + β g - (ΔZ + β ΔG) γ

    The columns of ΔG are scaled to length one before the ridge is added. So the ridge means the
    same at every size of the residual, and tight tolerances are reached. The Gram matrix is kept
    from step to step; a step costs two products with the memory.

    Args:
        memory: number m of differences kept.
        ridge: added to the diagonal of the scaled Gram matrix; keeps a rank-deficient history
            harmless.
        mixing: β, the part of the residual that is added.

    Example:

    >>> from keras_seq.solvers import Anderson, solve
    >>> solution = solve(lambda z: 0.9 * z + 1.0, np.zeros((1, 3), "float32"), Anderson(), 40)
    >>> bool(np.allclose(solution.value, 10.0, atol=1e-2))
    True
    """

    def __init__(self, memory: int = 6, ridge: float = 1e-6, mixing: float = 1.0):
        if memory < 1:
            raise ValueError(f"`memory` must be positive. Received: memory={memory}.")
        if ridge <= 0:
            raise ValueError(f"`ridge` must be positive. Received: ridge={ridge}.")
        if not 0 < mixing <= 1:
            raise ValueError(f"`mixing` must be in (0, 1]. Received: mixing={mixing}.")
        self.memory = memory
        self.ridge = ridge
        self.mixing = mixing

    def init(self, z, max_steps):
        batch, size = ops.shape(z)
        slots = max(1, min(self.memory, max_steps - 1))
        shape = (batch, slots, size)
        return (
            own_zeros(shape, z.dtype),  # ΔZ + β ΔG
            own_zeros(shape, z.dtype),  # ΔG
            own_zeros((batch, slots, slots), z.dtype),  # ΔGᵀ ΔG
            ops.zeros_like(z),
            ops.zeros_like(z),
        )

    def propose(self, z, g, state, step):
        directions, differences, gram, z_before, g_before = state
        slots = differences.shape[1]
        slot = ops.mod(step - 1, slots)
        # Before the first step there is no difference: zeros take a place and change nothing.
        known = ops.cast(step > 0, z.dtype)
        dz, dg = known * (z - z_before), known * (g - g_before)
        differences = write_rows(differences, dg, slot)
        directions = write_rows(directions, dz + self.mixing * dg, slot)
        both = ops.matmul(differences, ops.stack([dg, g], axis=-1))  # (b, m, 2)
        gram = write_rows(gram, both[:, :, 0], slot)
        place = ops.one_hot(slot, slots, dtype=z.dtype)
        gram = gram * (1 - place) + both[:, :, :1] * place  # the column to the row just written

        eye = np.eye(slots)
        # Picked out by a choice, for LiteRT has no operation that takes a diagonal.
        norms = ops.sqrt(ops.maximum(ops.sum(ops.where(eye > 0, gram, 0), axis=2), 0))
        scale = ops.where(norms > 0, 1 / ops.where(norms > 0, norms, 1), 0)
        scaled = gram * ops.expand_dims(scale, 2) * ops.expand_dims(scale, 1)
        scaled = scaled + ops.cast(self.ridge * eye, z.dtype)
        weights = scale * solve_small(scaled, both[:, :, 1] * scale)
        change = ops.matmul(ops.expand_dims(weights, 1), directions)[:, 0]
        state = (directions, differences, gram, carried(z), carried(g))
        return z + self.mixing * g - change, state

    def get_config(self):
        return {"memory": self.memory, "ridge": self.ridge, "mixing": self.mixing}


def solve_small(matrix, right):
    """Solves small positive definite systems by elimination; raises nothing on NaN.

    Args:
        matrix: (b, m, m), m static.
        right: (b, m).
    """
    rows = ops.concatenate([matrix, ops.expand_dims(right, 2)], axis=2)
    for index in range(matrix.shape[1]):
        pivot = rows[:, index] / rows[:, index, index : index + 1]
        others = 1 - ops.one_hot(index, matrix.shape[1], dtype=matrix.dtype)
        factors = rows[:, :, index] * others
        others = ops.expand_dims(others, 1)
        pivot = ops.expand_dims(pivot, 1)
        rows = rows * others + pivot * (1 - others)
        rows = rows - ops.expand_dims(factors, 2) * pivot
    return rows[:, :, -1]
