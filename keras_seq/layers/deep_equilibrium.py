"""The deep equilibrium layer."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_seq import gradients, solvers
from keras_seq._backend import traced_for_xla
from keras_seq._export import export
from keras_seq._random import draw_seed
from keras_seq.layers._equilibrium import (
    check_options,
    chunks,
    finite_samples,
    first_given,
    first_shape,
    merged,
    unrolled,
)
from keras_seq.layers.causal_layer import CausalLayer, CheckedLayer
from keras_seq.metrics.solver_metrics import counted, solver_metrics, update

GRADIENTS = ("implicit", "one_step", "phantom", "unrolled")


@export("keras_seq.layers.DeepEquilibrium")
class DeepEquilibrium(CausalLayer):
    """The fixed point z* = f(z*, x) of a cell, as a layer: a network of infinite depth.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019). A solver finds z* without
    recording anything; then the cell is applied once more, and the gradient of that application
    becomes the one that `gradient` names. The output is that last application, f(z*, x). Memory is
    that of one application of the cell plus the solver's, however many steps are taken.

    **The cell** is any Keras layer that is called as `cell(z, x)` and returns a tensor of the shape
    of z. Nothing in it changes between the steps of a solve: dropout inside of it has one mask a
    call of this layer. It must add no losses. A cell with work that depends on x alone can do it
    once, in `prepare`, and iterate a pure function:

    - `prepare(x, training)` (optional): returns a tensor or a nest of tensors, the *context*.
      Kernels are normalised, masks drawn and inputs projected here. `iterate(z, context)` is then
      called instead of `cell(z, x)`, and `build(z_shape, x_shape)` makes the weights.
    - `get_masks(batch_size)` (optional): a dict of dropout masks. They are drawn once a call of
      this layer in training, hold for all chunks of it, and are handed on as
      `prepare(x, training, masks=...)`; an empty dict means no dropout.
    - `outputs(z)` and `output_units` (optional): the part of z that is the output.

    **State.** A causal cell looks back from step t to earlier steps only, so a sequence can be
    solved in pieces. A cell with state has two more methods, and `prepare` (or `call`) takes a
    third argument:

    - `get_initial_state(batch_size, kind=None)`: the state before the first step, a nest of tensors
      (b, ...) with shapes that do not depend on the past. `kind="exact"` asks for the one that
      makes pieces equal to the whole; a cell with others chooses for `None`, and recognises the
      kind of a state by its structure.
    - `next_state(z, x, initial_state)`: the state after a piece, of the structure, shapes and types
      given, from its equilibrium z and its input x, (b, t, ...) each, t of 1 or more.
    - `prepare(x, training, initial_state=...)`: where there is state it is always given, zeros at
      the start. What precedes the piece (past equilibria, past inputs) goes into the context from
      here, and stays as it is while the piece is solved.

    The layer then keeps the library's contract: `call(x, initial_state=None, return_state=False,
    training=None)` and `get_initial_state(batch_size, kind=None)`. With the exact state the
    equilibrium of new steps, given the past ones, is that of the whole sequence to the tolerance,
    down to one step at a time. Gradients reach the initial state, and flow from chunk to chunk.

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
        gradient: `"implicit"`, exact up to the tolerance of its own linear solve; `"one_step"`,
            that of the last application alone; `"phantom"`, through `phantom_steps` damped
            applications; `"unrolled"`, through `max_steps` damped applications in place of the
            solver, at a memory that grows with them.
        max_steps: the most solver steps in training.
        inference_max_steps: the most outside of training; `max_steps` if not given.
        tolerance: of the residual.
        stop: `"relative"` or `"absolute"` residuals.
        backward_solver: of the linear system of the implicit gradient; `solver` if not given.
        backward_max_steps: its limit; `max_steps` if not given.
        backward_tolerance: its tolerance, relative; `tolerance` if not given.
        phantom_steps: applications of the phantom gradient.
        damping: part of the old iterate that phantom and unrolled steps keep.
        subsequence_length: solve a sequence in chunks of so many steps, in order, with the state
            carried and gradients through it. The cell must have state. A sequence whose length is
            not known when the graph is made is solved in one.
        pretrain_steps: for so many training steps, `pretrain_levels` applications of the cell with
            their ordinary gradient take the place of the solve. The count is a weight, so the
            switch survives saving. Evaluation before the switch is unrolled too. Training with XLA
            then needs sizes that are known when the graph is made.
        pretrain_levels: applications in that phase.
        jacobian_weight: weight of the estimate of |∂f/∂z|² at the equilibrium, added to the loss in
            training.
        jacobian_frequency: probability that a training step adds it.
        jacobian_probes: random vectors of an estimate.
        correction_steps: solver steps, counted from 1, whose iterates are supervised too: the
            sparse fixed-point correction of Bai, Geng, Savani and Kolter, *Deep Equilibrium Optical
            Flow Estimation* (CVPR 2022). With `return_auxiliary`, the cell is applied to each once
            more with its gradient. `keras_seq.models.LanguageModel(auxiliary_weight=...)` adds
            their losses.
        correction_decay: the i-th last of these has this weight to the power i.
        correction_frequency: probability that a training step does so.
        seed: of these vectors and of that draw.
        **kwargs: of `keras.layers.Layer`.

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
            `correction_steps`, (b, m, ...).

    Output shape:
        (b, ..., units): the shape of the (first) tensor of x with the last axis replaced; with
        `outputs` of the cell, its `output_units`.

    Masking: not supported.

    Raises:
        ValueError: on options out of range, a cell whose output is not of the shape of z, or
            `pretrain_steps` under XLA with a batch size or length that is not known.

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
        cell,
        units=None,
        solver: Any = "broyden",
        gradient="implicit",
        max_steps=30,
        inference_max_steps=None,
        tolerance=1e-3,
        stop="relative",
        backward_solver: Any = None,
        backward_max_steps=None,
        backward_tolerance=None,
        phantom_steps=5,
        damping=0.0,
        subsequence_length=None,
        pretrain_steps=0,
        pretrain_levels=4,
        jacobian_weight=0.0,
        jacobian_frequency=1.0,
        jacobian_probes=1,
        correction_steps=(),
        correction_decay=0.8,
        correction_frequency=1.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(cell, keras.layers.Layer):
            raise ValueError(f"`cell` must be a Keras layer. Received: cell={cell!r}.")
        if gradient not in GRADIENTS:
            raise ValueError(f"`gradient` must be one of {GRADIENTS}. Received: {gradient!r}.")
        self.cell = cell
        self.units = units
        self.solver = solvers.get(solver)
        self.gradient = gradient
        self.max_steps = max_steps
        self.inference_max_steps = inference_max_steps
        self.tolerance = tolerance
        self.stop = stop
        self.backward_solver = None if backward_solver is None else solvers.get(backward_solver)
        self.backward_max_steps = backward_max_steps
        self.backward_tolerance = backward_tolerance
        self.phantom_steps = phantom_steps
        self.damping = damping
        self.subsequence_length = subsequence_length
        self.pretrain_steps = pretrain_steps
        self.pretrain_levels = pretrain_levels
        self.jacobian_weight = jacobian_weight
        self.jacobian_frequency = jacobian_frequency
        self.jacobian_probes = jacobian_probes
        self.correction_steps = list(correction_steps)
        self.correction_decay = correction_decay
        self.correction_frequency = correction_frequency
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        check_options(self)
        if subsequence_length is not None and not self.stateful_cell:
            raise ValueError(
                "`subsequence_length` needs a cell with state, to be carried from chunk to chunk. "
                f"Received: subsequence_length={subsequence_length} and a {type(cell).__name__} "
                "without `get_initial_state`."
            )
        self.solver_metrics = solver_metrics(self.name)

    @property
    def stateful_cell(self) -> bool:
        """Whether the cell has state."""
        return hasattr(self.cell, "get_initial_state")

    @property
    def loop(self) -> str:
        """What is repeated with the same weights."""
        return f"until z = f(z, x), at most {self.max_steps} steps in training"

    @property
    def output_units(self) -> int:
        """Width of the output, of a built layer."""
        return self.cell.output_units if hasattr(self.cell, "outputs") else self.state_units

    @property
    def auxiliary_levels(self) -> tuple[int, ...]:
        """The solver steps whose iterates `return_auxiliary` gives."""
        return tuple(self.correction_steps)

    @property
    def auxiliary_scales(self) -> tuple[float, ...]:
        """The weight of each of them in a loss, besides a common one."""
        count = len(self.correction_steps)
        return tuple(self.correction_decay ** (count - index) for index in range(count))

    def checked(self, x, name="x"):
        """The input of a call: a nest of tensors, each as the cell takes it if it says so."""
        check = self.cell.checked if isinstance(self.cell, CheckedLayer) else None
        return x if check is None else keras.tree.map_structure(lambda part: check(part, name), x)

    def build(self, input_shape):
        first = first_shape(input_shape)
        self.state_units = int(self._width(first))
        if not self.cell.built:
            shape = (*first[:-1], self.state_units)
            if hasattr(self.cell, "prepare") and self.stateful_cell:
                self.cell.build(shape, input_shape)
            else:
                self._build_by_call(shape, input_shape)
        if self.pretrain_steps:
            self.steps_taken = self.add_weight(
                name="steps_taken",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )

    def _build_by_call(self, shape, input_shape):
        z = keras.KerasTensor(shape, self.compute_dtype)
        x = keras.tree.map_shape_structure(
            lambda s: keras.KerasTensor(s, self.compute_dtype), input_shape
        )
        outputs = self.cell(z, x)
        if tuple(getattr(outputs, "shape", ())) != shape:
            raise ValueError(
                "`cell` must return a tensor of the shape of its first argument. Received: an "
                f"output of shape {getattr(outputs, 'shape', None)} for z of shape {shape}. "
                "Set `units` to the width that the cell gives."
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
        if not self.stateful_cell:
            raise ValueError(
                "The cell has no state. Give it `get_initial_state(batch_size, kind)` and "
                f"`next_state(z, x, initial_state)`. Received: cell={self.cell!r}."
            )
        options = {} if kind is None else {"kind": kind}
        return self.cell.get_initial_state(batch_size, **options)

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one call: those of the cell, if it has `get_masks`.

        Args:
            batch_size: b, an integer or a scalar tensor.
        """
        masks = self.cell.get_masks(batch_size) if hasattr(self.cell, "get_masks") else {}
        if self.correction_steps and self.correction_frequency < 1:
            draw = keras.random.uniform((), seed=draw_seed(self.seed_generator))
            masks = {**masks, "supervise": draw < self.correction_frequency}
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
    ):
        x = keras.tree.map_structure(self._compute_type, x)
        state = self._state(x, initial_state, return_state)
        if masks is None:
            masks = self.get_masks(ops.shape(keras.tree.flatten(x)[0])[0]) if training else {}
        if initial_guess is not None:
            initial_guess = self._compute_type(initial_guess)
        parts, auxiliary = [], []
        solution: Any = None
        for piece, guess in chunks(x, self.subsequence_length, initial_guess):
            z0 = self._start(piece) if guess is None else guess
            f = self._function(piece, training, state, masks, None if parts else z0)
            z, found, kept = self._solved(f, z0, training, return_auxiliary)
            if training and self.jacobian_weight:
                self.add_loss(self._jacobian_loss(f, z))
            if state is not None:
                state = self.cell.next_state(z, piece, state)
            if return_auxiliary:
                auxiliary.append(self._corrected(f, kept, masks.get("supervise")))
            solution = merged(solution, found)
            parts.append(z)
        z = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
        if training and self.pretrain_steps:
            self.steps_taken.assign(ops.minimum(self.steps_taken + 1, int(self.pretrain_steps)))
        if counted(training):
            update(self.solver_metrics, solution, training)
        returned = [self._outputs(z)]
        if return_auxiliary:
            returned.append(
                auxiliary[0] if len(auxiliary) == 1 else ops.concatenate(auxiliary, axis=2)
            )
        if return_solution:
            returned.append({"equilibrium": z, **solution})
        if return_state:
            returned.append(state)
        return returned[0] if len(returned) == 1 else tuple(returned)

    def _state(self, x, given, wanted):
        """The state that a call starts from; `None` where the cell has none."""
        if not self.stateful_cell:
            if given is not None or wanted:
                self.get_initial_state(1)  # says what is missing
            return None
        if given is None:
            return self.get_initial_state(ops.shape(keras.tree.flatten(x)[0])[0])
        return keras.tree.map_structure(self._compute_type, given)

    def _outputs(self, z):
        return self.cell.outputs(z) if hasattr(self.cell, "outputs") else z

    def _solved(self, f, z0, training, keep):
        """The equilibrium, or levels in the time before it; what the solver says; iterates kept."""
        keep = self.correction_steps if keep else ()

        def equilibrium():
            return self._equilibrium(f, z0, training, keep)

        def levels():
            return unrolled(f, z0, self.pretrain_levels, 0, self.tolerance, self.stop, keep)

        if not self.pretrain_steps:
            return equilibrium()
        if training and None in tuple(z0.shape) and traced_for_xla():
            raise ValueError(
                "With `pretrain_steps` XLA can compile a training step only for sizes that are "
                "known when the graph is made: it makes both phases, and the gradient of a branch "
                f"needs its sizes. Received: z of shape {tuple(z0.shape)}. Batch the data with "
                "`drop_remainder=True`, or compile the model with `jit_compile=False`."
            )
        return ops.cond(self.steps_taken < self.pretrain_steps, levels, equilibrium)

    def _corrected(self, f, kept, wanted):
        """Outputs (b, m, ...) of one application of the cell to each iterate that was kept."""

        def applied():
            return ops.stack([self._outputs(finite_samples(f(z), z)) for z in kept], axis=1)

        if wanted is None:
            return applied()
        shape = ops.shape(self._outputs(kept[0]))
        nothing = (shape[0], len(kept), *shape[1:])
        return ops.cond(wanted, applied, lambda: ops.zeros(nothing, self.compute_dtype))

    def solve(self, x, initial_state=None, initial_guess=None, training=False, trace=False):
        """Solves for the equilibrium and returns all that the solver knows, without gradients.

        The whole sequence is solved at once, whatever `subsequence_length` is.

        Args:
            x: as in a call.
            initial_state: as in a call.
            initial_guess: as in a call.
            training: as in a call.
            trace: also return the residuals of all steps.

        Returns:
            A `keras_seq.solvers.Solution`.
        """
        f, z0 = self.function(x, initial_state, initial_guess, training)
        limit = self._limit(training)
        return solvers.solve(f, z0, self.solver, limit, self.tolerance, self.stop, trace)

    def function(self, x, initial_state=None, initial_guess=None, training=False):
        """The cell as a function of z alone, and the z to start from.

        Args:
            x: as in a call.
            initial_state: as in a call.
            initial_guess: as in a call.
            training: as in a call.
        """
        x = keras.tree.map_structure(self._compute_type, x)
        if not self.built:
            self.build(keras.tree.map_structure(lambda t: tuple(t.shape), x))
        z0 = self._start(x) if initial_guess is None else self._compute_type(initial_guess)
        return self._function(x, training, self._state(x, initial_state, False)), z0

    def spectral_radius(self, x, steps=50, initial_state=None, training=False):
        """The spectral radius of ∂f/∂z at the equilibrium of each sample, (b,).

        Args:
            x: as in a call.
            steps: of the power iteration.
            initial_state: as in a call.
            training: as in a call.
        """
        z = self.solve(x, initial_state, training=training).value
        f, _ = self.function(x, initial_state, training=training)
        return gradients.spectral_radius(f, z, steps, seed=self.seed)[0]

    def _compute_type(self, tensor):
        tensor = ops.convert_to_tensor(tensor)
        floating = keras.backend.is_float_dtype(tensor.dtype)
        return ops.cast(tensor, self.compute_dtype) if floating else tensor

    def _start(self, x):
        first = keras.tree.flatten(x)[0]
        return ops.zeros((*ops.shape(first)[:-1], self.state_units), self.compute_dtype)

    def _limit(self, training):
        return self.max_steps if training else first_given(self.inference_max_steps, self.max_steps)

    def _function(self, x, training, state=None, masks=None, z0=None):
        """The cell as a function of z alone; with `z0`, its seeds move on first."""
        cell = self.cell
        prepared = hasattr(cell, "prepare")
        known = inspect.signature(cell.prepare if prepared else cell.call).parameters
        options: dict[str, Any] = {"training": training} if "training" in known else {}
        if state is not None:
            options["initial_state"] = state
        if masks is not None and hasattr(cell, "get_masks"):
            options["masks"] = masks
        context: Any
        if prepared:
            context = cell.prepare(x, **options)
        else:  # the tensors of a call, apart from its other arguments
            names = [name for name in ("initial_state", "masks") if name in options]
            context = {"x": x, **{name: options.pop(name) for name in names}}

        def run(z, context):
            if prepared:
                value = cell.iterate(z, context)
            else:
                tensors: dict[str, Any] = dict(context)
                value = cell(z, tensors.pop("x"), **tensors, **options)
            return ops.cast(value, self.compute_dtype)

        if training and not prepared and z0 is not None:
            gradients.advance_state(run, cell, z0, context)
        # Under float16 the loss scale must see values that are not finite.
        return gradients.GuardedCell(run, cell, context, self.compute_dtype != "float16")

    def _equilibrium(self, f, z0, training, keep):
        """f(z*), what the solver says of it, and iterates on the way."""
        limit = self._limit(training)
        if self.gradient == "unrolled":
            return unrolled(f, z0, limit, self.damping, self.tolerance, self.stop, keep)
        found = gradients.find_equilibrium(
            f, z0, self.solver, limit, self.tolerance, self.stop, keep
        )
        z = found.value
        if self.gradient == "implicit":
            outputs = gradients.attach_implicit_gradient(
                f,
                z,
                first_given(self.backward_solver, self.solver),
                first_given(self.backward_max_steps, self.max_steps),
                first_given(self.backward_tolerance, self.tolerance),
            )
        elif self.gradient == "one_step":
            outputs = gradients.phantom_steps(f, z)
        else:
            outputs = gradients.phantom_steps(f, z, self.phantom_steps, self.damping)
        solution = {"residual": found.residual, "steps": found.steps, "status": found.status}
        return finite_samples(outputs, z, found.status), solution, list(found.kept)

    def _jacobian_loss(self, f, outputs):
        z = ops.stop_gradient(outputs)
        vectors = gradients.draw_vectors(z, self.jacobian_probes, self.seed_generator)

        def measured():
            loss = gradients.jacobian_loss(f, z, vectors)
            return self.jacobian_weight * ops.where(ops.isfinite(loss), loss, 0)

        if self.jacobian_frequency == 1:
            return measured()
        draw = keras.random.uniform((), seed=draw_seed(self.seed_generator))
        return gradients.if_drawn(draw < self.jacobian_frequency, measured, f.tensors)

    def compute_output_shape(self, input_shape):
        first = first_shape(input_shape)
        width = self.cell.output_units if hasattr(self.cell, "outputs") else self._width(first)
        return (*first[:-1], width)

    def compute_output_spec(
        self, x, initial_state=None, return_state=False, *, return_solution=False, **options
    ):
        shape = self.compute_output_shape(keras.tree.map_structure(lambda part: part.shape, x))
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        results = super().compute_output_spec(outputs, initial_state, return_state, **options)
        if not return_solution:
            return results
        results = list(results) if isinstance(results, tuple) else [results]
        z = (*shape[:-1], self.state_units)
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        each = {"residual": wide, "steps": "int32", "status": "int32"}
        solution = {name: keras.KerasTensor(shape[:1], dtype) for name, dtype in each.items()}
        solution = {"equilibrium": keras.KerasTensor(z, self.compute_dtype), **solution}
        results.insert(len(results) - bool(return_state), solution)
        return tuple(results)

    def _width(self, shape):
        """The width of z, for the shape of x."""
        of_cell = (getattr(self.cell, name, None) for name in ("state_units", "units"))
        return first_given(self.units, *of_cell, shape[-1])

    def get_config(self):
        backward = self.backward_solver
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "cell": serialize(self.cell),
            "units": self.units,
            "solver": serialize(self.solver),
            "gradient": self.gradient,
            "max_steps": self.max_steps,
            "inference_max_steps": self.inference_max_steps,
            "tolerance": self.tolerance,
            "stop": self.stop,
            "backward_solver": None if backward is None else serialize(backward),
            "backward_max_steps": self.backward_max_steps,
            "backward_tolerance": self.backward_tolerance,
            "phantom_steps": self.phantom_steps,
            "damping": self.damping,
            "subsequence_length": self.subsequence_length,
            "pretrain_steps": self.pretrain_steps,
            "pretrain_levels": self.pretrain_levels,
            "jacobian_weight": self.jacobian_weight,
            "jacobian_frequency": self.jacobian_frequency,
            "jacobian_probes": self.jacobian_probes,
            "correction_steps": self.correction_steps,
            "correction_decay": self.correction_decay,
            "correction_frequency": self.correction_frequency,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["cell"] = keras.saving.deserialize_keras_object(config["cell"])
        return super().from_config(config)
