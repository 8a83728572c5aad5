"""Pyramidal recurrent unit: names and layouts of the original release, and its golden cases."""

from typing import Any

import numpy as np
from keras import ops

from keras_seq.convert.cases import Golden, case, differentiate
from keras_seq.convert.mappings import (
    ANY_PREFIX,
    DENSE,
    Layout,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.convert.reference import bind, load_reference
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import LSTM, PRU, GroupedLinear, PyramidalTransform, RecurrentStack
from keras_seq.losses import activation_regularization, temporal_activation_regularization
from keras_seq.models import LanguageModel

GATES = ("f", "g", "i", "o")  # in the order of both transforms, here and in the release

# Mappings -----------------------------------------------------------------------------------------


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


# Cases --------------------------------------------------------------------------------------------


def _float_inputs(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    return {
        name: array.astype(dtype)
        for name, array in golden.section("in").items()
        if array.dtype.kind == "f"
    }


def _by_gate(pre) -> dict[str, Any]:
    """Pre-activations (b, 4u) as the four outputs of a file."""
    return dict(zip(GATES, ops.split(pre, 4, axis=-1), strict=True))


@case("pru_pyramidal")
def pru_pyramidal(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The pyramidal transform of (b, 1, d)."""
    config = golden.config
    layer = PyramidalTransform(config["nhid"], config["k"], blocks=4, dtype=dtype)
    inputs = _float_inputs(golden, dtype)
    layer.build(inputs["x"].shape)
    load_reference(layer, golden.parameters)

    def forward(inputs):
        return _by_gate(layer(inputs["x"])[:, 0])

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("pru_grouped_linear")
def pru_grouped_linear(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The grouped linear transform of (1, b, n)."""
    config = golden.config
    layer = GroupedLinear(config["n"], config["groups"], blocks=4, dtype=dtype)
    inputs = _float_inputs(golden, dtype)
    layer.build(inputs["h"].shape)
    load_reference(layer, golden.parameters)

    def forward(inputs):
        return _by_gate(layer(inputs["h"])[0])

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("pru_layer")
def pru_layer(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The layer alone, from a given state; (t, b, d) in the file."""
    config = golden.config
    layer = PRU(config["hidden_size"], config["k"], config["groups"], dtype=dtype)
    inputs = _float_inputs(golden, dtype)
    layer.build((None, None, inputs["x"].shape[-1]))
    load_reference(layer, golden.parameters)

    def forward(inputs):
        y, (h, c) = layer(
            ops.transpose(inputs["x"], (1, 0, 2)),
            initial_state=[inputs["h0"][0], inputs["c0"][0]],
            return_state=True,
        )
        return {"y": ops.transpose(y, (1, 0, 2)), "h_last": h[None], "c_last": c[None]}

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


def _language_model(golden: Golden, dtype: str) -> LanguageModel:
    """The model that a file's `config` describes: inner layers of `nhid`, the last of `ninp`."""
    config = golden.config
    count, tied = config["nlayers"], config.get("tie_weights", True)
    widths = [config["nhid"]] * count
    if tied:
        widths[-1] = config["ninp"]
    core = RecurrentStack(
        [
            LSTM(width, dtype=dtype)
            if config["rnn_type"] == "LSTM"
            else PRU(width, config["k"], config["g"], dtype=dtype)
            for width in widths
        ],
        dtype=dtype,
    )
    model = LanguageModel(
        config["ntoken"],
        config["ninp"],
        core,
        head="tied" if tied else "softmax",
        dtype=dtype,
    )
    model.build((None, None))
    return model


@case("pru_lm", "pru_lm_lstm_baseline")
def pru_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language model, with each layer's outputs and states, and both regularisers."""
    model = _language_model(golden, dtype)
    core = model.core
    load_reference(model, golden.parameters)
    ids, targets = (np.transpose(golden.input(name)) for name in ("tokens", "targets"))
    inputs = _float_inputs(golden, dtype)
    by_time = (1, 0, 2)

    def forward(inputs):
        outputs = {}
        state = [[inputs[f"{kind}0_{i}"][0] for kind in "hc"] for i in range(len(core.layers))]
        features = model.features(ids, state, return_state=True, masks={})
        x = model.embedding(ids)
        for i, layer in enumerate(core.layers):
            x = layer(x, initial_state=state[i])
            outputs[f"raw_{i}"] = ops.transpose(x, by_time)
            outputs[f"h_last_{i}"], outputs[f"c_last_{i}"] = (s[None] for s in features.state[i])
        logits = model.head.logits(features.outputs, tables=model.tables)
        nll = model.head.nll(features.outputs, targets, tables=model.tables)
        return {
            **outputs,
            "logits": ops.transpose(logits, by_time),
            "ce": ops.mean(nll),
            "ar_alpha2": activation_regularization(features.outputs, 2.0),
            "tar_beta1": temporal_activation_regularization(features.raw, 1.0),
        }

    return differentiate(golden, forward, bind(model, golden.parameters), inputs)
