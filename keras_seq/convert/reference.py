"""Loading the weights of the reference implementations into layers and models."""

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files
from keras_seq._reading import SLACK, BrokenFileError, check_unpacked, reading, regular
from keras_seq.convert.keras_file import read_keras_weights
from keras_seq.convert.mappings import Slot, Unused, slots
from keras_seq.convert.torch_file import read_state_dict


class ReferenceWeightsError(ValueError):
    """Reference weights that do not fit; the message lists every array concerned."""


@dataclass(frozen=True, eq=False)
class Binding:
    """A slot and the arrays that fill it.

    Attributes:
        slot: the slot.
        names: for each reference array of the slot, its names in the file (more than one: aliases).
        value: the values in our layout.
    """

    slot: Slot
    names: tuple[tuple[str, ...], ...]
    value: np.ndarray

    def to_reference(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """An array in our layout, such as a gradient, under the reference's names and layout."""
        parts = self.slot.to_reference(array)
        return {name: part for names, part in zip(self.names, parts, strict=True) for name in names}


def read_arrays(source: Any, limit: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of a source of reference weights.

    Args:
        source: a mapping of names to arrays, or the path of an `.npz`, a Keras or a PyTorch file.
            Of a golden file (an `.npz` with keys `param/<name>`) the parameters are taken.
        limit: most bytes of the arrays of a file.

    Raises:
        ReferenceWeightsError: for an `.npz` or Keras file that is missing or damaged.
        TorchFileError: for such a PyTorch file.
    """
    if isinstance(source, Mapping):
        return {str(name): np.asarray(array) for name, array in source.items()}
    path = Path(source)
    if path.suffix in (".keras", ".h5"):
        try:
            return read_keras_weights(path, limit)
        except (BrokenFileError, FileNotFoundError) as error:
            raise ReferenceWeightsError(str(error)) from None
    if path.suffix != ".npz":
        return read_state_dict(path, limit)
    remedy = "Give the path of an .npz file of weights, as it was written."
    try:
        with reading(path, "an .npz file", remedy):
            with zipfile.ZipFile(regular(path, remedy)) as archive:
                check_unpacked(archive, limit)
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ReferenceWeightsError(f"There is no file `{path}`. {remedy}") from None
    except BrokenFileError as error:
        raise ReferenceWeightsError(str(error)) from None
    parameters = {
        name.removeprefix("param/"): array
        for name, array in arrays.items()
        if name.startswith("param/")
    }
    return parameters or arrays


def bind(model: Any, arrays: Mapping[str, np.ndarray]) -> list[Binding]:
    """Finds, for every weight of a model, the reference arrays that fill it. Assigns nothing.

    Args:
        model: a built layer or model with a registered mapping.
        arrays: the reference arrays by name.

    Raises:
        ReferenceWeightsError: an array is left over, a weight stays unfilled, a shape differs, or
            two names of one weight hold different values. All findings are in the message.
    """
    if not getattr(model, "built", True):
        raise ReferenceWeightsError(
            f"`model` must be built before weights are loaded. Received: an unbuilt "
            f"{type(model).__name__}. Call it once, or its build()."
        )
    arrays = _without_wrapper({name: np.asarray(array) for name, array in arrays.items()})
    # Where weight dropout left what it last made of a kernel beside the kernel, the latter counts.
    arrays = {name: array for name, array in arrays.items() if f"{name}_raw" not in arrays}
    described = slots(model, names=arrays)
    unused = [re.compile(item.name) for item in described if isinstance(item, Unused)]
    used = {name for name in arrays if not any(p.fullmatch(name) for p in unused)}
    free = set(used)
    bindings: list[Binding] = []
    faults: list[str] = []
    for slot in described:
        if isinstance(slot, Unused):
            continue
        names = tuple(
            tuple(sorted(name for name in (free if slot.rows is None else used) if _fits(p, name)))
            for p in slot.names
        )
        for group in names:
            free.difference_update(group)
        binding = _fill(slot, names, arrays, faults)
        if binding is not None:
            bindings.append(binding)
    faults += [f"left over: `{name}` {arrays[name].shape}" for name in sorted(free)]
    faults += _unfilled(model, described)
    if faults:
        lines = "\n  ".join(faults)
        raise ReferenceWeightsError(
            f"The reference weights do not fit this {type(model).__name__}; nothing was loaded. "
            f"Build the model with the sizes and options of the weights.\n  {lines}"
        )
    return bindings


def load_reference(model: Any, arrays_or_path: Any) -> dict[str, tuple[str, ...]]:
    """Loads weights of a reference implementation (PyTorch names and layouts) into a model.

    Every array must be used and every weight filled. Everything is checked before anything is
    assigned, so that a model is either loaded whole or left as it was.

    Args:
        model: a built layer or model, such as `TrellisNet`, `LanguageModel`, `SequenceClassifier`.
        arrays_or_path: a dictionary of arrays under their PyTorch names, an `.npz` file, or a file
            that `torch.save` wrote; nothing of the latter is executed. Or a `.keras` or
            `.weights.h5` file of keras-tcn, of a model that `load_keras_tcn` describes.

    Returns:
        For the path of every weight the names of the arrays that filled it.

    Raises:
        ReferenceWeightsError: the arrays do not fit; each fault is listed with its shapes.
        TorchFileError: the file cannot be read.

    Example:

    ```python
    import numpy as np
    from keras_seq.convert import load_reference
    from keras_seq.layers import TrellisNet

    core = TrellisNet(units=3, output_units=2, levels=4)
    core.build((None, None, 6))
    load_reference(
        core,
        {
            "full_conv.weight1": np.zeros((20, 6, 2)),
            "full_conv.weight2": np.zeros((20, 5, 2)),
            "full_conv.bias2": np.zeros(20),
        },
    )
    ```
    """
    needed = sum(math.prod(weight.shape) for weight in model.weights)
    # In double precision, with the arrays that are not used here: gradients, averages, buffers.
    bindings = bind(model, read_arrays(arrays_or_path, SLACK + 64 * needed))
    for binding in bindings:
        binding.slot.variable.assign(binding.value)
    return {
        binding.slot.variable.path: tuple(name for names in binding.names for name in names)
        for binding in bindings
    }


def convert_file(source: Any, model: Any, destination: Any) -> Path:
    """Writes the weights of a PyTorch file as a Keras file; an interrupted run leaves no half file.

    Args:
        source: what `load_reference` accepts.
        model: the built model that the weights belong to.
        destination: a path ending in `.weights.h5` (weights) or `.keras` (the whole model).

    Returns:
        The path written.

    Raises:
        ValueError: the name has another ending; or whatever `load_reference` raises.
    """
    check_ending(destination)
    load_reference(model, source)
    return write_model(model, destination)


def check_ending(destination: Any) -> None:
    """Refuses the name of a file that Keras would not write."""
    if not Path(destination).name.endswith((".weights.h5", ".keras")):
        raise ValueError(
            "`destination` must end in '.weights.h5' (weights) or '.keras' (whole model). "
            f"Received: destination={str(destination)!r}."
        )


def write_model(model: Any, destination: Any) -> Path:
    """Writes a model or its weights, by the name's ending, whole or not at all."""
    check_ending(destination)
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".keras" if destination.suffix == ".keras" else ".weights.h5"
    with _files.atomic(destination, suffix) as temporary:
        (model.save if suffix == ".keras" else model.save_weights)(temporary)
    return destination


# Parts of bind ------------------------------------------------------------------------------------


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name) is not None


def _without_wrapper(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops the `module.` that nn.DataParallel puts before every name."""
    while arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _readable(pattern: str) -> str:
    """A pattern as a name that a reader recognises: no optional parts, the first alternatives."""
    text = re.sub(r"\(\?:[^()]*\)\?", "", pattern)
    text = re.sub(r"\(\?:([^()|]*)\|[^()]*\)", r"\1", text)
    return text.replace("[._]", ".").replace("\\", "")


def _fill(slot: Slot, names: tuple, arrays: dict, faults: list[str]) -> Binding | None:
    expected = slot.reference_shapes
    before = len(faults)
    for pattern, group, wanted in zip(slot.names, names, expected, strict=True):
        if not group:
            faults.append(
                f"missing: `{_readable(pattern)}` {wanted} for weight `{slot.variable.path}`"
            )
        for name in group:
            array = arrays[name]
            if array.shape != wanted:
                faults.append(f"shape: `{name}` must be {wanted}. Received: {array.shape}")
            elif array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
                faults.append(f"type: `{name}` must hold numbers. Received: {array.dtype}")
            elif name != group[0] and not np.array_equal(array, arrays[group[0]], equal_nan=True):
                faults.append(
                    f"aliases: `{group[0]}` and `{name}` are one weight here but differ in value"
                )
    if len(faults) > before:
        return None
    with np.errstate(over="ignore"):  # told below
        value = slot.from_reference(*(arrays[group[0]] for group in names))
        value = np.asarray(value, dtype=slot.variable.dtype)
    if not np.isfinite(value).all():
        listed = ", ".join(f"`{group[0]}`" for group in names)
        faults.append(f"not finite: {listed}, with which every answer would be no number")
        return None
    return Binding(slot, names, value)


def _unfilled(model: Any, described: list) -> list[str]:
    """Weights of the model that no slot describes, apart from random generators' states."""
    known = {id(item.variable) for item in described if isinstance(item, Slot)}
    return [
        f"no mapping: weight `{weight.path}` {tuple(weight.shape)}"
        for weight in model.weights
        if id(weight) not in known and weight.name != "steps_taken"  # a counter of training
    ]
