"""Sums of outer products with fewer terms, for memories that are full."""

import keras
import numpy as np
from keras import ops

from keras_seq._backend import wants_portable_operations


def reduced(u, v, rank: int):
    """The sum Σ u vᵀ of m pairs as one of `rank` pairs, the nearest there is, for each sample.

    These are the largest terms of its singular value decomposition, made from the products of the
    vectors with each other, so that nothing larger than (m, m) is decomposed. Runtimes with
    ordinary operations alone have no eigenvalues: there, and for a sample whose products are not
    finite, all pairs are forgotten.

    Args:
        u: (b, m, n).
        v: (b, m, n).
        rank: pairs to keep, less than m.

    Returns:
        u and v with zeros in place of the pairs that went, (b, m, n) each.
    """
    slots = int(u.shape[1])
    if rank == 0 or wants_portable_operations():
        return ops.zeros_like(u), ops.zeros_like(v)
    # V = Q Dᵀ with orthonormal Q; then the singular vectors of U D are those of the sum.
    values, vectors = ops.eigh(_products(v))
    least = slots * float(np.finfo(keras.backend.standardize_dtype(v.dtype)).eps) * values[:, -1:]
    roots = ops.sqrt(ops.where(values > least, values, 0))
    inverse = ops.where(roots > 0, 1 / ops.where(roots > 0, roots, 1), 0)
    forward = ops.transpose(vectors * roots[:, None], (0, 2, 1))
    backward = ops.transpose(vectors * inverse[:, None], (0, 2, 1))
    square = ops.matmul(ops.matmul(forward, _products(u)), vectors * roots[:, None])
    _, turns = ops.eigh(_finite(square))
    turns = ops.transpose(turns[:, :, slots - rank :], (0, 2, 1))
    # Zeros where it was not finite, and also where the products of u were replaced by zeros.
    whole = ops.max(ops.abs(square), axis=(1, 2), keepdims=True)
    whole = ops.logical_and(whole > 0, ops.isfinite(whole))
    nothing = [[0, 0], [0, slots - rank], [0, 0]]

    def turned(weights, rows):
        made = ops.matmul(ops.matmul(turns, weights), rows)
        return ops.pad(ops.where(whole, made, 0), nothing)

    return turned(forward, u), turned(backward, v)


def _products(rows):
    """The products (b, m, m) of (b, m, n) with themselves, zeros for samples with wild ones."""
    return _finite(ops.matmul(rows, ops.transpose(rows, (0, 2, 1))))


def _finite(matrix):
    """Matrices (b, m, m), those that are not finite as zeros: LAPACK would raise on them."""
    size = ops.max(ops.abs(matrix), axis=(1, 2), keepdims=True)
    fine = ops.isfinite(size)  # a maximum hands NaN on
    return ops.where(fine, matrix, 0)
