"""What a solve returns."""

import enum
from typing import Any, NamedTuple


class Status(enum.IntEnum):
    """How the solve of a sample ended."""

    MAX_STEPS = 0
    CONVERGED = 1
    STAGNATED = 2
    DIVERGED = 3
    NOT_FINITE = 4

    @property
    def message(self) -> str:
        """What it means and what helps."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.MAX_STEPS: "The step limit came first: raise `max_steps` or `tolerance`.",
    Status.CONVERGED: "Converged.",
    Status.STAGNATED: (
        "No progress for many steps: the tolerance is below what the number type can resolve, or "
        "no solver that was tried suits the function."
    ),
    Status.DIVERGED: (
        "The residual grew without bound: use Broyden's method, damping, or Jacobian "
        "regularisation in training."
    ),
    Status.NOT_FINITE: "The function gave values that are not finite: look at its inputs.",
}


class Solution(NamedTuple):
    """What `solve` returns.

    Attributes:
        value: the iterate of each sample with the lowest residual, in the shape and type of `z0`.
        residual: (b,) its residual, in the measure of the stop; infinite where f was not finite.
        steps: (b,) int32, steps until the sample stopped.
        status: (b,) int32, see `Status`.
        evaluations: scalar int32, how often f was evaluated.
        trace: (b, max_steps + 1) the residual before each step and after the last, filled up with
            the final one; or `None`.
        kept: a list of the iterates (b, ...) after the steps that `keep` names, in the shape and
            type of `z0`; the final one where a sample stopped before.
    """

    value: Any
    residual: Any
    steps: Any
    status: Any
    evaluations: Any
    trace: Any = None
    kept: Any = ()
