"""Broyden's method with limited memory."""

from keras import ops

from keras_seq._export import export
from keras_seq.solvers.anderson import empty_buffer, write
from keras_seq.solvers.solver import Solver

_ARMIJO = 1e-4  # the part of the expected decrease that a step must give
_SMALLEST = 1e-8  # of a denominator, relative to the squared step


@export("keras_seq.solvers.Broyden")
class Broyden(Solver):
    """Broyden's "good" method for the root of g(z) = f(z) - z.

    Broyden, *A Class of Methods for Solving Nonlinear Simultaneous Equations* (1965); used for
    equilibria by Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), section 3.1.3.
    The inverse Jacobian of g is -1 plus a product of rank m, kept for every sample:

        H = -1 + Σ u vᵀ,   Δz = -H g,   v = Hᵀ Δz,   u = (Δz - H Δg) / (v · Δg)

    When the memory is full, the oldest pair leaves before the new one is made, so that the secant
    equation H Δg = Δz holds for the matrix that is used. Since H g of the step before is Δz, a step
    needs only H g and Hᵀ Δz: two batched products with the memory.

    Args:
        memory: number m of pairs kept.
        line_search: `True` to shorten steps that do not reduce |g| enough (Armijo's rule, for each
            sample). Each trial costs an evaluation of f.
        line_search_steps: the most trials after the full step.

    Example:

    >>> from keras_seq.solvers import Broyden, solve
    >>> solution = solve(lambda z: 1.0 - 2.0 * z, np.zeros((1, 3), "float32"), Broyden(), 10)
    >>> bool(np.allclose(solution.value, 1 / 3))
    True
    """

    def __init__(self, memory: int = 30, line_search: bool = False, line_search_steps: int = 5):
        if memory < 1:
            raise ValueError(f"`memory` must be positive. Received: memory={memory}.")
        if line_search_steps < 1:
            raise ValueError(
                f"`line_search_steps` must be positive. Received: {line_search_steps}."
            )
        self.memory = memory
        self.line_search = line_search
        self.line_search_steps = line_search_steps

    def init(self, z, max_steps):
        batch, size = ops.shape(z)
        slots = max(1, min(self.memory, max_steps - 1))  # the last step needs no pair of its own
        wraps = slots < max_steps - 1
        state = {
            "pairs": empty_buffer(z, (2 * batch, slots, size)),  # all v, then all u
            "dz": ops.zeros_like(z),
        }
        if wraps:
            state["dots"] = ops.zeros((batch, slots), z.dtype)  # v · g before the last step
        if self.line_search:
            state["scale"] = ops.ones((batch, 1), z.dtype)
        return (state,)

    def propose(self, z, g, state, step):
        (state,) = state
        pairs, dz = state["pairs"], state["dz"]
        batch, slots = ops.shape(z)[0], pairs.shape[1]
        slot = ops.mod(step - 1, slots)
        place = ops.one_hot(slot, slots, dtype=z.dtype)

        products = ops.matmul(pairs, ops.concatenate([g, dz], axis=0)[:, :, None])[:, :, 0]
        if "dots" in state:
            products = products * (1 - place)
        vg, udz = products[:batch], products[batch:]
        sums = ops.matmul(ops.concatenate([udz, vg], axis=0)[:, None, :], pairs)[:, 0]
        v = sums[:batch] - dz
        hg = sums[batch:] - g
        # Δz - H Δg, where H g before the step was -Δz / scale, less what the dropped pair gave.
        difference = -hg
        if "dots" in state:
            flat = ops.reshape(pairs, (2 * batch * slots, -1))
            old = ops.take(flat, (batch + ops.arange(batch)) * slots + slot, axis=0)
            difference = difference - old * ops.sum(state["dots"] * place, axis=1, keepdims=True)
        if "scale" in state:
            difference = difference + dz * (1 - 1 / state["scale"])
        squared = ops.sum(dz * dz, axis=1, keepdims=True)
        denominator = squared - ops.sum(dz * difference, axis=1, keepdims=True)
        usable = ops.abs(denominator) > _SMALLEST * squared
        u = ops.where(usable, difference / ops.where(usable, denominator, 1), 0)
        dot = ops.sum(v * g, axis=1, keepdims=True)
        dz = -(hg + u * dot)

        following = {**state, "dz": dz}
        following["pairs"] = write(pairs, ops.concatenate([v, u], axis=0), slot)
        if "dots" in state:
            following["dots"] = vg + dot * place
        return z + dz, (following,)

    def advance(self, evaluate, z, g, state, step):
        if not self.line_search:
            return super().advance(evaluate, z, g, state, step)
        start = ops.sum(g * g, axis=1, keepdims=True)
        _, (state,) = self.propose(z, g, state, step)
        full = state["dz"]

        def accepted(scale, value):
            enough = value <= (1 - _ARMIJO * scale) * start
            return ops.logical_or(enough, start == 0)  # a finished sample is not searched for

        def measure(scale):
            trial = evaluate(z + scale * full)
            value = ops.sum(trial * trial, axis=1, keepdims=True)
            return trial, ops.where(ops.isfinite(value), value, float("inf"))

        def searching(trials, scale, trial, value):
            enough = ops.all(accepted(scale, value))
            return ops.logical_and(trials <= self.line_search_steps, ops.logical_not(enough))

        def shorten(trials, scale, trial, value):
            # The minimum of the parabola through both ends and the expected slope at the start.
            bend = ops.where(ops.isfinite(value), value, 1) - start * (1 - scale)
            parabola = start * scale * scale / (2 * ops.where(bend > 0, bend, 1))
            shorter = ops.where(
                ops.isfinite(value), ops.clip(parabola, 0.1 * scale, 0.5 * scale), 0.1 * scale
            )
            keep = accepted(scale, value)
            shorter = ops.where(keep, scale, shorter)
            again, size = measure(shorter)
            return (
                trials + 1,
                shorter,
                ops.where(keep, trial, again),
                ops.where(keep, value, size),
            )

        scale = ops.ones_like(start)
        trials, scale, trial, _ = ops.while_loop(
            searching, shorten, (ops.ones((), "int32"), scale, *measure(scale))
        )
        dz = scale * full
        return z + dz, trial, ({**state, "dz": dz, "scale": scale},), trials

    def get_config(self):
        return {
            "memory": self.memory,
            "line_search": self.line_search,
            "line_search_steps": self.line_search_steps,
        }
