"""Size and spectral radius of a function's Jacobian, from products with it."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_seq._random import draw_seed
from keras_seq.gradients import _backend


def jacobian_loss(
    f: Callable,
    z: Any,
    vectors: Any = None,
    probes: int = 1,
    seed: Any = None,
    size: Any = None,
):
    """An estimate of the squared Frobenius norm of J = ∂f/∂z, divided by the size of z.

    Bai, Koltun and Kolter, *Stabilizing Equilibrium Models by Jacobian Regularization* (ICML 2021),
    equation 8, after Hutchinson: the mean of |vᵀ J|² over normal vectors v. Differentiable.

    Args:
        f: from z to z.
        z: (b, ...).
        vectors: the vectors v, each of the shape of z; drawn if not given.
        probes: number of vectors to draw.
        seed: an integer or a `keras.random.SeedGenerator` for drawing.
        size: how many elements of z count, where f keeps some at zero; all if not given.

    Returns:
        A scalar.

    Example:

    >>> from keras_seq.gradients import jacobian_loss
    >>> z = ops.zeros((2, 3))
    >>> float(jacobian_loss(lambda z: 2.0 * z, z, vectors=[ops.ones_like(z)]))
    4.0
    """
    if vectors is None:
        vectors = draw_vectors(z, probes, seed)
    _, transpose_product = _backend.recorded(f, z)
    total = 0.0
    count = functools.reduce(operator.mul, ops.shape(z), 1) if size is None else size
    for vector in vectors:
        product = transpose_product(vector)
        if "16" in str(product.dtype):
            product = ops.cast(product, "float32")
        total = total + ops.sum(product * product)
    return total / ops.cast(len(vectors) * count, total.dtype)


def draw_vectors(z: Any, probes: int = 1, seed: Any = None) -> list:
    """Normal vectors of the shape of z for `jacobian_loss`.

    Args:
        z: (b, ...).
        probes: how many.
        seed: an integer or a `keras.random.SeedGenerator`.
    """
    if not isinstance(seed, keras.random.SeedGenerator):
        seed = keras.random.SeedGenerator(seed)
    dtype = keras.backend.standardize_dtype(z.dtype)
    return [
        keras.random.normal(ops.shape(z), dtype=dtype, seed=draw_seed(seed)) for _ in range(probes)
    ]


def spectral_radius(f: Callable, z: Any, steps: int = 50, start: Any = None, seed: Any = None):
    """The spectral radius of J = ∂f/∂z of every sample, by power iteration.

    v ← vᵀ J, normalised for each sample; the estimate is the absolute Rayleigh quotient of the last
    step. Below one, plain iteration converges near z.

    Args:
        f: from z to z.
        z: the point, (b, ...).
        steps: number of steps.
        start: the first vector, of the shape of z; drawn if not given.
        seed: an integer for drawing.

    Returns:
        The radius (b,) and the last vector, of the shape of z.

    Example:

    >>> from keras_seq.gradients import spectral_radius
    >>> radius, _ = spectral_radius(lambda z: -0.5 * z, ops.zeros((1, 3)))
    >>> round(float(radius[0]), 4)
    0.5
    """
    z = ops.convert_to_tensor(z)
    vector = keras.random.normal(ops.shape(z), seed=seed, dtype=z.dtype) if start is None else start
    vector = ops.convert_to_tensor(vector)
    axes = tuple(range(1, len(z.shape)))
    _, transpose_product = _backend.recorded(f, z)
    radius = ops.zeros_like(ops.sum(z, axis=axes))

    def advance(step, vector, radius):
        product = transpose_product(vector)
        squared = ops.sum(vector * vector, axis=axes)
        radius = ops.abs(ops.sum(product * vector, axis=axes))
        radius = radius / ops.where(squared > 0, squared, 1)
        length = ops.sqrt(ops.sum(product * product, axis=axes, keepdims=True))
        return step + 1, product / ops.where(length > 0, length, 1), radius

    _, vector, radius = ops.while_loop(
        lambda step, *_: step < steps, advance, (ops.zeros((), "int32"), vector, radius)
    )
    return radius, vector
