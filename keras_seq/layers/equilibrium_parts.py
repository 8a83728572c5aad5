"""Parts of the deep equilibrium layer: unrolling, and chunks of a sequence."""

import functools
import operator

import keras
from keras import ops

from keras_seq import gradients
from keras_seq._dtypes import float32_at_least, largest
from keras_seq.solvers import Status
from keras_seq.solvers.driver import infinite_at


def unrolled(f, z0, levels: int, damping: float, tolerance: float, stop: str, keep=()):
    """`levels` damped applications of f with their ordinary gradient.

    Args:
        f: from z to z.
        z0: the start, (b, ...).
        levels: number of applications.
        damping: part of the old iterate that a step keeps.
        tolerance: below which the last application counts as converged.
        stop: measure of the residual.
        keep: steps whose iterates are returned too.

    Returns:
        The last iterate, a dict of `residual`, `steps` and `status` of each sample, and a list of
        the iterates after the steps to keep, without gradient.
    """
    z, taken, kept = z0, 0, []
    for wanted in keep:
        count = max(0, min(wanted, levels - 1) - taken)
        z, taken = gradients.unrolled_steps(f, z, count, damping), taken + count
        kept.append(ops.stop_gradient(z))
    z = gradients.unrolled_steps(f, z, levels - 1 - taken, damping)
    value = f(z)
    outputs = value if damping == 0 else (1 - damping) * value + damping * z
    wide = float32_at_least(z0.dtype)
    axes = tuple(range(1, len(z0.shape)))
    z, value = (ops.cast(ops.stop_gradient(t), wide) for t in (z, value))
    residual = ops.sqrt(ops.sum(ops.square(value - z), axis=axes))
    if stop == "relative":
        residual = residual / (ops.sqrt(ops.sum(ops.square(value), axis=axes)) + 1e-9)
    finite, huge = ops.isfinite(residual), largest(wide)
    status = ops.where(residual <= tolerance, int(Status.CONVERGED), int(Status.MAX_STEPS))
    solution = {
        "residual": infinite_at(huge, ops.where(finite, residual, huge)),
        "steps": ops.zeros_like(status) + levels,
        "status": ops.where(finite, status, int(Status.NOT_FINITE)),
    }
    return finite_samples(outputs, z0), solution, kept


def finite_samples(outputs, fallback, status=None):
    """`outputs`, with samples that are not finite replaced and so without gradient.

    Args:
        outputs: (b, ...).
        fallback: of the same shape.
        status: (b,) of a solve: samples that met values that are not finite are replaced too.
    """
    axes = tuple(range(1, len(outputs.shape)))
    finite = ops.all(ops.isfinite(outputs), axis=axes, keepdims=True)
    if status is not None:
        met = ops.equal(status, int(Status.NOT_FINITE))
        finite = ops.logical_and(finite, ops.logical_not(ops.reshape(met, ops.shape(finite))))
    return ops.where(finite, outputs, ops.cast(fallback, outputs.dtype))


def corrected(f, kept, outputs, wanted):
    """Outputs (b, m, ...) of one application of the cell to each iterate that was kept.

    Args:
        f: from z to z.
        kept: m iterates, without gradient.
        outputs: the part of z that is the output.
        wanted: a boolean scalar; the answer is zeros where it is false. `None` for true.
    """

    def applied():
        return ops.stack([outputs(finite_samples(f(z), z)) for z in kept], axis=1)

    if wanted is None:
        return applied()
    one = outputs(kept[0])
    shape = ops.shape(one)
    nothing = (shape[0], len(kept), *shape[1:])
    return ops.cond(wanted, applied, lambda: ops.zeros(nothing, one.dtype))


def merged(first, second):
    """What the solver says of two chunks: the worst of both, and their steps together.

    Args:
        first: a dict of `residual`, `steps` and `status`, or `None`.
        second: another.
    """
    if first is None:
        return second
    done = ops.equal(first["status"], int(Status.CONVERGED))
    return {
        "residual": ops.maximum(first["residual"], second["residual"]),
        "steps": ops.maximum(first["steps"], second["steps"]),
        "status": ops.where(done, second["status"], first["status"]),
    }


def size_of(z, mask):
    """How many elements of z (b, t, ...) belong to the valid steps of a mask; 1 at least."""
    inner = functools.reduce(operator.mul, z.shape[2:], 1)
    return ops.maximum(ops.sum(ops.cast(mask, "int32")) * inner, 1)


def solution_spec(z) -> dict[str, keras.KerasTensor]:
    """What the solver says, symbolically, for a symbolic equilibrium z."""
    wide = float32_at_least(z.dtype)
    kinds = {"residual": wide, "steps": "int32", "status": "int32"}
    return {name: keras.KerasTensor(z.shape[:1], dtype) for name, dtype in kinds.items()}


def chunks(x, length, *others):
    """Cuts nests of tensors (b, t, ...) into pieces along the time axis.

    Args:
        x: a nest of tensors, all with the same number of steps.
        length: steps of a piece, or `None` for one piece. A number of steps that is not known when
            the graph is made is one piece too.
        *others: further nests, or `None`.

    Returns:
        A list of tuples (piece of x, pieces of the others).
    """
    steps = keras.tree.flatten(x)[0].shape[1] if length else None
    if length is None or steps is None or steps <= length:
        return [(x, *others)]

    def piece(nest, start):
        return keras.tree.map_structure(lambda t: t[:, start : start + length], nest)

    return [
        tuple(None if nest is None else piece(nest, start) for nest in (x, *others))
        for start in range(0, steps, length)
    ]


def first_shape(shape) -> tuple:
    """The shape of the first tensor in a nest of shapes."""
    while isinstance(shape, dict) or not isinstance(shape[-1], int | type(None)):
        shape = next(iter(shape.values())) if isinstance(shape, dict) else shape[0]
    return tuple(shape)


def first_given(*values):
    """The first value that is not `None`."""
    return next(value for value in values if value is not None)
