"""Fixed-point problems with known answers, for every solver."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_seq.solvers import Status


@dataclass(frozen=True)
class Problem:
    """z = f(z) from z0.

    Attributes:
        f: the function; takes any float type.
        z0: the initial guess, (b, ...), float64.
        answer: the fixed point, or `None` where there is none.
        unsuitable: solvers that cannot solve it.
        statuses: how the solve may end where there is no answer.
    """

    f: Callable[[Any], Any]
    z0: np.ndarray
    answer: np.ndarray | None
    unsuitable: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()


def affine(matrix: np.ndarray, offset: np.ndarray) -> Callable[[Any], Any]:
    def f(z):
        return ops.matmul(z, ops.cast(matrix.T, z.dtype)) + ops.cast(offset, z.dtype)

    return f


def problems(golden_arrays) -> dict[str, Problem]:
    """The bank. The tanh network is that of the golden file `deq_solvers`."""
    rng = np.random.default_rng(5)
    n = 6
    rotation, _ = np.linalg.qr(rng.normal(size=(n, n)))
    offset = rng.normal(size=(2, n))
    zeros = np.zeros((2, n))

    def linear(matrix):
        return affine(matrix, offset), np.linalg.solve(np.eye(n) - matrix, offset.T).T

    contraction, contraction_answer = linear(0.7 * rotation)
    scales = np.array([-3.0, -1.5, 0.2, 0.5, 0.8, 2.5])
    expansion, expansion_answer = linear(rotation @ np.diag(scales) @ rotation.T)
    low_rank, low_rank_answer = linear(0.8 * np.outer(rotation[0], rotation[0]))

    weights, inject, bias, x = (
        np.asarray(golden_arrays[k], "float64") for k in ("param/W", "param/U", "param/b", "in/x")
    )
    injected = np.einsum("ij,njl->nil", inject, x) + bias[:, None]

    def network(z):
        product = ops.einsum("ij,njl->nil", ops.cast(weights, z.dtype), z)
        return ops.tanh(product + ops.cast(injected, z.dtype))

    hard = ("fixed_point", "broyden_small")  # more than five directions expand or turn
    return {
        "contraction": Problem(contraction, zeros, contraction_answer),
        "expansion": Problem(expansion, zeros, expansion_answer, hard),
        "network": Problem(network, np.zeros((2, 6, 5)), golden_arrays["out/z_star"]),
        "rank_deficient": Problem(low_rank, zeros, low_rank_answer),
        "already_solved": Problem(contraction, contraction_answer, contraction_answer),
        "unsolvable": Problem(
            lambda z: z + 1.0,
            zeros,
            None,
            statuses=(Status.DIVERGED, Status.NOT_FINITE, Status.MAX_STEPS, Status.STAGNATED),
        ),
        "not_a_number": Problem(
            lambda z: ops.sqrt(z - 1.0), zeros, None, statuses=(Status.NOT_FINITE,)
        ),
        "later_not_a_number": Problem(
            lambda z: ops.where(z > 0.5, float("nan"), z + 1.0),
            zeros,
            None,
            statuses=(Status.NOT_FINITE, Status.STAGNATED, Status.MAX_STEPS),
        ),
    }
