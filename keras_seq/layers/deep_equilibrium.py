"""The deep equilibrium layer."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_seq import gradients, solvers
from keras_seq._export import export
from keras_seq._random import draw_seed
from keras_seq.layers._equilibrium import finite_samples, unrolled
from keras_seq.solvers import Status
from keras_seq.solvers.driver import check_limits

GRADIENTS = ("implicit", "one_step", "phantom", "unrolled")


@export("keras_seq.layers.DeepEquilibrium")
class DeepEquilibrium(keras.layers.Layer):
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
      called instead of `cell(z, x)`.

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
        pretrain_steps: for so many training steps, `pretrain_levels` applications of the cell with
            their ordinary gradient take the place of the solve. The count is a weight, so the
            switch survives saving. Evaluation before the switch is unrolled too.
        pretrain_levels: applications in that phase.
        jacobian_weight: weight of the estimate of |∂f/∂z|² at the equilibrium, added to the loss in
            training.
        jacobian_frequency: probability that a training step adds it.
        jacobian_probes: random vectors of an estimate.
        seed: of these vectors and of that draw.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: the input of the cell: a tensor (b, ..., d) or a nest of tensors.
        initial_guess: z to start from, such as the equilibrium of a call before; zeros if not
            given. It carries no gradient.
        training: as usual.
        return_solution: also return a dict of `residual`, `steps` and `status` (b,) each.

    Output shape:
        (b, ..., units): the shape of the (first) tensor of x with the last axis replaced.

    Masking: not supported.

    Raises:
        ValueError: on options out of range, or a cell whose output is not of the shape of z.

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
        pretrain_steps=0,
        pretrain_levels=4,
        jacobian_weight=0.0,
        jacobian_frequency=1.0,
        jacobian_probes=1,
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
        self.pretrain_steps = pretrain_steps
        self.pretrain_levels = pretrain_levels
        self.jacobian_weight = jacobian_weight
        self.jacobian_frequency = jacobian_frequency
        self.jacobian_probes = jacobian_probes
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._check()
        self.solver_metrics = {
            name: keras.metrics.Mean(name=f"{self.name}_{name}")
            for name in ("residual", "steps", "failures")
        }

    def _check(self):
        check_limits(self.max_steps, self.tolerance, self.stop)
        names = ("inference_max_steps", "tolerance", "stop")
        check_limits(_first(self.inference_max_steps, 1), 0, self.stop, names)
        names = ("backward_max_steps", "backward_tolerance", "stop")
        limit, tolerance = _first(self.backward_max_steps, 1), _first(self.backward_tolerance, 0)
        check_limits(limit, tolerance, self.stop, names)
        for name, least in (
            ("phantom_steps", 1),
            ("pretrain_steps", 0),
            ("pretrain_levels", 1),
            ("jacobian_weight", 0),
            ("jacobian_probes", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
        for name, inside in (
            ("damping", 0 <= self.damping < 1),
            ("jacobian_frequency", 0 <= self.jacobian_frequency <= 1),
        ):
            if not inside:
                raise ValueError(
                    f"`{name}` must be between 0 and 1. Received: {name}={getattr(self, name)}."
                )

    def build(self, input_shape):
        first = input_shape
        while not isinstance(first[-1], int | type(None)):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        self.state_units = int(self._width(first))
        if not self.cell.built:
            shape = (*first[:-1], self.state_units)
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
        if self.pretrain_steps:
            self.steps_taken = self.add_weight(
                name="steps_taken",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )

    def call(self, x, initial_guess=None, training=None, return_solution=False):
        x = keras.tree.map_structure(self._compute_type, x)
        z0 = self._start(x) if initial_guess is None else self._compute_type(initial_guess)
        f = self._function(x, training, z0)

        def equilibrium():
            return self._equilibrium(f, z0, training)

        def levels():
            return self._unrolled(f, z0, self.pretrain_levels, damping=0)

        if self.pretrain_steps:
            early = self.steps_taken < self.pretrain_steps
            outputs, solution = ops.cond(early, levels, equilibrium)
            if training:
                self.steps_taken.assign(ops.minimum(self.steps_taken + 1, int(self.pretrain_steps)))
        else:
            outputs, solution = equilibrium()
        if training:
            self._track(solution)
            if self.jacobian_weight:
                self.add_loss(self._jacobian_loss(f, outputs))
        return (outputs, solution) if return_solution else outputs

    def solve(self, x, initial_guess=None, training=False, trace=False):
        """Solves for the equilibrium and returns all that the solver knows, without gradients.

        Args:
            x: as in a call.
            initial_guess: as in a call.
            training: as in a call.
            trace: also return the residuals of all steps.

        Returns:
            A `keras_seq.solvers.Solution`.
        """
        x = keras.tree.map_structure(self._compute_type, x)
        if not self.built:
            self.build(keras.tree.map_structure(lambda t: tuple(t.shape), x))
        z0 = self._start(x) if initial_guess is None else self._compute_type(initial_guess)
        f = self._function(x, training)
        limit = self._limit(training)
        return solvers.solve(f, z0, self.solver, limit, self.tolerance, self.stop, trace)

    def spectral_radius(self, x, steps=50, training=False):
        """The spectral radius of ∂f/∂z at the equilibrium of each sample, (b,).

        Args:
            x: as in a call.
            steps: of the power iteration.
            training: as in a call.
        """
        z = self.solve(x, training=training).value
        f = self._function(keras.tree.map_structure(self._compute_type, x), training)
        return gradients.spectral_radius(f, z, steps, seed=self.seed)[0]

    def _compute_type(self, tensor):
        tensor = ops.convert_to_tensor(tensor)
        floating = keras.backend.is_float_dtype(tensor.dtype)
        return ops.cast(tensor, self.compute_dtype) if floating else tensor

    def _start(self, x):
        first = keras.tree.flatten(x)[0]
        return ops.zeros((*ops.shape(first)[:-1], self.state_units), self.compute_dtype)

    def _limit(self, training):
        return self.max_steps if training else _first(self.inference_max_steps, self.max_steps)

    def _function(self, x, training, z0=None):
        """The cell as a function of z alone."""
        prepared = hasattr(self.cell, "prepare")
        context = self.cell.prepare(x, training=training) if prepared else x
        takes_training = "training" in inspect.signature(self.cell.call).parameters
        options = {"training": training} if takes_training else {}

        def run(z, context):
            value = self.cell.iterate(z, context) if prepared else self.cell(z, context, **options)
            return ops.cast(value, self.compute_dtype)

        if training and not prepared and z0 is not None:
            gradients.advance_state(run, self.cell, z0, context)
        # Under float16 the loss scale must see values that are not finite.
        return gradients.guard_gradients(run, self.cell, context, self.compute_dtype != "float16")

    def _equilibrium(self, f, z0, training):
        """The output, and what the solver says of it."""
        limit = self._limit(training)
        if self.gradient == "unrolled":
            return self._unrolled(f, z0, limit)
        found = gradients.find_equilibrium(f, z0, self.solver, limit, self.tolerance, self.stop)
        z = found.value
        if self.gradient == "implicit":
            outputs = gradients.attach_implicit_gradient(
                f,
                z,
                _first(self.backward_solver, self.solver),
                _first(self.backward_max_steps, self.max_steps),
                _first(self.backward_tolerance, self.tolerance),
            )
        elif self.gradient == "one_step":
            outputs = gradients.phantom_steps(f, z)
        else:
            outputs = gradients.phantom_steps(f, z, self.phantom_steps, self.damping)
        solution = {"residual": found.residual, "steps": found.steps, "status": found.status}
        return finite_samples(outputs, z), solution

    def _unrolled(self, f, z0, levels, damping=None):
        damping = self.damping if damping is None else damping
        return unrolled(f, z0, levels, damping, self.tolerance, self.stop)

    def _jacobian_loss(self, f, outputs):
        z = ops.stop_gradient(outputs)
        vectors = gradients.draw_vectors(z, self.jacobian_probes, self.seed_generator)

        def measured():
            loss = gradients.jacobian_loss(f, z, vectors)
            return self.jacobian_weight * ops.where(ops.isfinite(loss), loss, 0)

        if self.jacobian_frequency == 1:
            return measured()
        draw = keras.random.uniform((), seed=draw_seed(self.seed_generator))
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        return ops.cond(draw < self.jacobian_frequency, measured, lambda: ops.zeros((), wide))

    def _track(self, solution):
        """Means over samples, as metrics of the model; nothing leaves the device for them."""
        finite = ops.isfinite(solution["residual"])
        residual = ops.where(finite, solution["residual"], 0)
        self.solver_metrics["residual"].update_state(residual, ops.cast(finite, "float32"))
        self.solver_metrics["steps"].update_state(solution["steps"])
        failed = ops.not_equal(solution["status"], int(Status.CONVERGED))
        self.solver_metrics["failures"].update_state(ops.cast(failed, "float32"))

    def compute_output_shape(self, input_shape):
        first = input_shape
        while not isinstance(first[-1], int | type(None)):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        return (*first[:-1], self._width(first))

    def _width(self, shape):
        """The width of z, for the shape of x."""
        of_cell = (getattr(self.cell, name, None) for name in ("state_units", "units"))
        return _first(self.units, *of_cell, shape[-1])

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
            "pretrain_steps": self.pretrain_steps,
            "pretrain_levels": self.pretrain_levels,
            "jacobian_weight": self.jacobian_weight,
            "jacobian_frequency": self.jacobian_frequency,
            "jacobian_probes": self.jacobian_probes,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["cell"] = keras.saving.deserialize_keras_object(config["cell"])
        return cls(**config)


def _first(*values):
    """The first value that is given."""
    return next(value for value in values if value is not None)
