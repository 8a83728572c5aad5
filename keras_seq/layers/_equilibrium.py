"""Parts of the deep equilibrium layer: the unrolled form, and samples that are not finite."""

from keras import ops

from keras_seq import gradients
from keras_seq.solvers import Status


def unrolled(f, z0, levels: int, damping: float, tolerance: float, stop: str):
    """`levels` damped applications of f with their ordinary gradient.

    Args:
        f: from z to z.
        z0: the start, (b, ...).
        levels: number of applications.
        damping: part of the old iterate that a step keeps.
        tolerance: below which the last application counts as converged.
        stop: measure of the residual.

    Returns:
        The last iterate, and a dict of `residual`, `steps` and `status` of each sample.
    """
    z = gradients.unrolled_steps(f, z0, levels - 1, damping)
    value = f(z)
    outputs = value if damping == 0 else (1 - damping) * value + damping * z
    wide = "float64" if "float64" in str(z0.dtype) else "float32"
    axes = tuple(range(1, len(z0.shape)))
    z, value = (ops.cast(ops.stop_gradient(t), wide) for t in (z, value))
    residual = ops.sqrt(ops.sum(ops.square(value - z), axis=axes))
    if stop == "relative":
        residual = residual / (ops.sqrt(ops.sum(ops.square(value), axis=axes)) + 1e-9)
    finite = ops.isfinite(residual)
    status = ops.where(residual <= tolerance, int(Status.CONVERGED), int(Status.MAX_STEPS))
    solution = {
        "residual": ops.where(finite, residual, float("inf")),
        "steps": ops.zeros_like(status) + levels,
        "status": ops.where(finite, status, int(Status.NOT_FINITE)),
    }
    return finite_samples(outputs, z0), solution


def finite_samples(outputs, fallback):
    """`outputs`, with samples that are not finite replaced and so without gradient.

    Args:
        outputs: (b, ...).
        fallback: of the same shape.
    """
    axes = tuple(range(1, len(outputs.shape)))
    finite = ops.all(ops.isfinite(outputs), axis=axes, keepdims=True)
    return ops.where(finite, outputs, ops.cast(fallback, outputs.dtype))
