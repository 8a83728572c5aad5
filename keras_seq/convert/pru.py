"""Pyramidal recurrent unit: names and layouts of the original release."""

import numpy as np

from keras_seq.convert.mappings import ANY_PREFIX, DENSE, Layout, Slot, Unused, mapping, slots
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import LSTM, PRU, GroupedLinear, PyramidalTransform, RecurrentStack
from keras_seq.models import LanguageModel

GATES = ("f", "g", "i", "o")  # in the order of both transforms, here and in the release


@mapping(PyramidalTransform)
def pyramidal_slots(layer: PyramidalTransform, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`pyramid.<level>.weight` and `pyramid.<level>.bias`."""
    if layer.windows:
        raise ValueError(
            "`model` must sub-sample without learned windows: the release has none. "
            f"Received: subsampling={layer.subsampling!r}."
        )
    found: list[Slot | Unused] = [
        Slot(kernel, (rf"{prefix}pyramid\.{level}\.weight",), DENSE)
        for level, kernel in enumerate(layer.kernels)
    ]
    found += [
        Slot(bias, (rf"{prefix}pyramid\.{level}\.bias",)) for level, bias in enumerate(layer.biases)
    ]
    return found


@mapping(GroupedLinear)
def grouped_slots(layer: GroupedLinear, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`W` and `bias`, laid out as here."""
    found: list[Slot | Unused] = [Slot(layer.kernel, (rf"{prefix}W",))]
    if layer.bias is not None:
        found.append(Slot(layer.bias, (rf"{prefix}bias",)))
    return found


@mapping(PRU)
def pru_slots(layer: PRU, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`pt` (the pyramidal transform of the input) and `glt` (the grouped one of the context)."""
    cell = layer.cell
    if not isinstance(cell.input_transform, PyramidalTransform) or not isinstance(
        cell.context_transform, GroupedLinear
    ):
        raise ValueError(
            "`model` must have a pyramidal input and a grouped or linear context transform, as the "
            f"release has. Received: {cell.input_transform_kind!r} and "
            f"{cell.context_transform_kind!r}."
        )
    return [
        *pyramidal_slots(cell.input_transform, rf"{prefix}pt\."),
        *grouped_slots(cell.context_transform, rf"{prefix}glt\."),
    ]


def _gates(order: str, names: str, array: np.ndarray) -> np.ndarray:
    """Four blocks along the first axis, named by the letters of `names`, put into another order."""
    blocks = dict(zip(names, np.split(array, 4, axis=0), strict=True))
    return np.concatenate([blocks[name] for name in order], axis=0)


def _ours(array: np.ndarray) -> np.ndarray:
    """PyTorch's rows i, f, g, o as one group of columns f, g, i, o."""
    return np.transpose(_gates("fgio", "ifgo", array))[None]


def _theirs(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (_gates("ifgo", "fgio", np.transpose(array[0])),)


LSTM_GATES = Layout(_ours, _theirs)  # (4u, d) or (4u,) ↔ (1, d, 4u) or (1, 4u)


@mapping(LSTM)
def lstm_slots(layer: LSTM, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """PyTorch's LSTM of one layer; a kernel under weight dropout ends in `_raw`."""
    found: list[Slot | Unused] = []
    transforms = (("ih", layer.cell.input_transform), ("hh", layer.cell.context_transform))
    for name, transform in transforms:
        found.append(Slot(transform.kernel, (rf"{prefix}weight_{name}_l0(?:_raw)?",), LSTM_GATES))
        found.append(Slot(transform.bias, (rf"{prefix}bias_{name}_l0",), LSTM_GATES))
    return found


@mapping(RecurrentStack)
def stack_slots(stack: RecurrentStack, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`rnns.<i>`; a layer under weight dropout is wrapped in a `module`."""
    found: list[Slot | Unused] = []
    for index, layer in enumerate(stack.layers):
        found += slots(layer, rf"{prefix}rnns\.{index}\.(?:module\.)?")
    return found


@mapping(LanguageModel, core=RecurrentStack)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`encoder`, `rnns.<i>` and `decoder`."""
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *slots(model.head, prefix),
    ]
