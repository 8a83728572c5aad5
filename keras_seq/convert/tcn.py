"""Temporal convolutional network: names and layouts of the original release."""

from typing import Any

from keras_seq.convert.mappings import (
    ANY_PREFIX,
    CHANNEL_GAIN,
    CONVOLUTION,
    DENSE,
    POINTWISE,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import TCN, TemporalBlock
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor

# A convolution is an attribute of its block and an entry of the block's `net`: two names of one.
_CONVOLUTIONS = (("first", r"(?:conv1|net\.0)\."), ("second", r"(?:conv2|net\.4)\."))
_DIRECTION = r"(?:weight_v|parametrizations\.weight\.original1)"  # the latter since PyTorch 2
_GAIN = r"(?:weight_g|parametrizations\.weight\.original0)"


@mapping(TemporalBlock)
def block_slots(block: TemporalBlock, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`conv1` and `conv2`, also called `net.0` and `net.4`, and `downsample`."""
    normalized = block.weight_normalization
    found: list[Slot | Unused] = []
    for attribute, name in _CONVOLUTIONS:
        kernel, bias, *gain = getattr(block, attribute)
        name = prefix + name
        found.append(Slot(kernel, (name + (_DIRECTION if normalized else "weight"),), CONVOLUTION))
        found.append(Slot(bias, (name + "bias",)))
        found += [Slot(variable, (name + _GAIN,), CHANNEL_GAIN) for variable in gain]
    if block.residual is not None:
        kernel, bias = block.residual
        found.append(Slot(kernel, (prefix + r"downsample\.weight",), POINTWISE))
        found.append(Slot(bias, (prefix + r"downsample\.bias",)))
    return found


@mapping(TCN)
def tcn_slots(layer: TCN, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`network.<level>`."""
    block = layer.blocks[0]
    others = {
        "skip_connections": (layer.skip_connections, False),
        "branch_activation": (block.branch_activation, False),
        "normalization": (block.normalization, None),
        "padding": (layer.padding, "causal"),
    }
    received = [f"{name}={ours!r}" for name, (ours, theirs) in others.items() if ours != theirs]
    if received:
        raise ValueError(
            "`model` must be a network of the release of Bai et al., which is causal and has no "
            "skip connections, no activation of the branch, no normalisation but that of weights. "
            f"Received: {', '.join(received)}. Build it without."
        )
    return [
        slot
        for level, block in enumerate(layer.blocks)
        for slot in slots(block, rf"{prefix}network\.{level}\.")
    ]


@mapping(LanguageModel, core=TCN)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`encoder`, `tcn` and `decoder`."""
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *slots(model.head, prefix),
    ]


@mapping(SequenceClassifier, core=TCN)
@mapping(SequenceRegressor, core=TCN)
@mapping(FrameModel, core=TCN)
def reader_slots(model: Any, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`tcn` and `linear`."""
    found = [
        *slots(model.core, prefix),
        Slot(model.dense.kernel, (prefix + r"linear\.weight",), DENSE),
        Slot(model.dense.bias, (prefix + r"linear\.bias",)),
    ]
    if model.embedding is not None:
        found.append(Slot(model.embedding.embeddings, (prefix + r"encoder\.weight",)))
    return found
