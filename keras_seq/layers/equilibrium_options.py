"""What a deep equilibrium layer does in training besides its solve, and its options by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_seq import gradients
from keras_seq._arguments import check_integer
from keras_seq._backend import traced_for_xla
from keras_seq._export import export
from keras_seq._random import draw_seed
from keras_seq.layers.equilibrium_gradients import (
    ForwardSolve,
    Gradient,
    Implicit,
    OneStep,
    Option,
    Phantom,
    Unrolled,
    check_at_least,
    check_share,
)
from keras_seq.layers.equilibrium_parts import unrolled


@export("keras_seq.layers.JacobianRegularization")
@dataclass(frozen=True)
class JacobianRegularization(Option):
    """An estimate of |∂f/∂z|² at the equilibrium, added to the loss in training.

    Bai, Koltun and Kolter, *Stabilizing Equilibrium Models by Jacobian Regularization* (ICML 2021).
    For `DeepEquilibrium(jacobian=...)`.

    Args:
        weight: of the estimate in the loss; 0 for none.
        frequency: probability that a training step adds it.
        probes: random vectors of an estimate.

    Raises:
        ValueError: on values out of range.

    Example:

    >>> layers = keras_seq.layers
    >>> jacobian = layers.JacobianRegularization(0.5, frequency=0.3)
    >>> layer = layers.DeepEquilibrium(layers.DEQTrellisCell(4, 3), jacobian=jacobian)
    >>> layer.jacobian.weight
    0.5
    """

    weight: float
    frequency: float = 1.0
    probes: int = 1

    def __post_init__(self):
        check_at_least("jacobian.weight", self.weight, 0)
        check_share("jacobian.frequency", self.frequency)
        check_integer("jacobian.probes", self.probes)

    def loss(self, f, outputs, seed_generator, size=None):
        """The loss of a call, a scalar.

        Args:
            f: a `keras_seq.gradients.GuardedCell`.
            outputs: f(z*).
            seed_generator: of the vectors and of the draw.
            size: how many elements of z count; all if not given.
        """
        z = ops.stop_gradient(outputs)
        vectors = gradients.draw_vectors(z, self.probes, seed_generator)

        def measured():
            loss = gradients.jacobian_loss(f, z, vectors, size=size)
            return self.weight * ops.where(ops.isfinite(loss), loss, 0)

        if self.frequency == 1:
            return measured()
        draw = keras.random.uniform((), seed=draw_seed(seed_generator))
        return gradients.if_drawn(draw < self.frequency, measured, f.tensors)


@export("keras_seq.layers.FixedPointCorrection")
@dataclass(frozen=True)
class FixedPointCorrection(Option):
    """Iterates on the way to the equilibrium that are supervised too, in training.

    The sparse fixed-point correction of Bai, Geng, Savani and Kolter, *Deep Equilibrium Optical
    Flow Estimation* (CVPR 2022). For `DeepEquilibrium(correction=...)`: with `return_auxiliary`,
    the cell is applied to each of the iterates once more with its gradient.
    `keras_seq.models.LanguageModel(auxiliary_weight=...)` adds their losses.

    Args:
        steps: the solver steps, counted from 1, whose iterates these are; empty for none.
        decay: the i-th last of them has this weight to the power i.
        frequency: probability that a training step supervises them.

    Raises:
        ValueError: on values out of range.

    Example:

    >>> keras_seq.layers.FixedPointCorrection((2, 5), decay=0.5).scales
    (0.25, 0.5)
    """

    steps: Sequence[int]
    decay: float = 0.8
    frequency: float = 1.0

    def __post_init__(self):
        steps = tuple(check_integer("correction.steps", step) for step in self.steps)
        if tuple(sorted(set(steps))) != steps:
            raise ValueError(
                "`correction.steps` must be growing positive integers. "
                f"Received: correction.steps={list(steps)}."
            )
        object.__setattr__(self, "steps", steps)
        check_share("correction.decay", self.decay)
        check_share("correction.frequency", self.frequency)

    @property
    def scales(self) -> tuple[float, ...]:
        """The weight of each iterate in a loss, besides a common one."""
        count = len(self.steps)
        return tuple(self.decay ** (count - index) for index in range(count))

    def drawn(self, seed_generator):
        """Whether a training step supervises the iterates, a boolean scalar."""
        return keras.random.uniform((), seed=draw_seed(seed_generator)) < self.frequency

    def get_config(self):
        return {**super().get_config(), "steps": list(self.steps)}


@export("keras_seq.layers.Pretraining")
@dataclass(frozen=True)
class Pretraining(Option):
    """Levels in place of the solve for the first steps of training.

    For so many training steps a few applications of the cell with their ordinary gradient take the
    place of the solve. Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), appendix.
    For `DeepEquilibrium(pretraining=...)`. The count is a weight of the layer, so that the switch
    survives saving. Evaluation before the switch is unrolled too. Training with XLA then needs
    sizes that are known when the graph is made.

    Args:
        steps: training steps until the switch; 0 for none.
        levels: applications of the cell.

    Raises:
        ValueError: on values out of range.
    """

    steps: int
    levels: int = 4

    def __post_init__(self):
        check_integer("pretraining.steps", self.steps, 0)
        check_integer("pretraining.levels", self.levels)

    def solved(self, f, z0, forward: ForwardSolve, keep, gradient: Gradient, taken, training):
        """The levels, or the equilibrium once so many training steps were taken.

        Args:
            f: from z to z.
            z0: where to start, (b, ...).
            forward: how to solve for the equilibrium.
            keep: steps whose iterates are returned too.
            gradient: of the equilibrium.
            taken: the training steps before.
            training: as usual.

        Returns:
            What `Gradient.solved` returns.
        """
        if training and None in tuple(z0.shape) and traced_for_xla():
            raise ValueError(
                "With `pretraining` XLA can compile a training step only for sizes that are known "
                "when the graph is made: it makes both phases, and the gradient of a branch needs "
                f"its sizes. Received: z of shape {tuple(z0.shape)}. Batch the data with "
                "`drop_remainder=True`, or compile the model with `jit_compile=False`."
            )

        def levels():
            return unrolled(f, z0, self.levels, 0, forward.tolerance, forward.stop, keep)

        return ops.cond(taken < self.steps, levels, lambda: gradient.solved(f, z0, forward, keep))


NAMES: dict[str, type[Gradient]] = {
    "implicit": Implicit,
    "one_step": OneStep,
    "phantom": Phantom,
    "unrolled": Unrolled,
}
OBJECTS: dict[str, type[Option]] = {
    "gradient": Gradient,
    "jacobian": JacobianRegularization,
    "correction": FixedPointCorrection,
    "pretraining": Pretraining,
}
# Single names for the fields of these objects: those of version 0.1 and of the zoo's settings.
FLAT = {
    "backward_solver": "gradient.solver",
    "backward_max_steps": "gradient.max_steps",
    "backward_tolerance": "gradient.tolerance",
    "phantom_steps": "gradient.steps",
    "damping": "gradient.damping",
    "jacobian_weight": "jacobian.weight",
    "jacobian_frequency": "jacobian.frequency",
    "jacobian_probes": "jacobian.probes",
    "correction_steps": "correction.steps",
    "correction_decay": "correction.decay",
    "correction_frequency": "correction.frequency",
    "pretrain_steps": "pretraining.steps",
    "pretrain_levels": "pretraining.levels",
}


def take_options(given: dict[str, Any], **options) -> dict[str, Any]:
    """The options of a layer as objects; `None` for those that change nothing.

    Args:
        given: further arguments of the layer; the names of `FLAT` are taken out.
        **options: `gradient`, `jacobian`, `correction` and `pretraining`: an object, what Keras
            made of one, or `None`; of a gradient also its name.

    Raises:
        ValueError: on other values, and on an object besides a single name for one of its fields.
    """
    fields: dict[str, dict[str, Any]] = {name: {} for name in OBJECTS}
    for name in [name for name in given if name in FLAT]:
        option, field = FLAT[name].split(".")
        fields[option][field] = given.pop(name)
        if not isinstance(options[option], str | None):
            raise ValueError(
                f"`{name}` must be left out where `{option}` is an object. Received: "
                f"{name}={fields[option][field]!r}. Write it as `{field}` of that object."
            )
    gradient = fields.pop("gradient")
    taken: dict[str, Any] = {"gradient": _gradient(options["gradient"], gradient)}
    for name, values in fields.items():
        value = options[name]
        if value is not None:
            value = _object(name, value, f"a `keras_seq.layers.{OBJECTS[name].__name__}` or `None`")
        elif values:
            first = "weight" if name == "jacobian" else "steps"
            nothing = () if name == "correction" else 0
            value = OBJECTS[name](**{first: nothing, **values})
        taken[name] = value if _has_effect(value) else None
    return taken


def _gradient(value, fields: dict[str, Any]) -> Gradient:
    """A gradient by its name, with those of the fields that it has; all of them are checked."""
    made = {}
    for name, cls in NAMES.items():
        own = cls.__dataclass_fields__  # type: ignore[attr-defined]
        made[name] = cls(**{field: fields[field] for field in fields if field in own})
    known = f"one of {', '.join(map(repr, NAMES))}, or an object such as `Phantom(steps=5)`"
    named = isinstance(value, str) and value in made
    return made[value] if named else _object("gradient", value, known)


def _object(name: str, value, known: str) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        value = keras.saving.deserialize_keras_object(value)
    if not isinstance(value, OBJECTS[name]):
        raise ValueError(f"`{name}` must be {known}. Received: {name}={value!r}.")
    return value


def _has_effect(option) -> bool:
    if isinstance(option, JacobianRegularization):
        return option.weight > 0
    return option is not None and bool(option.steps)


def gradient_config(gradient: Gradient) -> Any:
    """What `take_options` makes the gradient of: its name where nothing else is said."""
    for name, cls in NAMES.items():
        if type(gradient) is cls and gradient == cls():
            return name
    return keras.saving.serialize_keras_object(gradient)


def option_config(option: Option | None) -> Any:
    """What `take_options` makes another option of."""
    return option and keras.saving.serialize_keras_object(option)
