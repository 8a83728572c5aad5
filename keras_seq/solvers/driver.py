"""The loop that runs every solver."""

import functools
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq._dtypes import float32_at_least, largest
from keras_seq.solvers.registry import get
from keras_seq.solvers.solution import Solution, Status
from keras_seq.solvers.solver import Solver

STOPS = ("relative", "absolute")
PATIENCE = 30  # the fewest steps without progress after which a sample is solved another way
PROGRESS = 0.95  # the best residual must fall below this part of what it was
EXPLOSION = 1e6  # a residual this many times the first has diverged
RESOLUTION = 8  # relative residuals below so many units of rounding are as low as they get

# The ways to go on where a solver stagnates or diverges, in turn.
FALLBACK: tuple[Any, ...] = ({"name": "anderson"}, {"name": "fixed_point", "damping": 0.5})

_RUNNING = -1  # the status of a sample while a fallback solves it


def solve(
    f: Callable[[Any], Any],
    z0: Any,
    solver: Solver | str | dict = "broyden",
    max_steps: int = 30,
    tolerance: float = 1e-3,
    stop: str = "relative",
    trace: bool = False,
    keep: Sequence[int] = (),
    fallback: Sequence[Any] | None = FALLBACK,
    transient: Any = 0,
) -> Solution:
    """Solves z = f(z), each sample of the batch for itself.

    A sample that has converged stops changing, so its answer does not depend on the others of the
    batch (if f treats them apart). Nothing is raised if a sample does not converge: its status says
    how it ended, and its value is the best iterate, the initial guess included. Works eagerly, in
    graphs and under XLA. Types below float32 are solved in float32. Not to be differentiated
    through: see `keras_seq.gradients`.

    **A second way.** A sample that stagnates or diverges goes on from its best iterate with the
    first solver of `fallback`, once the others are done, and then with the second; the last one has
    all the steps that are left. To stagnate is not to lower the best residual by 5% in so many
    steps: the limit, shared among the solvers, and 30 at least. A sample whose residual is as low
    as its number type resolves is left alone. A limit of 30 steps or fewer is the time of one way:
    there is no second one then, and none is compiled.

    Args:
        f: from a tensor of the shape and type of `z0` to another.
        z0: the initial guess, (b, ...).
        solver: a name, a configuration or a `Solver`.
        max_steps: the most steps, those of fallbacks included. f is evaluated once a step, and once
            before the first step of each solver.
        tolerance: a sample has converged when its residual is at most this.
        stop: `"relative"` measures |f(z) - z| / |f(z)|, `"absolute"` measures |f(z) - z|; both are
            norms over all of a sample.
        trace: also return the residuals of all steps.
        keep: steps, counted from 1, whose iterates are returned too.
        fallback: solvers for samples that stagnate or diverge; `None` for none: then only the
            limit, rounding and divergence end a solve that does not converge.
        transient: steps in which a residual may grow before it falls: such as the length of a
            sequence where an application passes on by one step what happens at another. An integer
            or a scalar tensor. Neither stagnation nor divergence is judged before.

    Raises:
        ValueError: on an unknown solver or stop, or a limit below 1.

    Example:

    >>> from keras_seq.solvers import solve, Status
    >>> solution = solve(lambda z: ops.cos(z), np.zeros((1, 1), "float32"), tolerance=1e-5)
    >>> Status(int(solution.status[0])).name, round(float(solution.value[0, 0]), 4)
    ('CONVERGED', 0.7391)
    """
    solver, ways = get(solver), fallback_of(fallback)
    check_limits(max_steps, tolerance, stop)
    if max_steps <= PATIENCE:
        transient = 0  # nothing is judged within so few steps but what explodes
    static = isinstance(transient, int)
    least = max(PATIENCE, max_steps // (1 + len(ways)))
    patience = max(least, transient) if static else ops.maximum(least, transient)
    if max_steps <= (patience if static else least):
        ways = ()
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

    def resolved(v):
        """Which samples have a residual that rounding alone explains."""
        least = RESOLUTION * _epsilon(kind)
        if stop == "absolute":
            least = least * ops.sqrt(ops.sum(v["best"] * v["best"], axis=1))
        return v["lowest"] <= least

    g = evaluate(start)
    residual, length = measure(start, g)
    running = ops.zeros((batch,), "int32") + Status.MAX_STEPS
    status = ops.where(residual <= tolerance, int(Status.CONVERGED), running)
    status = ops.where(residual >= huge, int(Status.NOT_FINITE), status)
    variables: dict[str, Any] = {
        "evaluations": ops.ones((), "int32"),
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

    def run(solver, v, g, going, last):
        """All steps of one solver, for the samples whose status is `going`.

        Args:
            solver: the solver.
            v: the variables.
            g: the residual at the best iterates.
            going: `MAX_STEPS` in the first run, in which all samples count alike.
            last: whether stagnation is no end, unless rounding explains it.
        """
        first = going == Status.MAX_STEPS
        active = ops.equal(v["status"], int(going))
        v = {
            **v,
            "step": ops.zeros((), "int32"),
            "z": v["best"],
            "g": ops.where(active[:, None], g, 0),
            "state": solver.init(v["best"], max_steps),
        }

        def unfinished(v):
            return ops.logical_and(
                v["step"] < max_steps, ops.any(ops.equal(v["status"], int(going)))
            )

        def advance(v):
            active = ops.equal(v["status"], int(going))
            z, g, state, evaluations = solver.advance(
                evaluate, v["z"], v["g"], v["state"], v["step"]
            )
            step = v["step"] + 1
            count = step if first else v["steps"] + 1  # of each sample; where it is active, if not
            now, size_now = measure(z, g)
            better = ops.logical_and(active, now < v["lowest"])
            lowest = ops.where(better, now, v["lowest"])
            progress = lowest < PROGRESS * v["mark"]
            marked = ops.where(progress, count, v["marked"])

            ending = running if first else ops.where(count >= max_steps, running, int(going))
            if max_steps > PATIENCE:
                waited = count - marked
                stuck = waited >= (PATIENCE if last else patience)
                if last:
                    stuck = ops.logical_and(stuck, resolved(v))
                elif stop == "relative" and least > PATIENCE:
                    rounded = ops.logical_and(waited >= PATIENCE, resolved(v))
                    stuck = ops.logical_or(stuck, rounded)
                ending = ops.where(stuck, int(Status.STAGNATED), ending)
            exploded = size_now > EXPLOSION * length
            if not (static and transient <= 0):
                exploded = ops.logical_and(exploded, count > transient)
            ending = ops.where(exploded, int(Status.DIVERGED), ending)
            ending = ops.where(now >= huge, int(Status.NOT_FINITE), ending)
            ending = ops.where(now <= tolerance, int(Status.CONVERGED), ending)
            status = ops.where(active, ending, v["status"])
            # Branches, since the usual case, all samples better and none finished, copies nothing.
            best = ops.cond(
                ops.all(better), lambda: z, lambda: ops.where(better[:, None], z, v["best"])
            )
            # A finished sample waits at its best iterate with a residual of zero, so that f sees no
            # wild values and the solver moves nothing.
            waiting = ops.not_equal(status, int(going))
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
                "steps": ops.where(active, count, v["steps"]),
                "best": best,
                "lowest": lowest,
                "mark": ops.where(progress, lowest, v["mark"]),
                "marked": marked,
            }
            if trace:
                rows = ops.arange(max_steps + 1, dtype="int32")[:, None]
                here = ops.logical_and(ops.equal(rows, following["steps"]), active)
                following["trace"] = ops.where(here, now, v["trace"])
            for place, wanted in enumerate(keep):
                name = f"kept_{place}"
                here = ops.equal(step, wanted)
                if not first:
                    here = ops.logical_and(ops.equal(following["steps"], wanted), active)[:, None]
                following[name] = ops.where(here, following["z"], v[name])
            return (following,)

        (v,) = ops.while_loop(unfinished, advance, (v,))
        return {name: v[name] for name in variables}

    v = run(solver, variables, g, Status.MAX_STEPS, not ways)

    def lost(v):
        """Which samples another solver may still solve."""
        stagnated = ops.equal(v["status"], int(Status.STAGNATED))
        stagnated = ops.logical_and(stagnated, ops.logical_not(resolved(v)))
        diverged = ops.equal(v["status"], int(Status.DIVERGED))
        return ops.logical_and(ops.logical_or(stagnated, diverged), v["steps"] < max_steps)

    for place, way in enumerate(ways):
        last = place == len(ways) - 1

        def again(way=way, v=v, last=last):
            status = ops.where(lost(v), _RUNNING, v["status"])
            begun = {
                **v,
                "status": status,
                "evaluations": v["evaluations"] + 1,
                "mark": v["lowest"],
                "marked": v["steps"],
            }
            return run(way, begun, evaluate(v["best"]), _RUNNING, last)

        v = ops.cond(ops.any(lost(v)), again, lambda v=v: dict(v))

    stuck = ops.logical_and(
        ops.equal(v["status"], int(Status.MAX_STEPS)), v["steps"] - v["marked"] >= patience
    )
    traced = None
    if trace:
        taken = ops.arange(max_steps + 1, dtype="int32")[:, None] <= v["steps"]
        traced = ops.where(taken, v["trace"], v["lowest"][None])
        traced = ops.transpose(infinite_at(huge, traced))

    def shaped(z):
        return ops.cast(ops.reshape(z, shape), kind)

    return Solution(
        value=shaped(v["best"]),
        residual=infinite_at(huge, v["lowest"]),
        steps=v["steps"],
        status=ops.where(stuck, int(Status.STAGNATED), v["status"]),
        evaluations=v["evaluations"],
        trace=traced,
        kept=[
            shaped(ops.where((v["steps"] >= wanted)[:, None], v[f"kept_{i}"], v["best"]))
            for i, wanted in enumerate(keep)
        ],
    )


def _epsilon(dtype) -> float:
    """The unit of rounding of a type."""
    name = keras.backend.standardize_dtype(dtype)
    return 2.0**-7 if name == "bfloat16" else float(np.finfo(name).eps)


def fallback_of(fallback, name: str = "fallback") -> tuple[Solver, ...]:
    """The solvers of a fallback; none for `None`.

    Args:
        fallback: a sequence of solvers, names and configurations, or `None`.
        name: of the argument, for errors.
    """
    if fallback is None:
        return ()
    if isinstance(fallback, str | dict | Solver) or not isinstance(fallback, Sequence):
        raise ValueError(
            f"`{name}` must be a sequence of solvers, or `None` for none. "
            f"Received: {name}={fallback!r}. Write one solver as `({fallback!r},)`."
        )
    return tuple(get(way) for way in fallback)


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
