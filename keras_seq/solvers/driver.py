"""The loop that runs every solver."""

import enum
import functools
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_seq._dtypes import float32_at_least, largest
from keras_seq.solvers.registry import get
from keras_seq.solvers.solver import Solver

STOPS = ("relative", "absolute")
PATIENCE = 30  # steps without progress after which a sample is given up
PROGRESS = 0.95  # the best residual must fall below this part of what it was
EXPLOSION = 1e6  # a residual this many times the first has diverged


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
        "the solver does not suit the function."
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


def solve(
    f: Callable[[Any], Any],
    z0: Any,
    solver: Solver | str | dict = "broyden",
    max_steps: int = 30,
    tolerance: float = 1e-3,
    stop: str = "relative",
    trace: bool = False,
    keep: Sequence[int] = (),
) -> Solution:
    """Solves z = f(z), each sample of the batch for itself.

    A sample that has converged stops changing, so its answer does not depend on the others of the
    batch (if f treats them apart). Nothing is raised if a sample does not converge: its status says
    how it ended, and its value is the best iterate, the initial guess included. Works eagerly, in
    graphs and under XLA. Types below float32 are solved in float32. Not to be differentiated
    through: see `keras_seq.gradients`.

    Args:
        f: from a tensor of the shape and type of `z0` to another.
        z0: the initial guess, (b, ...).
        solver: a name, a configuration or a `Solver`.
        max_steps: the most steps. f is evaluated once a step, and once before the first.
        tolerance: a sample has converged when its residual is at most this.
        stop: `"relative"` measures |f(z) - z| / |f(z)|, `"absolute"` measures |f(z) - z|; both are
            norms over all of a sample.
        trace: also return the residuals of all steps.
        keep: steps, counted from 1, whose iterates are returned too.

    Raises:
        ValueError: on an unknown solver or stop, or a limit below 1.

    Example:

    >>> from keras_seq.solvers import solve, Status
    >>> solution = solve(lambda z: ops.cos(z), np.zeros((1, 1), "float32"), tolerance=1e-5)
    >>> Status(int(solution.status[0])).name, round(float(solution.value[0, 0]), 4)
    ('CONVERGED', 0.7391)
    """
    solver = get(solver)
    check_limits(max_steps, tolerance, stop)
    z0 = ops.convert_to_tensor(z0)
    kind = z0.dtype
    wide = float32_at_least(kind)
    shape = ops.shape(z0)
    batch, size = shape[0], functools.reduce(operator.mul, shape[1:], 1)
    start = ops.reshape(ops.cast(z0, wide), (batch, size))

    def evaluate(z):
        value = f(ops.cast(ops.reshape(z, shape), kind))
        return ops.reshape(ops.cast(value, wide), (batch, size)) - z

    huge = largest(wide)

    def measure(z, g):
        """The residual in the stop's measure, and |g|; the largest number where not finite."""
        length = ops.sqrt(ops.sum(g * g, axis=1))
        residual = length
        if stop == "relative":
            value = z + g
            residual = length / (ops.sqrt(ops.sum(value * value, axis=1)) + 1e-9)
        fine = ops.isfinite(residual)
        return ops.where(fine, residual, huge), ops.where(fine, length, huge)

    g = evaluate(start)
    residual, length = measure(start, g)
    running = ops.zeros((batch,), "int32") + Status.MAX_STEPS
    status = ops.where(residual <= tolerance, int(Status.CONVERGED), running)
    status = ops.where(residual >= huge, int(Status.NOT_FINITE), status)
    variables: dict[str, Any] = {
        "step": ops.zeros((), "int32"),
        "evaluations": ops.ones((), "int32"),
        "z": start,
        "g": ops.where(ops.equal(status, int(Status.MAX_STEPS))[:, None], g, 0),
        "state": solver.init(start, max_steps),
        "status": status,
        "steps": ops.zeros((batch,), "int32"),
        "best": start,
        "lowest": residual,
        "mark": residual,  # the lowest residual at the last progress, and when that was
        "marked": ops.zeros((batch,), "int32"),
    }
    if trace:
        variables["trace"] = ops.scatter_update(
            ops.zeros((max_steps + 1, batch), wide), [[0]], residual[None]
        )

    for place in range(len(keep)):
        variables[f"kept_{place}"] = start

    def unfinished(v):
        return ops.logical_and(
            v["step"] < max_steps, ops.any(ops.equal(v["status"], int(Status.MAX_STEPS)))
        )

    def advance(v):
        active = ops.equal(v["status"], int(Status.MAX_STEPS))
        z, g, state, evaluations = solver.advance(evaluate, v["z"], v["g"], v["state"], v["step"])
        step = v["step"] + 1
        now, size_now = measure(z, g)
        better = ops.logical_and(active, now < v["lowest"])
        lowest = ops.where(better, now, v["lowest"])
        progress = lowest < PROGRESS * v["mark"]
        marked = ops.where(progress, step, v["marked"])

        ending = ops.where(step - marked >= PATIENCE, int(Status.STAGNATED), running)
        ending = ops.where(size_now > EXPLOSION * length, int(Status.DIVERGED), ending)
        ending = ops.where(now >= huge, int(Status.NOT_FINITE), ending)
        ending = ops.where(now <= tolerance, int(Status.CONVERGED), ending)
        status = ops.where(active, ending, v["status"])
        # Branches, since the usual case, all samples better and none finished, copies nothing.
        best = ops.cond(
            ops.all(better), lambda: z, lambda: ops.where(better[:, None], z, v["best"])
        )
        # A finished sample waits at its best iterate with a residual of zero, so that f sees no
        # wild values and the solver moves nothing.
        waiting = ops.not_equal(status, int(Status.MAX_STEPS))
        z, g = ops.cond(
            ops.any(waiting),
            lambda: (ops.where(waiting[:, None], best, z), ops.where(waiting[:, None], 0, g)),
            lambda: (z, g),
        )
        following = {
            "step": step,
            "evaluations": v["evaluations"] + evaluations,
            "z": z,
            "g": g,
            "state": state,
            "status": status,
            "steps": ops.where(active, step, v["steps"]),
            "best": best,
            "lowest": lowest,
            "mark": ops.where(progress, lowest, v["mark"]),
            "marked": marked,
        }
        if trace:
            row = ops.where(active, now, v["lowest"])
            following["trace"] = ops.scatter_update(
                v["trace"], ops.reshape(step, (1, 1)), row[None]
            )
        for place, wanted in enumerate(keep):
            name = f"kept_{place}"
            following[name] = ops.where(ops.equal(step, wanted), following["z"], v[name])
        return (following,)

    (v,) = ops.while_loop(unfinished, advance, (variables,))
    traced = None
    if trace:
        taken = ops.arange(max_steps + 1, dtype="int32") <= v["step"]
        traced = ops.where(taken[:, None], v["trace"], v["lowest"][None])
        traced = ops.transpose(infinite_at(huge, traced))
    return Solution(
        value=ops.cast(ops.reshape(v["best"], shape), kind),
        residual=infinite_at(huge, v["lowest"]),
        steps=v["steps"],
        status=v["status"],
        evaluations=v["evaluations"],
        trace=traced,
        kept=[
            ops.cast(
                ops.reshape(ops.where(v["step"] >= wanted, v[f"kept_{i}"], v["best"]), shape), kind
            )
            for i, wanted in enumerate(keep)
        ],
    )


def infinite_at(huge: float, x):
    """Non-negative numbers with infinity in place of `huge`, made only where it is."""
    return ops.where(x < huge, x, x + x)


def check_limits(max_steps, tolerance, stop, names=("max_steps", "tolerance", "stop")):
    """Refuses limits out of range, under the names that the caller uses for them."""
    if not isinstance(max_steps, numbers.Integral) or max_steps < 1:
        raise ValueError(
            f"`{names[0]}` must be a positive integer. Received: {names[0]}={max_steps}."
        )
    if tolerance < 0:
        raise ValueError(f"`{names[1]}` must not be negative. Received: {names[1]}={tolerance}.")
    if stop not in STOPS:
        raise ValueError(f"`{names[2]}` must be one of {STOPS}. Received: {names[2]}={stop!r}.")
