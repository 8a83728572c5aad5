"""Golden cases: files of numbers from a reference implementation, and what we compute for them.

Every family registers one function for each kind of file. It builds our objects from the file's
own sizes and weights, runs them, and returns values under the file's keys and in its layout.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from golden_cases.gradient import with_gradients
from keras_seq.convert.reference import Binding

FORWARD_BOUND = 1e-5
GRADIENT_BOUND = 1e-4
EXACT_BOUND = 1e-6  # in float64, where only the rounding of the stored values is left
CANCELLATION = 10.0  # by how much a sum that cancels may exceed the float32 bounds
_COMPARED = ("out/", "loss", "grad/", "grad_in/")


class GoldenFileError(ValueError):
    """A file that is no golden file."""


@dataclass(frozen=True, eq=False)
class Golden:
    """A golden file.

    Attributes:
        name: the file's name without its ending; only its beginning means something.
        config: sizes and switches.
        arrays: every array of the file under its full key, such as `param/encoder.weight`.
    """

    name: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path) -> "Golden":
        """Reads an `.npz` file.

        Raises:
            GoldenFileError: it cannot be read or has no `config`.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            config = json.loads(str(arrays.pop("config")))
        except Exception as error:  # zipfile, zlib, NumPy and JSON each have errors of their own
            reason = f"{type(error).__name__}: {error}"
            raise GoldenFileError(f"`{path}` is no golden file ({reason}).") from None
        return cls(path.stem, config, arrays)

    def section(self, name: str) -> dict[str, np.ndarray]:
        """The arrays whose keys begin with `name/`, under the rest of their keys."""
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The weights under their PyTorch names."""
        return self.section("param")

    def float_inputs(self, dtype: str) -> dict[str, np.ndarray]:
        """The float inputs by name, in a type to compute in."""
        floats = {k: v for k, v in self.section("in").items() if v.dtype.kind == "f"}
        return {name: array.astype(dtype) for name, array in floats.items()}

    def input(self, name: str) -> np.ndarray:
        """The array `in/name`."""
        return self.arrays[f"in/{name}"]


Case = Callable[[Golden, str], Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Registration:
    """A registered case: the function and its bounds."""

    function: Case
    dtype: str
    forward_bound: float
    gradient_bound: float


_CASES: dict[str, Registration] = {}


def case(
    *prefixes: str,
    dtype: str = "float32",
    forward_bound: float = FORWARD_BOUND,
    gradient_bound: float = GRADIENT_BOUND,
) -> Callable[[Case], Case]:
    """Registers a function `(golden, dtype)` for the files whose names begin with a prefix.

    The function returns our values under the file's keys (`out/<name>`, `loss`, `grad/<name>`,
    `grad_in/<name>`), in the file's layout. `differentiate` makes most of it.

    Args:
        *prefixes: beginnings of names; the longest that fits a file decides.
        dtype: the type to compute in: float64 only where a case needs a tight solve.
        forward_bound: largest relative error of outputs and loss.
        gradient_bound: largest relative error of gradients.
    """

    def register(function: Case) -> Case:
        for prefix in prefixes:
            _CASES[prefix] = Registration(function, dtype, forward_bound, gradient_bound)
        return function

    return register


def find_case(name: str) -> Registration | None:
    """The case of a file's name, or `None` for an unknown one."""
    fitting = [prefix for prefix in _CASES if name.startswith(prefix)]
    return _CASES[max(fitting, key=len)] if fitting else None


def differentiate(
    golden: Golden,
    forward: Callable[[dict[str, Any]], Mapping[str, Any]],
    bindings: Iterable[Binding],
    inputs: Mapping[str, Any],
    loss: Callable[[Mapping[str, Any]], Any] | None = None,
) -> dict[str, np.ndarray]:
    """Runs a case forward and backward.

    Args:
        golden: the file.
        forward: from the float inputs by name to the outputs by name, in the file's layout.
        bindings: the weights and their names, from `keras_seq.convert.bind`.
        inputs: the float inputs that `forward` gets and that gradients are taken for.
        loss: from the outputs to the loss; the files' test loss, the sum of `coef * out`, by
            default.

    Returns:
        Values under the keys of the file.
    """
    bindings = list(bindings)

    def run(inputs: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        outputs = forward(inputs)
        return (loss or _test_loss(golden))(outputs), outputs

    variables = [binding.slot.variable for binding in bindings]
    total, outputs, of_variables, of_inputs = with_gradients(run, variables, dict(inputs))
    values = {f"out/{name}": ops.convert_to_numpy(value) for name, value in outputs.items()}
    values["loss"] = ops.convert_to_numpy(total)
    for binding, gradient in zip(bindings, of_variables, strict=True):
        if gradient is not None:
            for name, part in binding.to_reference(gradient).items():
                # Weights of ours that are parts of one array, or share it, add up.
                values[f"grad/{name}"] = values.get(f"grad/{name}", 0) + part
    values.update({f"grad_in/{name}": gradient for name, gradient in of_inputs.items()})
    return values


def _test_loss(golden: Golden) -> Callable[[Mapping[str, Any]], Any]:
    """The loss of the files. Summed in float64: the terms have either sign and cancel."""

    def loss(outputs: Mapping[str, Any]):
        terms = [
            ops.sum(ops.cast(outputs[name], "float64") * ops.cast(weights, "float64"))
            for name, weights in golden.section("coef").items()
        ]
        return sum(terms)

    return loss


# Comparison ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        name: the case.
        forward: largest relative error of outputs and loss.
        gradients: largest relative error of gradients.
        faults: a line for every key that is missing or beyond its bound.
        exact: the two errors of a second run in float64, if there was one.
    """

    name: str
    forward: float
    gradients: float
    faults: tuple[str, ...]
    exact: tuple[float, float] | None = None

    @property
    def ok(self) -> bool:
        return not self.faults


def relative_error(ours: Any, golden: np.ndarray, scale: float | None = None) -> float:
    """The largest difference, relative to the largest absolute value of the golden array.

    Of an array of zeros the difference itself. Infinite if shapes differ or a value is not finite.

    Args:
        ours: our values.
        golden: the reference's.
        scale: a larger scale to use.
    """
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    if ours.shape != golden.shape or not np.all(np.isfinite(ours)):
        return float("inf")
    if not golden.size:
        return 0.0
    largest = max(float(np.max(np.abs(golden))), scale or 0.0)
    return float(np.max(np.abs(ours - golden))) / (largest or 1.0)


def _loss_scale(golden: Golden) -> float:
    """The largest summand of the test loss; the sum itself may cancel to any small number."""
    outputs = golden.section("out")
    terms = [
        np.max(np.abs(np.float64(weights) * outputs[name]), initial=0.0)
        for name, weights in golden.section("coef").items()
        if name in outputs
    ]
    return float(max(terms, default=0.0))


def compare(
    golden: Golden,
    values: Mapping[str, Any],
    forward_bound: float = FORWARD_BOUND,
    gradient_bound: float = GRADIENT_BOUND,
) -> Result:
    """Compares our values with a golden file: every output, the loss and every gradient of it.

    Args:
        golden: the file.
        values: ours, under the file's keys.
        forward_bound: largest relative error of outputs and loss.
        gradient_bound: largest relative error of gradients.
    """
    worst = {"forward": 0.0, "gradients": 0.0}
    faults = []
    for key in golden.arrays:
        if not (key == "loss" or key.startswith(_COMPARED)):
            continue
        kind = "gradients" if key.startswith("grad") else "forward"
        bound = gradient_bound if kind == "gradients" else forward_bound
        if key not in values:
            error = float("inf")
            faults.append(f"{key}: not computed")
        else:
            scale = _loss_scale(golden) if key == "loss" else None
            error = relative_error(values[key], golden.arrays[key], scale)
            if not error <= bound:
                faults.append(f"{key}: {error:.1e} is beyond {bound:.0e}")
        worst[kind] = max(worst[kind], error)
    return Result(golden.name, worst["forward"], worst["gradients"], tuple(faults))


def run_case(path, dtype: str | None = None) -> Result | None:
    """Runs a golden file.

    A sum may cancel to a small part of its terms; its float32 value is then worse than the bounds,
    whoever computes it. A case that exceeds them by less than a factor of `CANCELLATION` is
    therefore computed again in float64, and passes if it agrees to `EXACT_BOUND` there. The result
    says so.

    Args:
        path: the file.
        dtype: the type to compute in, in place of the case's own.

    Returns:
        The result, or `None` if no case is registered for its name.
    """
    registration = find_case(Path(path).stem)
    if registration is None:
        return None
    golden = Golden.load(path)
    bounds = registration.forward_bound, registration.gradient_bound
    result = compare(golden, registration.function(golden, dtype or registration.dtype), *bounds)
    if result.ok or dtype is not None or registration.dtype != "float32":
        return result
    near = [bound * CANCELLATION for bound in bounds]
    if result.forward > near[0] or result.gradients > near[1]:
        return result
    exact = compare(golden, registration.function(golden, "float64"), EXACT_BOUND, EXACT_BOUND)
    faults = () if exact.ok else result.faults
    return replace(result, faults=faults, exact=(exact.forward, exact.gradients))
