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

    return {
        "contraction": Problem(contraction, zeros, contraction_answer),
        "expansion": Problem(expansion, zeros, expansion_answer, ("fixed_point",)),
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


@dataclass(frozen=True)
class Batch:
    """Problems of one size as the samples of one batch, which every solver treats apart.

    Attributes:
        names: of the samples.
        f: the function; takes any float type.
        z0: the initial guess, (b, n), float64.
        parts: the arrays that f is made of, a row for each sample.
    """

    names: tuple[str, ...]
    f: Callable[..., Any]
    z0: np.ndarray
    parts: dict[str, np.ndarray]

    def chosen(self, names) -> "Batch":
        """The samples of these names alone."""
        places = [self.names.index(name) for name in names]
        parts = {name: part[places] for name, part in self.parts.items()}
        return Batch(tuple(names), lambda z: self.f(z, places), self.z0[places], parts)


RADII = (0.5, 0.8, 0.95, 1.05, 1.2, 1.5)


def matrices(size: int = 40) -> dict[str, np.ndarray]:
    """Jacobians by kind and spectral radius."""
    rng = np.random.default_rng(3)
    gauss = rng.normal(size=(size, size)) / np.sqrt(size)
    gauss /= np.abs(np.linalg.eigvals(gauss)).max()
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    made = {}
    for radius in RADII:
        made[f"gauss {radius}"] = radius * gauss
        made[f"turn {radius}"] = radius * turn  # all eigenvalues on a circle
        spread = np.linspace(-radius, min(radius, 0.97), size)
        made[f"symmetric {radius}"] = turn @ np.diag(spread) @ turn.T
    both = np.concatenate([np.linspace(-1.5, 0.9, size - 2), [1.35, 1.5]])
    made["indefinite 1.5"] = turn @ np.diag(both) @ turn.T
    made["chain 1"] = np.diag(np.ones(size - 1), -1)  # nilpotent: exact after as many steps
    made["chain 2"] = 2 * made["chain 1"]
    made["triangular 0.5"] = np.tril(rng.normal(size=(size, size)), -1) / 6 + np.eye(size) / 2
    return made


def varied(size: int = 40) -> Batch:
    """Affine functions and tanh of them, with Jacobians of all kinds."""
    known = matrices(size)
    names = [f"affine, {name}" for name in known] + [f"tanh, {name}" for name in known]
    weights = np.stack(list(known.values()) * 2)
    offsets = np.random.default_rng(4).normal(size=(len(names), size))
    bent = np.array([name.startswith("tanh") for name in names])[:, None]

    def f(z, places=slice(None)):
        weight, offset = (ops.cast(part[places], z.dtype) for part in (weights, offsets))
        value = ops.matmul(weight, z[:, :, None])[:, :, 0] + offset
        return ops.where(bent[places], ops.tanh(value), value)

    parts = {"weights": weights, "offsets": offsets, "bent": bent[:, 0]}
    return Batch(tuple(names), f, np.zeros((len(names), size)), parts)
