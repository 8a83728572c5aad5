"""How the weights of a layer or model are called and laid out in the reference implementations.

Every family has one file here that registers, for its classes, a function from a built object to
its slots. `keras_seq.convert.reference` fills them.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_seq._discovery import modules_of

ANY_PREFIX = r"(?:.*\.)?"  # the modules around the one that a mapping describes


def _one(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array,)


@dataclass(frozen=True)
class Layout:
    """How a weight is laid out here and in the reference implementation.

    Args:
        ours: from the reference arrays of a slot, in the order of its names, to our array.
        theirs: back: from our array, or a gradient of it, to the reference arrays.
    """

    ours: Callable[..., np.ndarray] = lambda array: array
    theirs: Callable[[np.ndarray], tuple[np.ndarray, ...]] = _one


IDENTITY = Layout()
DENSE = Layout(np.transpose, lambda array: (np.transpose(array),))  # (out, in) ↔ (in, out)
CONVOLUTION = Layout(  # (out, in, taps) ↔ (taps, in, out); tap k-1 is the current step in both
    lambda array: np.transpose(array, (2, 1, 0)), lambda array: (np.transpose(array, (2, 1, 0)),)
)
POINTWISE = Layout(  # a convolution of one tap: (out, in, 1) ↔ (in, out)
    lambda array: np.transpose(array[:, :, 0]), lambda array: (np.transpose(array)[:, :, None],)
)
CHANNEL_GAIN = Layout(  # weight normalisation's g: (out, 1, 1) ↔ (out,)
    lambda array: np.reshape(array, (-1,)), lambda array: (np.reshape(array, (-1, 1, 1)),)
)


@dataclass(frozen=True, eq=False)
class Slot:
    """A weight of ours and where its values come from.

    Args:
        variable: the weight.
        names: regular expressions, one for each reference array that goes into the weight, each
            matched against whole names. Several names of the file may match one of them: these are
            aliases of one array and must be equal.
        layout: how the arrays become the weight.
        rows: `(first, total)` where the weight is only a part of one reference array: its rows
            (first axis, in the reference's layout) from `first` on, of `total` rows. Several slots
            may then name the same array.
    """

    variable: Any
    names: tuple[str, ...]
    layout: Layout = IDENTITY
    rows: tuple[int, int] | None = None

    @property
    def reference_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the reference arrays."""
        like = np.broadcast_to(np.float32(0), tuple(self.variable.shape))
        shapes = [part.shape for part in self.layout.theirs(like)]
        if self.rows is None:
            return shapes
        return [(self.rows[1], *shape[1:]) for shape in shapes]

    def from_reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The weight's values from the reference arrays."""
        if self.rows is not None:
            like = np.broadcast_to(np.float32(0), tuple(self.variable.shape))
            count = self.layout.theirs(like)[0].shape[0]
            arrays = tuple(array[self.rows[0] : self.rows[0] + count] for array in arrays)
        return self.layout.ours(*arrays)

    def to_reference(self, array: np.ndarray) -> tuple[np.ndarray, ...]:
        """An array in our layout, such as a gradient, as reference arrays; zero in other rows."""
        parts = self.layout.theirs(np.asarray(array))
        if self.rows is None:
            return parts
        first, total = self.rows
        padding = [(first, total - first - parts[0].shape[0])]
        return tuple(np.pad(part, padding + [(0, 0)] * (part.ndim - 1)) for part in parts)


@dataclass(frozen=True)
class Unused:
    """Arrays of the reference implementation that do not take part in the computation.

    Args:
        name: a regular expression matched against whole names.
    """

    name: str


Mapping = Callable[..., Sequence[Slot | Unused]]
_MAPPINGS: list[tuple[type, str | None, dict[str, type], Mapping]] = []


def mapping(cls: type, *, source: str | None = None, **parts: type) -> Callable[[Mapping], Mapping]:
    """Registers the mapping of a class: a function `(object, prefix)` to slots.

    Args:
        cls: the class of layer or model. Subclasses are included.
        source: a regular expression for a name that only arrays of one of several releases of the
            class have. The mapping is then for these, and its function gets the names, too:
            `(object, prefix, names)`.
        **parts: attributes of the object and the class that each must have, where that decides
            the names: `mapping(LanguageModel, core=TrellisNet)`.

    Example:

    ```python
    @mapping(TrellisNet)
    def trellis(layer, prefix=ANY_PREFIX):
        return [Slot(layer.bias, (prefix + r"full_conv\\.bias2",))]
    ```
    """

    def register(function: Mapping) -> Mapping:
        _MAPPINGS.append((cls, source, parts, function))
        return function

    return register


def slots(
    target: Any, prefix: str = ANY_PREFIX, names: Collection[str] = ()
) -> list[Slot | Unused]:
    """The slots of a layer or model.

    Args:
        target: a built layer or model.
        prefix: a regular expression for what stands before its names.
        names: of the arrays, which tell releases of one class from each other.

    Raises:
        ValueError: no mapping is registered for its class.
    """
    usual = None
    for cls, source, parts, function in reversed(_MAPPINGS):
        fits = all(isinstance(getattr(target, name, None), kind) for name, kind in parts.items())
        if not (isinstance(target, cls) and fits):
            continue
        if source is None:
            usual = usual or function
        elif any(re.fullmatch(source, name) for name in names):
            return list(function(target, prefix, names))
    if usual is not None:
        return list(usual(target, prefix))
    known = sorted({cls.__name__ for cls, *_ in _MAPPINGS})
    raise ValueError(
        f"`model` must be of a class with a mapping to reference weights: {', '.join(known)} (or a "
        f"model of these parts). Received: model of class {type(target).__name__}. Register one "
        "with `keras_seq.convert.mapping`."
    )


def discover() -> None:
    """Imports every file of this package, so that all mappings are registered.

    The package does so when it is imported: a new family's file is listed nowhere.
    """
    modules_of("keras_seq.convert")
