"""Broyden's method with limited memory."""

import keras
from keras import ops

from keras_seq._backend import traced_for_xla
from keras_seq._dtypes import largest
from keras_seq._export import export
from keras_seq.solvers._backend import after, own_zeros, write_rows
from keras_seq.solvers._low_rank import reduced
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

    There are two ways to keep it, chosen by what is asked for:

    - If the memory holds all steps and none is shortened, u is a multiple of the step that follows,
      and H is a product of factors 1 + Δz₊ Δzᵀ / |Δz|² (Kelley, *Iterative Methods for Linear and
      Nonlinear Equations*, 1995, section 7.3). Then the steps alone are kept, m vectors, and a step
      reads them twice.
    - Else both u and v are, 2 m vectors. When the memory is full, the nearest sum of two thirds as
      many takes their place (the reduction of van der Rotten, *A Limited Memory Broyden Method to
      Solve High-Dimensional Systems of Nonlinear Equations*, thesis, Leiden 2003): what H learned
      is kept where it matters. To drop the oldest pairs loses it, and often the solve with them.

    Args:
        memory: number m of pairs that H is made of.
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
                "`line_search_steps` must be positive. "
                f"Received: line_search_steps={line_search_steps}."
            )
        self.memory = memory
        self.line_search = line_search
        self.line_search_steps = line_search_steps

    def init(self, z, max_steps):
        batch, size = ops.shape(z)
        slots = max(1, min(self.memory, max_steps - 1))  # the last step is not learned from
        wraps = slots < max_steps - 1
        state = {"dz": ops.zeros_like(z)}
        if not (wraps or self.line_search):
            state["steps"] = own_zeros((batch, slots, size), z.dtype)
            state["chain"] = ops.zeros((batch, slots, slots), z.dtype)
            state["weights"] = ops.zeros((batch, slots), z.dtype)
            return (state,)
        state["v"] = own_zeros((batch, slots, size), z.dtype)
        state["u"] = own_zeros((batch, slots, size), z.dtype)
        if wraps:
            state["shift"] = ops.zeros_like(z)  # what fewer pairs changed of H g
            state["used"] = ops.zeros((), "int32")
        if self.line_search:
            state["scale"] = ops.ones((batch, 1), z.dtype)
        return (state,)

    def propose(self, z, g, state, step):
        (state,) = state
        following = self._from_steps if "steps" in state else self._from_pairs
        state = following(g, state, step)
        return z + state["dz"], (state,)

    def _from_steps(self, g, state, step):
        """The next state where all steps s are kept.

        With factors 1 + a_j s_{j+1} s_jᵀ, a_j = 1 / |s_j|², and H g = -g + Σ a_j c_j s_{j+1}, the
        c solve a triangular system, c = -S g + L c with L_ji = a_i s_j · s_{i+1}. The inverse of
        1 - L, the chain, grows by a row a step.
        """
        dz, chain, weights = state["dz"], state["chain"], state["weights"]
        slots = chain.shape[1]
        slot = ops.mod(step - 1, slots)  # zeros go into the last slot before the first step
        place = ops.one_hot(slot, slots, dtype=g.dtype)
        steps = write_rows(state["steps"], dz, slot)
        sg, sdz = _products(steps, g, dz)
        c = weights * ops.matmul(chain, -sg[:, :, None])[:, :, 0]
        c = ops.pad(c[:, :-1], [[0, 0], [1, 0]])
        # Δz and H g, from scalars that are known: H g = -g + Σ c s.
        squared = ops.sum(sdz * place, axis=1, keepdims=True)
        across = ops.sum(c * sdz - sg * place, axis=1, keepdims=True)
        denominator = squared + across
        usable = ops.abs(denominator) > _SMALLEST * squared
        factor = ops.where(usable, squared / ops.where(usable, denominator, 1), 1)
        row = weights * ops.pad(sdz[:, 1:], [[0, 0], [0, 1]])
        row = ops.matmul(row[:, None, :], chain)[:, 0] + place
        learned = ops.where(usable, 1 / ops.where(usable, squared, 1), 0)
        place = place[:, None]
        return {
            "dz": factor * g - ops.matmul((factor * c)[:, None, :], steps)[:, 0],
            "steps": steps,
            "chain": chain * (1 - place) + row[:, None, :] * place,
            "weights": weights * (1 - place[:, 0]) + learned * place[:, 0],
        }

    def _from_pairs(self, g, state, step):
        """The next state where u and v are kept; `scale` is by how much the last step was cut."""
        dz = state["dz"]
        # Before the first step zeros go into a slot, and stay nothing that H knows of.
        slot = state["used"] if "used" in state else ops.maximum(step - 1, 0)
        vg = ops.matmul(state["v"], ops.expand_dims(g, 2))[:, :, 0]
        udz = ops.matmul(state["u"], ops.expand_dims(dz, 2))[:, :, 0]
        v = ops.matmul(udz[:, None, :], state["v"])[:, 0] - dz
        v = after(v, vg)  # then all readers of the buffer that it goes into are done
        # Δz - H Δg, where H g before the step was -Δz / scale + shift, is g + shift + cut Δz - Σ vg
        # u, and H g is Σ vg u - g. Products with Δz follow from those with u and with g.
        squared = ops.sum(dz * dz, axis=1, keepdims=True)
        dot = ops.sum(udz * vg, axis=1, keepdims=True) - ops.sum(dz * g, axis=1, keepdims=True)
        cut = 1 - 1 / state["scale"] if "scale" in state else 0.0
        denominator = squared * (1 - cut) + dot
        if "shift" in state:
            denominator = denominator - ops.sum(state["shift"] * dz, axis=1, keepdims=True)
        usable = ops.abs(denominator) > _SMALLEST * squared
        inverse = ops.where(usable, 1 / ops.where(usable, denominator, 1), 0)
        second = -inverse * dot
        both = ops.stack([-inverse * vg, -(1 + second) * vg], axis=1)
        both = ops.matmul(both, state["u"])
        apart = g
        if "shift" in state:
            apart = apart + state["shift"]
        if "scale" in state:
            apart = apart + cut * dz
        u = both[:, 0] + inverse * apart
        made = {"v": write_rows(state["v"], v, slot), "u": write_rows(state["u"], u, slot)}
        # f is evaluated when both are written, and what they were made of is free again.
        second = after(second, made["v"], made["u"])
        made["dz"] = both[:, 1] + g + second * apart
        if "scale" in state:
            made["scale"] = state["scale"]
        if "used" in state:
            used = state["used"] + ops.cast(step > 0, "int32")
            made |= self._with_room(g, made, used)
        return made

    def _with_room(self, g, made, used):
        """The pairs with room for another: fewer of them, the nearest to H, if there is none.

        Args:
            g: the residual.
            made: the next state, with all pairs.
            used: how many there are.
        """
        slots = made["v"].shape[1]
        rank = 2 * slots // 3

        def fewer():
            u, v = reduced(made["u"], made["v"], rank)
            vg = ops.matmul(v, ops.expand_dims(g, 2))
            # H g with fewer pairs, less -Δz, which is what it was.
            shift = ops.matmul(ops.transpose(vg, (0, 2, 1)), u)[:, 0] - g + made["dz"]
            return u, v, shift, ops.zeros_like(used) + rank

        def as_before():
            return made["u"], made["v"], ops.zeros_like(g), used

        u, v, shift, used = ops.cond(used >= slots, fewer, as_before)
        return {"u": u, "v": v, "shift": shift, "used": used}

    def advance(self, evaluate, z, g, state, step):
        if not self.line_search:
            return super().advance(evaluate, z, g, state, step)
        start = ops.sum(g * g, axis=1, keepdims=True)
        _, (state,) = self.propose(z, g, state, step)
        full, huge = state["dz"], largest(keras.backend.standardize_dtype(z.dtype))

        def accepted(scale, value):
            enough = value <= (1 - _ARMIJO * scale) * start
            return ops.logical_or(enough, start == 0)  # a finished sample is not searched for

        def measure(scale):
            trial = evaluate(z + scale * full)
            value = ops.sum(trial * trial, axis=1, keepdims=True)
            return trial, ops.where(ops.isfinite(value), value, huge)

        def searching(trials, scale, trial, value):
            enough = ops.all(accepted(scale, value))
            return ops.logical_and(trials <= self.line_search_steps, ops.logical_not(enough))

        def shorten(trials, scale, trial, value):
            # The minimum of the parabola through both ends and the expected slope at the start.
            known = value < huge
            bend = ops.where(known, value, 1) - start * (1 - scale)
            parabola = start * scale * scale / (2 * ops.where(bend > 0, bend, 1))
            shorter = ops.where(known, ops.clip(parabola, 0.1 * scale, 0.5 * scale), 0.1 * scale)
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


def _products(rows, first, second):
    """The products (b, m) of (b, m, n) with two vectors (b, n).

    As one product of two columns, unless XLA compiles it, which has fast code for single ones only.
    """
    if traced_for_xla():
        return [ops.matmul(rows, part[:, :, None])[:, :, 0] for part in (first, second)]
    both = ops.einsum("bkn,bmn->bkm", ops.stack([first, second], axis=1), rows)
    return both[:, 0], both[:, 1]
