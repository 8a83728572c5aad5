"""Golden cases of solvers, Jacobians and the DEQ-TrellisNet."""

from typing import Any

import keras
import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq import gradients, solvers
from keras_seq.convert.mappings import ANY_PREFIX, DENSE, Slot, Unused, mapping
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell

# The files were solved to about 1e-13.
TIGHT = {"tolerance": 1e-12, "max_steps": 300, "dtype": "float64"}

# Solvers and Jacobians ----------------------------------------------------------------------------


class _Network(keras.layers.Layer):
    """tanh(W z + U x + b) of the golden files, on the last axis."""

    def build(self, z_shape, x_shape=None):
        width = z_shape[-1]
        self.kernel = self.add_weight(shape=(width, width))
        self.inject = None if x_shape is None else self.add_weight(shape=(x_shape[-1], width))
        self.bias = self.add_weight(shape=(width,))

    def call(self, z, x=None):
        injected = 0 if x is None else ops.matmul(x, self.inject)
        return ops.tanh(ops.matmul(z, self.kernel) + injected + self.bias)


@mapping(_Network)
def network_slots(layer: _Network, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`W`, `U` and `b`."""
    found: list[Slot | Unused] = [Slot(layer.kernel, ("W",), DENSE), Slot(layer.bias, ("b",))]
    return found if layer.inject is None else [*found, Slot(layer.inject, ("U",), DENSE)]


def _swap(tensor):
    """(N, C, L) to (b, t, d), or back."""
    return ops.transpose(tensor, (0, 2, 1))


@case("deq_solvers", dtype="float64")
def deq_solvers(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The equilibrium and its gradient, and the results of the reference's own tight solves.

    Its other results are iterates of a solve that stops for the whole batch at once; traces and
    step counts belong to them. We stop for each sample, so these have no counterpart here.
    """
    runs = ("out/f64/", "out/f32/")
    for key in [key for key in golden.arrays if key.startswith(runs)]:
        # In float32 the reference's Anderson iteration stops about 1e-5 from the fixed point.
        if not key.endswith("_tight/result") or "f32/anderson" in key:
            del golden.arrays[key]
    width = golden.parameters["b"].shape[0]
    layer = DeepEquilibrium(_Network(dtype=dtype), units=width, **{**TIGHT, "dtype": dtype})
    inputs = {"x": golden.input("x").astype(dtype)}
    layer.build(tuple(_swap(inputs["x"]).shape))
    load_reference(layer, golden.parameters)

    def forward(inputs):
        return {"z_star": _swap(layer(_swap(inputs["x"])))}

    values = differentiate(golden, forward, bind(layer, golden.parameters), inputs)
    for key in golden.arrays:
        if key.startswith(runs):
            values[key] = values["out/z_star"]
    # The adjoint by itself: u = g + Jᵀ u, solved by Anderson acceleration.
    x, z = _swap(inputs["x"]), _swap(ops.convert_to_tensor(values["out/z_star"]))
    slope = 1 - ops.square(layer.cell(z, x))
    upstream = ops.convert_to_tensor(_swap(golden.arrays["coef/z_star"].astype(dtype)))
    kernel = ops.transpose(ops.convert_to_tensor(layer.cell.kernel))
    adjoint = solvers.solve(
        lambda u: upstream + ops.matmul(u * slope, kernel), upstream, "anderson", 300, 1e-12
    )
    values["out/adjoint_exact"] = np.asarray(_swap(adjoint.value))
    return values


@case("deq_jacobian")
def deq_jacobian(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The Jacobian loss with given vectors, its exact value, and the power method."""
    network = _Network(dtype=dtype)
    inputs = {"z": golden.input("z").astype(dtype)}
    shape = inputs["z"].shape
    network.build((shape[0], shape[2], shape[1]))
    load_reference(network, golden.parameters)
    vectors = [ops.convert_to_tensor(golden.input(k).astype(dtype)) for k in ("v0", "v1")]

    def function(z):
        return _swap(network(_swap(z)))

    def forward(inputs):
        return {
            f"jac_loss_vecs{count}": gradients.jacobian_loss(function, inputs["z"], vectors[:count])
            for count in (1, 2)
        }

    values = differentiate(golden, forward, bind(network, golden.parameters), inputs)
    size = shape[1] * shape[2]
    basis = np.eye(size, dtype=dtype).reshape((size, 1, *shape[1:]))
    basis = [ops.convert_to_tensor(np.broadcast_to(vector, shape)) for vector in basis]
    z = ops.convert_to_tensor(inputs["z"])
    exact = gradients.jacobian_loss(function, z, basis) * size
    values["out/exact_tr_JTJ_normalised"] = np.asarray(exact)
    matrix = ops.convert_to_tensor(golden.input("A").astype(dtype))

    def linear(z):
        return ops.reshape(ops.einsum("nij,nj->ni", matrix, ops.reshape(z, (-1, size))), shape)

    start = golden.input("power_v0").astype(dtype)
    for steps, name in ((200, "power"), (3, "power3")):
        radius, vector = gradients.spectral_radius(linear, z, steps, start)
        values[f"out/{name}_abs_eigval"] = np.asarray(radius)[:, None]
        values[f"out/{name}_eigvec"] = np.asarray(vector)
    return values


# The trellis network ------------------------------------------------------------------------------


def _cell(golden: Golden, dtype: str) -> DEQTrellisCell:
    config = golden.config
    return DEQTrellisCell(
        config["nhid"],
        config["nout"],
        config["kernel_size"],
        weight_normalization=config["wnorm"],
        dtype=dtype,
    )


def _trellis_inputs(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    return {name: array.astype(dtype) for name, array in golden.section("in").items()}


def _arguments(inputs) -> dict[str, Any]:
    """x and the state before the first step, in our layout."""
    history = ops.split(inputs["z0"][:, :, 0], 2, axis=-1)
    return {"x": _swap(inputs["x"]), "initial_state": history}


def _shapes(golden: Golden):
    batch, width, _ = golden.input("z0").shape
    x = tuple(_swap(golden.input("x")).shape)
    return (batch, x[1], width), x


@case("deq_trellis_step")
def deq_trellis_step(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The injected input, and one application of the cell."""
    cell = _cell(golden, dtype)
    cell.build(*_shapes(golden))
    load_reference(cell, golden.parameters)

    def forward(inputs):
        context = cell.prepare(**_arguments(inputs))
        # The file counts the bias of the hidden convolution to the cell, not to the injection.
        injected = context["injected"] - ops.convert_to_tensor(cell.bias_hidden)
        return {"us": _swap(injected), "f": _swap(cell.iterate(_swap(inputs["z"]), context))}

    bindings = bind(cell, golden.parameters)
    return differentiate(golden, forward, bindings, _trellis_inputs(golden, dtype))


def _equilibrium(golden: Golden, dtype: str, **options) -> dict[str, np.ndarray]:
    layer = DeepEquilibrium(_cell(golden, dtype), **{**TIGHT, "dtype": dtype, **options})
    layer.build(_shapes(golden)[1])
    load_reference(layer, golden.parameters)

    def forward(inputs):
        out, solution, history = layer(
            **_arguments(inputs), return_solution=True, return_state=True, training=True
        )
        outputs = {"out": out, "history": ops.concatenate(history, axis=-1)[:, :, None]}
        if "out/z_star" in golden.arrays:
            outputs["z_star"] = _swap(solution["equilibrium"])
        return outputs

    bindings = bind(layer, golden.parameters)
    return differentiate(golden, forward, bindings, _trellis_inputs(golden, dtype))


@case("deq_trellis_unrolled4")
def deq_trellis_unrolled(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """Levels as in pre-training."""
    return _equilibrium(golden, dtype, gradient="unrolled", max_steps=golden.config["n_layer"])


@case("deq_trellis_equilibrium", dtype="float64")
def deq_trellis_equilibrium(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The equilibrium and its implicit gradient."""
    return _equilibrium(golden, dtype)
