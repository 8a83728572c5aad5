"""The cell of a deep equilibrium layer as a function of z alone, and its fixed point."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq import gradients, solvers
from keras_seq._backend import runs_eagerly
from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.layers.equilibrium_cell import AdaptedCell
from keras_seq.layers.equilibrium_parts import first_given
from keras_seq.layers.over_rows import Reading
from keras_seq.ops.packing import choose_rows


class FixedPointProblem(CausalLayer):
    """Abstract base of `DeepEquilibrium`: z = f(z) for an input, and its solution alone.

    Attributes:
        cell: the layer f.
        units: width of z, if it was given.
        state_units: width of z, of a built layer.
        solver: of `keras_seq.solvers`.
        max_steps: the most solver steps in training.
        inference_max_steps: the most outside of training; `None` for `max_steps`.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"`.
        fallback: solvers for samples that stagnate or diverge.
        seed: of the power iteration of `spectral_radius`.
    """

    cell: Any
    units: int | None
    state_units: int
    solver: solvers.Solver
    max_steps: int
    inference_max_steps: int | None
    tolerance: float
    stop: str
    fallback: Any
    seed: int | None
    _adapted: AdaptedCell | None
    _told: bool = False

    def contract(self) -> Any:
        """The cell, or what stands before it where it is no `EquilibriumCell`."""
        return self.cell if self._adapted is None else self._adapted

    @property
    def stateful_cell(self) -> bool:
        """Whether the cell has state."""
        return self.contract().has_state

    # The solution alone

    def solve(
        self, x, initial_state=None, initial_guess=None, training=False, trace=False, mask=None
    ):
        """Solves for the equilibrium and returns all that the solver knows, without gradients.

        The whole sequence is solved at once, whatever `subsequence_length` is.

        Args:
            x: as in a call.
            initial_state: as in a call.
            initial_guess: as in a call.
            training: as in a call.
            trace: also return the residuals of all steps.
            mask: as in a call. Masked steps of the value are zeros.

        Returns:
            A `keras_seq.solvers.Solution`.
        """
        f, z0 = self.function(x, initial_state, initial_guess, training, mask)
        found = solvers.solve(
            f,
            z0,
            self.solver,
            self._limit(training),
            self.tolerance,
            self.stop,
            trace,
            fallback=self.fallback,
            transient=self._transient(z0),
        )
        self._tell(found.residual, found.status, training)
        return found

    def function(self, x, initial_state=None, initial_guess=None, training=False, mask=None):
        """The cell as a function of z alone, and the z to start from.

        Steps of z stand where those of x do, and a `lookahead` adds none.

        Args:
            x: as in a call.
            initial_state: as in a call.
            initial_guess: as in a call.
            training: as in a call.
            mask: as in a call. Masked steps of what the function gives are zeros.
        """
        x = keras.tree.map_structure(self._compute_type, x)
        if not self.built:
            self.build(keras.tree.map_structure(lambda t: tuple(t.shape), x))
        z0 = self._start(x) if initial_guess is None else self._compute_type(initial_guess)
        state = self._state(x, initial_state, False)
        if mask is None and not self.go_backwards:
            return self._function(x, training, state), z0
        reading = Reading(mask, self.go_backwards)
        x = keras.tree.map_structure(reading.put, x)
        f = self._function(x, training, state, mask=reading.mask)
        return lambda z: reading.back(f(reading.put(z))), reading.back(reading.put(z0))

    def spectral_radius(self, x, steps=50, initial_state=None, training=False, mask=None):
        """The spectral radius of ∂f/∂z at the equilibrium of each sample, (b,).

        Args:
            x: as in a call.
            steps: of the power iteration.
            initial_state: as in a call.
            training: as in a call.
            mask: as in a call.
        """
        z = self.solve(x, initial_state, training=training, mask=mask).value
        f, _ = self.function(x, initial_state, training=training, mask=mask)
        return gradients.spectral_radius(f, z, steps, seed=self.seed)[0]

    def _compute_type(self, tensor):
        return _as_type(tensor, self.compute_dtype)

    def _start(self, x):
        first = keras.tree.flatten(x)[0]
        return ops.zeros((*ops.shape(first)[:-1], self.state_units), self.compute_dtype)

    def _limit(self, training):
        return self.max_steps if training else first_given(self.inference_max_steps, self.max_steps)

    def _transient(self, z0):
        """Steps in which the residual of a sequence may grow before it falls."""
        reach = self.contract().reach
        if not reach or len(z0.shape) < 3:
            return 0
        length = ops.shape(z0)[1]
        return -(-length // reach)

    def _tell(self, residual, status, training):
        """Warns of samples that did not converge, once, where a call can be looked at."""
        if training or self._told or not runs_eagerly():
            return
        try:
            status, residual = np.asarray(status), np.asarray(residual)
        except Exception:  # while JAX traces there is nothing to look at
            return
        failed = np.sum(status != int(solvers.Status.CONVERGED))
        if failed:
            self._warn(f"{failed} of {status.size} samples", "largest", np.max(residual))

    def _warn(self, part: str, kind: str, residual):
        self._told = True
        limit = first_given(self.inference_max_steps, self.max_steps)
        warnings.warn(
            f"`{self.name}` did not converge for {part}: the {kind} residual is {residual:.3g}, "
            f"with tolerance={self.tolerance:g} and at most {limit} steps. The best iterates are "
            "used, so answers depend on how they were reached. The page 'My solver does not "
            "converge' of the documentation says what helps. This is said once for a layer.",
            stacklevel=3,
        )

    def _function(self, x, training, state=None, masks=None, z0=None, mask=None):
        """The cell as a function of z alone; with `z0`, its seeds move on first.

        With a mask, true first, z is zero behind the last valid step, and counts nowhere.
        """
        kind = self.compute_dtype if self._adapted else self.cell.compute_dtype
        x = keras.tree.map_structure(lambda part: _as_type(part, kind), x)
        if mask is None:
            iterate, context = self.contract().bound(x, training, state, masks, z0)
        else:
            self.contract().check_mask()
            x = keras.tree.map_structure(lambda part: blanked(part, mask), x)
            iterate, context = self.contract().bound(x, training, state, masks, z0, mask)
            iterate, context = _blanking(iterate, self.stateful_cell), (context, mask)

        def run(z, context):
            return ops.cast(iterate(ops.cast(z, kind), context), self.compute_dtype)

        # Under float16 the loss scale must see values that are not finite.
        return gradients.GuardedCell(run, self.cell, context, self.compute_dtype != "float16")

    def _state(self, x, given, wanted):
        """The state that a call starts from; `None` where the cell has none."""
        if not self.stateful_cell:
            if given is not None or wanted:
                self.get_initial_state(1)  # says what is missing
            return None
        if given is None:
            return self.get_initial_state(ops.shape(keras.tree.flatten(x)[0])[0])
        return keras.tree.map_structure(self._compute_type, given)

    def _width(self, shape):
        """The width of z, for the shape of x."""
        return first_given(self.units, self.contract().state_units, shape[-1])


def blanked(values, mask):
    """Values (b, t, ...) with zeros at all but valid steps."""
    return values if mask is None else choose_rows(mask, values, ops.cast(0, values.dtype))


def _blanking(iterate, causal: bool):
    """f with a mask beside its context, that gives zeros at masked steps and sees zeros there."""

    def run(z, context):
        context, mask = context
        z = z if causal else blanked(z, mask)  # a causal cell does not look there
        return blanked(iterate(z, context), mask)

    return run


def _as_type(tensor, dtype):
    """A tensor of floats in another type; others as they are."""
    tensor = ops.convert_to_tensor(tensor)
    return ops.cast(tensor, dtype) if keras.backend.is_float_dtype(tensor.dtype) else tensor
