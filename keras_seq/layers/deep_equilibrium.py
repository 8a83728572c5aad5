"""The deep equilibrium layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq import solvers
from keras_seq._arguments import check_integer
from keras_seq._export import export
from keras_seq.layers.equilibrium_cell import AdaptedCell, EquilibriumCell, build_by_call
from keras_seq.layers.equilibrium_gradients import ForwardSolve, Gradient
from keras_seq.layers.equilibrium_options import (
    FixedPointCorrection,
    JacobianRegularization,
    Pretraining,
    gradient_config,
    option_config,
    take_options,
)
from keras_seq.layers.equilibrium_parts import (
    chunks,
    corrected,
    first_given,
    first_shape,
    merged,
    size_of,
    solution_spec,
)
from keras_seq.layers.fixed_point_problem import FixedPointProblem, blanked
from keras_seq.metrics.solver_metrics import counted, solver_metrics, update
from keras_seq.solvers.driver import FALLBACK, check_limits, fallback_of


@export("keras_seq.layers.DeepEquilibrium")
class DeepEquilibrium(FixedPointProblem):
    """The fixed point z* = f(z*, x) of a cell, as a layer: a network of infinite depth.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019). A solver finds z* without
    recording anything; then the cell is applied once more, and the gradient of that application
    becomes the one that `gradient` names. The output is that last application, f(z*, x). Memory is
    that of one application of the cell plus the solver's, however many steps are taken.

    **The cell** is an `EquilibriumCell`, or any Keras layer that is called as `cell(z, x)` and
    returns a tensor of the shape of z; that layer may have any of the methods of `EquilibriumCell`.
    Nothing in it changes between the steps of a solve: dropout inside of it has one mask a call of
    this layer. It must add no losses.

    **State.** A causal cell looks back from step t to earlier steps only, so a sequence can be
    solved in pieces. With a cell that has state the layer keeps the library's contract. With the
    exact state the equilibrium of new steps, given the past ones, is that of the whole sequence to
    the tolerance, down to one step at a time. Gradients reach the initial state, and flow from
    chunk to chunk.

    **When it does not converge**, nothing is raised: the best iterate is used. `solve` tells the
    residual, the steps and the status of each sample; in training they are metrics. A sample whose
    cell gives values that are not finite passes on its best iterate and no gradient, and gradients
    of the cell that are not finite become zero (not under float16, where the loss scale needs to
    see them). So a diverging cell does not write NaN into weights.

    Args:
        cell: the layer f.
        units: width of z; by default the cell's attribute `state_units` or `units`, if it has one,
            else the width of x.
        solver: a name, a configuration or a solver of `keras_seq.solvers`.
        gradient: `"implicit"`, `"one_step"`, `"phantom"` or `"unrolled"`, or one with settings:
            `Implicit`, `OneStep`, `Phantom` or `Unrolled`.
        max_steps: the most solver steps in training.
        inference_max_steps: the most outside of training; `max_steps` if not given.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"` residuals.
        subsequence_length: solve a sequence in chunks of so many steps, in order, with the state
            carried and gradients through it. The cell must have state. A sequence whose length is
            not known when the graph is made is solved in one. `"auto"` for half as many steps as
            plain iteration settles within the limit, of a cell that says its `reach`.
        fallback: solvers for samples that stagnate or diverge within a limit of more than 30 steps,
            see `keras_seq.solvers.solve`; `None` for none.
        pretraining: a `Pretraining`, levels in place of the solve for the first steps of training.
        jacobian: a `JacobianRegularization`, added to the loss in training.
        correction: a `FixedPointCorrection`, the iterates that `return_auxiliary` gives.
        seed: of the vectors of `jacobian` and of the draws of `jacobian` and `correction`.
        **kwargs: of `keras.layers.Layer`. The fields of these objects are taken by single names
            too, as in version 0.1 and in the settings of the zoo: `backward_solver`,
            `backward_max_steps`, `backward_tolerance`, `phantom_steps`, `damping`,
            `jacobian_weight`, `jacobian_frequency`, `jacobian_probes`, `correction_steps`,
            `correction_decay`, `correction_frequency`, `pretrain_steps` and `pretrain_levels`.

    Call arguments:
        x: the input of the cell: a tensor (b, ..., d) or a nest of tensors.
        initial_state: the state before the first step, if the cell has state; zeros if not given.
        return_state: also return the state after the last step, as the last element.
        training: as usual.
        initial_guess: z to start from, such as the `equilibrium` of a call before; zeros if not
            given. It carries no gradient.
        masks: of `get_masks`, in place of fresh ones.
        return_solution: also return a dict of `residual`, `steps` and `status`, (b,) each (of
            several chunks the worst), and of the `equilibrium` z.
        return_auxiliary: also return, right after the outputs, those of the iterates of
            `correction`, (b, m, ...).
        mask: (b, t), true at valid steps, see `CausalLayer`. A solve counts valid steps alone: the
            residual, the steps and the status of a row are those of the row without the others.

    Output shape:
        (b, ..., units): the shape of the (first) tensor of x with the last axis replaced; with
        `outputs` of the cell, its `output_units`.

    Raises:
        ValueError: on options out of range, a cell whose output is not of the shape of z, or
            `pretraining` under XLA with a batch size or length that is not known, or a mask where
            a state is needed of a cell whose `next_state` takes no `mask`.

    Example:

    >>> class Cell(keras.layers.Layer):
    ...     def build(self, z_shape, x_shape):
    ...         self.inner = keras.layers.Dense(z_shape[-1], kernel_initializer="zeros")
    ...         self.inner.build(z_shape)
    ...
    ...     def call(self, z, x):
    ...         return ops.tanh(self.inner(z) + x)
    >>> layer = keras_seq.layers.DeepEquilibrium(Cell(), solver="anderson")
    >>> x = ops.ones((2, 5, 3))
    >>> bool(np.allclose(layer(x), np.tanh(1.0)))
    True
    """

    facts = ("gradient",)
    given_parts = ("cell",)

    def __init__(
        self,
        cell: keras.layers.Layer,
        units: int | None = None,
        solver: Any = "broyden",
        gradient: str | Gradient = "implicit",
        max_steps: int = 30,
        inference_max_steps: int | None = None,
        tolerance: float = 1e-3,
        stop: str = "relative",
        subsequence_length: int | str | None = None,
        fallback: Sequence[Any] | None = FALLBACK,
        pretraining: Pretraining | None = None,
        jacobian: JacobianRegularization | None = None,
        correction: FixedPointCorrection | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        options = take_options(
            kwargs,
            gradient=gradient,
            pretraining=pretraining,
            jacobian=jacobian,
            correction=correction,
        )
        super().__init__(**kwargs)
        if not isinstance(cell, keras.layers.Layer):
            raise ValueError(f"`cell` must be a Keras layer. Received: cell={cell!r}.")
        check_limits(max_steps, tolerance, stop)
        automatic = subsequence_length == "auto"
        for name, limit in (
            ("inference_max_steps", inference_max_steps),
            ("subsequence_length", subsequence_length),
        ):
            if limit is not None and not (automatic and name == "subsequence_length"):
                check_integer(name, limit)
        self.cell = cell
        self._adapted = None if isinstance(cell, EquilibriumCell) else AdaptedCell(cell)
        self.units = units
        self.solver = solvers.get(solver)
        self.gradient: Gradient = options["gradient"]
        self.max_steps = max_steps
        self.inference_max_steps = inference_max_steps
        self.tolerance = tolerance
        self.stop = stop
        self.subsequence_length = subsequence_length
        self.fallback = fallback_of(fallback)
        self.pretraining: Pretraining | None = options["pretraining"]
        self.jacobian: JacobianRegularization | None = options["jacobian"]
        self.correction: FixedPointCorrection | None = options["correction"]
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        if subsequence_length is not None and not self.stateful_cell:
            raise ValueError(
                "`subsequence_length` needs a cell with state, to be carried from chunk to chunk. "
                f"Received: subsequence_length={subsequence_length} and a {type(cell).__name__} "
                "without `get_initial_state`."
            )
        if automatic and not self.contract().reach:
            raise ValueError(
                "`subsequence_length` may be 'auto' with a cell that has `reach` alone. Received: "
                f"a {type(cell).__name__} that has none. Give a number of steps."
            )
        self.solver_metrics = solver_metrics(self.name)

    @property
    def loop(self) -> str:
        """What is repeated with the same weights."""
        return f"until z = f(z, x), at most {self.max_steps} steps in training"

    @property
    def output_units(self) -> int:
        """Width of the output, of a built layer."""
        return first_given(self.contract().output_units, self.state_units)

    @property
    def auxiliary_levels(self) -> tuple[int, ...]:
        """The solver steps whose iterates `return_auxiliary` gives."""
        return tuple(self.correction.steps) if self.correction else ()

    @property
    def auxiliary_scales(self) -> tuple[float, ...]:
        """The weight of each of them in a loss, besides a common one."""
        return self.correction.scales if self.correction else ()

    def checked(self, x, name="x"):
        """The input of a call: a nest of tensors, each as the cell takes it if it says so."""
        check = self.contract().checked
        return keras.tree.map_structure(lambda part: check(part, name), x)

    def build(self, input_shape):
        first = first_shape(input_shape)
        self.state_units = int(self._width(first))
        if not self.cell.built:
            shape = (*first[:-1], self.state_units)
            if self.contract().built_by_call:
                build_by_call(self.cell, shape, input_shape, self.compute_dtype)
            else:
                self.cell.build(shape, input_shape)
        if self.pretraining:
            self.steps_taken = self.add_weight(
                name="steps_taken",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )

    # State and masks

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: the cell's.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: of the cell, such as `"exact"`; `None` for the cell's default.

        Raises:
            ValueError: if the cell has no state.
        """
        return self.contract().get_initial_state(batch_size, kind)

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one call, those of the cell.

        Args:
            batch_size: b, an integer or a scalar tensor.
        """
        masks = self.contract().get_masks(batch_size)
        if self.correction and self.correction.frequency < 1:
            masks = {**masks, "supervise": self.correction.drawn(self.seed_generator)}
        return masks

    # The call

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        initial_guess=None,
        masks=None,
        return_solution=False,
        return_auxiliary=False,
        mask=None,
    ):
        if return_auxiliary and not self.correction:
            raise ValueError(
                "`return_auxiliary` needs iterates to return: give the layer "
                "`correction=keras_seq.layers.FixedPointCorrection(steps)`. "
                f"Received: return_auxiliary={return_auxiliary}."
            )
        x = keras.tree.map_structure(self._compute_type, x)
        state = self._state(x, initial_state, return_state)
        if masks is None:
            masks = self.get_masks(ops.shape(keras.tree.flatten(x)[0])[0]) if training else {}
        if initial_guess is not None:
            initial_guess = blanked(self._compute_type(initial_guess), mask)
        parts, auxiliary = [], []
        solution: Any = None
        pieces = chunks(x, self._piece(training), initial_guess, mask)
        for piece, guess, valid in pieces:
            z0 = self._start(piece) if guess is None else guess
            f = self._function(piece, training, state, masks, None if parts else z0, valid)
            z, found, kept = self._solved(f, z0, training, return_auxiliary)
            z = blanked(z, valid)  # what gradient comes in there is no part of the backward solve
            if training and self.jacobian:
                size = None if valid is None else size_of(z, valid)
                self.add_loss(self.jacobian.loss(f, z, self.seed_generator, size))
            if state is not None and (return_state or valid is None or len(pieces) > 1):
                state = self._next_state(z, piece, state, valid)
            if return_auxiliary:
                outputs = self.contract().outputs
                auxiliary.append(corrected(f, kept, outputs, masks.get("supervise")))
            solution = merged(solution, found)
            parts.append(z)
        z = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
        if training and self.pretraining:
            self.steps_taken.assign(ops.minimum(self.steps_taken + 1, self.pretraining.steps))
        self._tell(solution["residual"], solution["status"], training)
        if counted(training):
            rows = None if mask is None else ops.cast(ops.any(mask, axis=1), "float32")
            update(self.solver_metrics, solution, training, rows)
        returned = [self.contract().outputs(z)]
        if return_auxiliary:
            returned.append(
                auxiliary[0] if len(auxiliary) == 1 else ops.concatenate(auxiliary, axis=2)
            )
        if return_solution:
            returned.append({"equilibrium": z, **solution})
        if return_state:
            returned.append(state)
        return returned[0] if len(returned) == 1 else tuple(returned)

    def _next_state(self, z, x, state, mask):
        """The state after a piece; after the last valid step of each row where there is a mask."""
        cell = self.contract()
        if mask is None:
            return cell.next_state(z, x, state)
        if not cell.takes_mask("next_state"):
            raise ValueError(
                f"`mask` must be left out where the state of a {type(self.cell).__name__} (layer "
                f"{self.cell.name!r}) is needed: its `next_state` takes no `mask`, so that it "
                "cannot give the state after the last valid step of each row. Give it the argument."
            )
        return cell.next_state(z, x, state, mask=mask)

    def tell_of_evaluation(self):
        """Warns if the solves that the metrics hold did not all converge, once."""
        failed = float(self.solver_metrics["failures"].result())
        if failed and not self._told:
            residual = float(self.solver_metrics["residual"].result())
            self._warn(f"{failed:.1%} of the samples of an evaluation", "mean", residual)

    def _solved(self, f, z0, training, keep):
        """The equilibrium, or levels in the time before it; what the solver says; iterates kept."""
        steps, limit = self.auxiliary_levels if keep else (), self._limit(training)
        forward = ForwardSolve(
            self.solver,
            self.max_steps,
            limit,
            self.tolerance,
            self.stop,
            self.fallback,
            self._transient(z0),
        )
        if self.pretraining is None:
            return self.gradient.solved(f, z0, forward, steps)
        taken = self.steps_taken
        return self.pretraining.solved(f, z0, forward, steps, self.gradient, taken, training)

    def _piece(self, training):
        """Steps of a chunk."""
        if self.subsequence_length != "auto":
            return self.subsequence_length
        return max(1, self.contract().reach * self._limit(training) // 2)

    def compute_output_shape(self, input_shape):
        first = first_shape(input_shape)
        width = first_given(self.contract().output_units, self._width(first))
        return self.handed_out((*first[:-1], width))

    def compute_output_spec(
        self, x, initial_state=None, return_state=False, *, return_solution=False, **options
    ):
        shape = self.compute_output_shape(keras.tree.map_structure(lambda part: part.shape, x))
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        results = super().compute_output_spec(outputs, initial_state, return_state, **options)
        if not return_solution:
            return results
        results = list(results) if isinstance(results, tuple) else [results]
        steps = keras.tree.flatten(x)[0].shape[:-1]
        z = keras.KerasTensor((*steps, self.state_units), self.compute_dtype)
        results.insert(len(results) - bool(return_state), {"equilibrium": z, **solution_spec(z)})
        return tuple(results)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "cell": serialize(self.cell),
            "units": self.units,
            "solver": serialize(self.solver),
            "gradient": gradient_config(self.gradient),
            "max_steps": self.max_steps,
            "inference_max_steps": self.inference_max_steps,
            "tolerance": self.tolerance,
            "stop": self.stop,
            "subsequence_length": self.subsequence_length,
            "fallback": [serialize(way) for way in self.fallback] or None,
            "pretraining": option_config(self.pretraining),
            "jacobian": option_config(self.jacobian),
            "correction": option_config(self.correction),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["cell"] = keras.saving.deserialize_keras_object(config["cell"])
        return super().from_config(config)
