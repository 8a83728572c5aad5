"""TrellisNet: names and layouts of the original release."""

from keras_seq.convert.mappings import (
    ANY_PREFIX,
    CHANNEL_GAIN,
    CONVOLUTION,
    DENSE,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier


@mapping(TrellisNet)
def trellis_slots(layer: TrellisNet, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`full_conv.weight1` (input), `weight2` (hidden), `bias2`.

    With weight normalisation each kernel is a direction `_v` and a gain `_g`; a kernel under weight
    dropout ends in `_raw`. Taps and gates are in the same order here.
    """
    if layer.groups is not None:
        raise ValueError(
            "`model` must have a dense kernel: the release has no mixed-group kernel. "
            f"Received: groups={layer.groups}."
        )
    prefix += r"(?:full_conv\.)?"
    direction = "_v" if layer.weight_normalization else ""
    found: list[Slot | Unused] = [
        Slot(layer.kernel_input, (rf"{prefix}weight1{direction}(?:_raw)?",), CONVOLUTION),
        Slot(layer.kernel_hidden, (rf"{prefix}weight2{direction}(?:_raw)?",), CONVOLUTION),
        Slot(layer.bias, (rf"{prefix}bias2",)),
    ]
    if layer.weight_normalization:
        found += [
            Slot(layer.gain_input, (rf"{prefix}weight1_g",), CHANNEL_GAIN),
            Slot(layer.gain_hidden, (rf"{prefix}weight2_g",), CHANNEL_GAIN),
        ]
    return found


@mapping(LanguageModel, core=TrellisNet)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`encoder`, `tnet.module` and `decoder` or `mixsoft`, with their aliases under `network`."""
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *slots(model.head, prefix),
    ]


@mapping(SequenceClassifier, core=TrellisNet)
def classifier_slots(model: SequenceClassifier, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`network.0.module` (or `tnet`) and `linear`."""
    found = [
        *slots(model.core, prefix),
        Slot(model.dense.kernel, (prefix + r"(?:linear|decoder)\.weight",), DENSE),
        Slot(model.dense.bias, (prefix + r"(?:linear|decoder)\.bias",)),
    ]
    if model.embedding is not None:
        found.append(Slot(model.embedding.embeddings, (prefix + r"encoder\.weight",)))
    return found
