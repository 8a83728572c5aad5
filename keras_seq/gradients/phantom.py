"""Gradients through a few applications of the function."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_seq.gradients import _backend


def phantom_steps(f: Callable, equilibrium: Any, steps: int = 1, damping: float = 0.0):
    """Applies damped steps at the equilibrium; gradients flow through them and no further.

    Geng, Zhang, Bai, Wang and Lin, *On Training Implicit Models* (NeurIPS 2021). One step without
    damping is the Jacobian-free gradient of Fung et al., *JFB* (AAAI 2022). The gradient is that of
    the implicit one with its Neumann series cut off after `steps` terms. A second derivative, to
    which these terms would be constants that they are not, is refused.

    Args:
        f: from z to z.
        equilibrium: z*, (b, ...).
        steps: number of steps.
        damping: part of the old iterate that a step keeps, in [0, 1).

    Example:

    >>> from keras_seq.gradients import phantom_steps
    >>> float(phantom_steps(lambda z: 0.5 * z + 1.0, np.full((1, 1), 2.0), steps=3)[0, 0])
    2.0
    """

    def applied(z):
        return unrolled_steps(f, z, steps, damping)

    return _backend.once_differentiable(applied, ops.stop_gradient(equilibrium))


def unrolled_steps(f: Callable, z: Any, steps: int, damping: float = 0.0):
    """Applies f `steps` times, with gradients through all of them and to `z`.

    Args:
        f: from z to z.
        z: the start, (b, ...).
        steps: number of steps; memory grows with it.
        damping: part of the old iterate that a step keeps, in [0, 1).
    """
    for _ in range(steps):
        value = f(z)
        z = value if damping == 0 else (1 - damping) * value + damping * z
    return z
