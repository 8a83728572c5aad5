"""R-Transformer: names and layouts of the original release."""

from typing import Any

import numpy as np

from keras_seq.convert.mappings import ANY_PREFIX, DENSE, Layout, Slot, Unused, mapping, slots
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import (
    FeedForward,
    LocalRNN,
    RTransformer,
    RTransformerBlock,
    SelfAttention,
    UnbiasedLayerNormalization,
)
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier

_THREE_KERNELS = Layout(  # queries, keys, values: three (out, in) ↔ (in, 3 out)
    lambda *arrays: np.concatenate([np.transpose(array) for array in arrays], axis=1),
    lambda array: tuple(np.transpose(part) for part in np.split(array, 3, axis=1)),
)
_THREE_BIASES = Layout(
    lambda *arrays: np.concatenate(arrays),
    lambda array: tuple(np.split(array, 3)),
)


def _linear(kernel, bias, name: str) -> list[Slot | Unused]:
    return [Slot(kernel, (rf"{name}\.weight",), DENSE), Slot(bias, (rf"{name}\.bias",))]


@mapping(UnbiasedLayerNormalization)
def norm_slots(layer: UnbiasedLayerNormalization, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`a_2` and `b_2`."""
    return [Slot(layer.gain, (prefix + "a_2",)), Slot(layer.bias, (prefix + "b_2",))]


@mapping(LocalRNN)
def local_rnn_slots(layer: LocalRNN, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`rnn.weight_ih_l0` and so on; gates are in the same order. `output.0` is never used."""
    if not isinstance(layer.cell, str):
        raise ValueError(
            "`model` must have a recurrent cell of the release: 'gru', 'lstm' or 'rnn'. "
            f"Received: cell={layer.cell!r}."
        )
    name = prefix + r"rnn\."
    return [
        Slot(layer.kernel, (name + "weight_ih_l0",), DENSE),
        Slot(layer.recurrent_kernel, (name + "weight_hh_l0",), DENSE),
        Slot(layer.bias, (name + "bias_ih_l0",)),
        Slot(layer.recurrent_bias, (name + "bias_hh_l0",)),
        Unused(prefix + r"output\.0\.(?:weight|bias)"),
    ]


@mapping(SelfAttention)
def attention_slots(layer: SelfAttention, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`linears.0` to `linears.3`: queries, keys, values, output."""
    name = prefix + r"linears\."
    return [
        Slot(layer.kernel, tuple(rf"{name}{i}\.weight" for i in range(3)), _THREE_KERNELS),
        Slot(layer.bias, tuple(rf"{name}{i}\.bias" for i in range(3)), _THREE_BIASES),
        *_linear(layer.output_kernel, layer.output_bias, name + "3"),
    ]


@mapping(FeedForward)
def feed_forward_slots(layer: FeedForward, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`w_1` and `w_2`."""
    return [
        *_linear(layer.inner_kernel, layer.inner_bias, prefix + "w_1"),
        *_linear(layer.output_kernel, layer.output_bias, prefix + "w_2"),
    ]


@mapping(RTransformerBlock)
def block_slots(block: RTransformerBlock, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`layers.<n>`, `pooling`, `feed_forward`, and two `connections` that hold the norms."""
    if block.normalization != "unbiased":
        raise ValueError(
            "`model` must have the normalisation of the release, 'unbiased'. "
            f"Received: normalization={block.normalization!r}."
        )
    found: list[Slot | Unused] = []
    for index, (norm, local) in enumerate(zip(block.local_norms, block.local_rnns, strict=True)):
        name = prefix + rf"layers\.{index}\."
        found += slots(norm, name + r"connection\.norm\.")
        found += slots(local, name + r"local_rnn\.")
    return [
        *found,
        *slots(block.attention_norm, prefix + r"connections\.0\.norm\."),
        *slots(block.attention, prefix + r"pooling\."),
        *slots(block.feed_forward_norm, prefix + r"connections\.1\.norm\."),
        *slots(block.feed_forward, prefix + r"feed_forward\."),
    ]


@mapping(RTransformer)
def stack_slots(layer: RTransformer, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`rt.forward_net.<level>`, and `encoder` for the input projection.

    The norm and feed-forward network of the stack itself are never used.
    """
    stack = rf"(?:{prefix}rt\.)?"
    found: list[Slot | Unused] = []
    for level, block in enumerate(layer.blocks):
        name = stack + rf"forward_net\.{level}\."
        parts = slots(block, name)
        if layer.unused_weights:
            parts = [part for part in parts if isinstance(part, Slot)]
            for index in range(block.local_layers):
                kernel, bias = (layer.unused[f"local_{level}_{index}_{k}"] for k in _KINDS)
                output = name + rf"layers\.{index}\.local_rnn\.output\.0"
                parts += _linear(kernel, bias, output)
        found += parts
    if layer.unused_weights:
        norm = stack + r"norm\."
        found += [
            Slot(layer.unused["norm_gain"], (norm + "a_2",)),
            Slot(layer.unused["norm_bias"], (norm + "b_2",)),
        ]
        for ours, theirs in (("inner", "w_1"), ("output", "w_2")):
            kernel, bias = (layer.unused[f"{ours}_{kind}"] for kind in _KINDS)
            found += _linear(kernel, bias, stack + rf"feed_forward\.{theirs}")
    else:
        found.append(Unused(stack + r"norm\.[ab]_2"))
        found.append(Unused(stack + r"feed_forward\.w_[12]\.(?:weight|bias)"))
    if layer.projection is not None:
        found += _linear(layer.projection.kernel, layer.projection.bias, prefix + "encoder")
    return found


_KINDS = ("kernel", "bias")


@mapping(LanguageModel, core=RTransformer)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`encoder` (the embedding), `rt` and `decoder`."""
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *slots(model.head, prefix),
    ]


@mapping(SequenceClassifier, core=RTransformer)
@mapping(FrameModel, core=RTransformer)
def reader_slots(model: Any, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`encoder` (the input projection), `rt` and `linear`."""
    dense = model.dense
    return [*slots(model.core, prefix), *_linear(dense.kernel, dense.bias, prefix + "linear")]
