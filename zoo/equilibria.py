"""The equilibrium of a cell with the settings that all DEQ models share."""

from collections.abc import Sequence
from typing import Any

from keras_seq.layers import DeepEquilibrium
from keras_seq.solvers.driver import FALLBACK
from keras_seq.zoo.builders import after


def equilibrium_of(
    cell,
    *,
    solver: Any = "broyden",
    gradient: str = "implicit",
    max_steps: int = 30,
    inference_max_steps: int | None = None,
    tolerance: float = 1e-3,
    stop: str = "relative",
    backward_solver: Any = None,
    backward_max_steps: int | None = None,
    backward_tolerance: float | None = None,
    phantom_steps: int = 5,
    subsequence_length: int | str | None = None,
    fallback: Sequence[Any] | None = FALLBACK,
    pretrain_steps: int = 0,
    pretrain_levels: int = 4,
    jacobian_weight: float = 0.0,
    jacobian_frequency: float = 1.0,
    correction_steps: Sequence[int] = (),
    correction_decay: float = 0.8,
    correction_frequency: float = 1.0,
    seed: int | None = None,
) -> DeepEquilibrium:
    """Builds the equilibrium of a cell, in the cell's precision.

    Args:
        cell: the cell.
        solver: of the forward solve.
        gradient: `"implicit"`, `"one_step"`, `"phantom"` or `"unrolled"`.
        max_steps: the most solver steps in training.
        inference_max_steps: the most in evaluation.
        tolerance: of the forward solve.
        stop: `"relative"` or `"absolute"`.
        backward_solver: of the backward solve.
        backward_max_steps: its limit.
        backward_tolerance: its tolerance.
        phantom_steps: applications of the phantom gradient.
        subsequence_length: steps of the chunks that are solved in order, or `"auto"`.
        fallback: solvers for samples that stagnate or diverge, or `None`.
        pretrain_steps: training steps with `pretrain_levels` levels in place of the solve.
        pretrain_levels: levels in that phase.
        jacobian_weight: of the Jacobian regularisation.
        jacobian_frequency: probability that a training step has it.
        correction_steps: solver steps whose iterates are supervised too.
        correction_decay: how fast their weight falls away from the end.
        correction_frequency: probability that a training step supervises them.
        seed: the cell's; the layer takes another one.
    """
    return DeepEquilibrium(
        cell,
        solver=solver,
        gradient=gradient,
        max_steps=max_steps,
        inference_max_steps=inference_max_steps,
        tolerance=tolerance,
        stop=stop,
        backward_solver=backward_solver,
        backward_max_steps=backward_max_steps,
        backward_tolerance=backward_tolerance,
        phantom_steps=phantom_steps,
        subsequence_length=subsequence_length,
        fallback=fallback,
        pretrain_steps=pretrain_steps,
        pretrain_levels=pretrain_levels,
        jacobian_weight=jacobian_weight,
        jacobian_frequency=jacobian_frequency,
        correction_steps=correction_steps,
        correction_decay=correction_decay,
        correction_frequency=correction_frequency,
        seed=after(seed, 2),
        dtype=cell.dtype_policy,
        name="equilibrium",
    )
