"""The gradients that a deep equilibrium layer can have."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from keras_seq import gradients, solvers
from keras_seq._arguments import check_integer
from keras_seq._export import export
from keras_seq.layers.equilibrium_parts import finite_samples, first_given, unrolled
from keras_seq.solvers.driver import FALLBACK


class ForwardSolve(NamedTuple):
    """How a layer solves for its equilibrium.

    Attributes:
        solver: the solver.
        max_steps: the most steps in training.
        limit: the most steps of this solve.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"`.
        fallback: solvers for samples that stagnate or diverge.
        transient: steps in which a residual may grow before it falls.
    """

    solver: Any
    max_steps: int
    limit: int
    tolerance: float
    stop: str
    fallback: Any = FALLBACK
    transient: Any = 0


class Option:
    """What belongs together of the options of a layer: a frozen dataclass that is saved with it."""

    def get_config(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        return cls(**config)


class Gradient(Option):
    """Abstract base of the gradients: an equilibrium is found, then one is attached to it."""

    def solved(self, f, z0, forward: ForwardSolve, keep=()):
        """The equilibrium of a function, with this gradient.

        Args:
            f: from z to z.
            z0: where to start, (b, ...).
            forward: how to solve.
            keep: steps whose iterates are returned too.

        Returns:
            f(z*), a dict of `residual`, `steps` and `status` of each sample, and a list of the
            iterates after the steps to keep, without gradient.
        """
        found = gradients.find_equilibrium(
            f,
            z0,
            forward.solver,
            forward.limit,
            forward.tolerance,
            forward.stop,
            keep,
            forward.fallback,
            forward.transient,
        )
        outputs = self.attached(f, found.value, forward)
        solution = {"residual": found.residual, "steps": found.steps, "status": found.status}
        return finite_samples(outputs, found.value, found.status), solution, list(found.kept)

    def attached(self, f, equilibrium, forward: ForwardSolve):
        """f(z*) with this gradient.

        Args:
            f: from z to z.
            equilibrium: z*.
            forward: how it was found.
        """
        raise NotImplementedError


@export("keras_seq.layers.Implicit")
@dataclass(frozen=True)
class Implicit(Gradient):
    """The gradient of the equilibrium itself, exact up to the tolerance of its own linear solve.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), theorem 1, see
    `keras_seq.gradients.attach_implicit_gradient`. For `DeepEquilibrium(gradient=...)`, as are
    `Phantom`, `OneStep` and `Unrolled`.

    Args:
        solver: of the linear system: a name, a configuration or a solver of `keras_seq.solvers`;
            the layer's own solver if not given.
        max_steps: its limit; the layer's `max_steps` if not given.
        tolerance: its tolerance, relative to the incoming gradient; the layer's if not given.

    Raises:
        ValueError: on values out of range.

    Example:

    >>> layers = keras_seq.layers
    >>> gradient = layers.Implicit(solver={"name": "broyden", "memory": 10}, max_steps=20)
    >>> layer = layers.DeepEquilibrium(layers.DEQTrellisCell(4, 3), gradient=gradient)
    >>> layer.gradient.max_steps
    20
    """

    solver: Any = None
    max_steps: int | None = None
    tolerance: float | None = None

    def __post_init__(self):
        if self.solver is not None:
            object.__setattr__(self, "solver", solvers.get(self.solver))
        if self.max_steps is not None:
            check_integer("gradient.max_steps", self.max_steps)
        if self.tolerance is not None:
            check_at_least("gradient.tolerance", self.tolerance, 0)

    def attached(self, f, equilibrium, forward):
        return gradients.attach_implicit_gradient(
            f,
            equilibrium,
            first_given(self.solver, forward.solver),
            first_given(self.max_steps, forward.max_steps),
            first_given(self.tolerance, forward.tolerance),
            fallback=forward.fallback,
            transient=forward.transient,
        )

    def get_config(self):
        solver = self.solver and keras.saving.serialize_keras_object(self.solver)
        return {**super().get_config(), "solver": solver}


@export("keras_seq.layers.Phantom")
@dataclass(frozen=True)
class Phantom(Gradient):
    """The gradient through a few damped applications of the cell at the equilibrium.

    Geng, Zhang, Bai, Wang and Lin, *On Training Implicit Models* (NeurIPS 2021).

    Args:
        steps: number of applications.
        damping: part of the old iterate that an application keeps, in [0, 1).

    Raises:
        ValueError: on values out of range.
    """

    steps: int = 5
    damping: float = 0.0

    def __post_init__(self):
        check_integer("gradient.steps", self.steps)
        check_below_one("gradient.damping", self.damping)

    def attached(self, f, equilibrium, forward):
        return gradients.phantom_steps(f, equilibrium, self.steps, self.damping)


@export("keras_seq.layers.OneStep")
@dataclass(frozen=True)
class OneStep(Gradient):
    """The gradient of the last application alone, the Jacobian-free one.

    Fung, Heaton, Li, McKenzie, Osher and Yin, *JFB: Jacobian-Free Backpropagation for Implicit
    Networks* (AAAI 2022).
    """

    def attached(self, f, equilibrium, forward):
        return gradients.phantom_steps(f, equilibrium)


@export("keras_seq.layers.Unrolled")
@dataclass(frozen=True)
class Unrolled(Gradient):
    """As many damped applications of the cell as there are steps, in place of the solver.

    The ordinary gradient flows through all of them, at a memory that grows with their number.

    Args:
        damping: part of the old iterate that an application keeps, in [0, 1).

    Raises:
        ValueError: on values out of range.
    """

    damping: float = 0.0

    def __post_init__(self):
        check_below_one("gradient.damping", self.damping)

    def solved(self, f, z0, forward, keep=()):
        limit, tolerance, stop = forward.limit, forward.tolerance, forward.stop
        return unrolled(f, z0, limit, self.damping, tolerance, stop, keep)


def check_at_least(name: str, value, least) -> None:
    """Refuses numbers below the least one."""
    if not value >= least:
        raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")


def check_below_one(name: str, value) -> None:
    """Refuses numbers outside of [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={value}.")


def check_share(name: str, value) -> None:
    """Refuses numbers outside of [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be between 0 and 1. Received: {name}={value}.")
