"""The deep equilibrium transformer: names and layouts of the original release."""

import numpy as np

from keras_seq.convert.mappings import (
    ANY_PREFIX,
    CHANNEL_GAIN,
    DENSE,
    POINTWISE,
    Layout,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import DeepEquilibrium, DEQTransformerCell
from keras_seq.models import LanguageModel

ROW_GAIN = Layout(  # weight normalisation's g of a linear layer: (out, 1) ↔ (out,)
    lambda array: np.reshape(array, (-1,)), lambda array: (np.reshape(array, (-1, 1)),)
)


@mapping(DEQTransformerCell)
def transformer_cell_slots(
    cell: DEQTransformerCell, prefix: str = ANY_PREFIX
) -> list[Slot | Unused]:
    """`inject_conv`, and of `func` the attention `dec_attn` and the feed-forward part `pos_ff`."""
    attention = cell.attention
    found: list[Slot | Unused] = [
        Slot(attention.content, (rf"{prefix}dec_attn\.r_w_bias",)),
        Slot(attention.position, (rf"{prefix}dec_attn\.r_r_bias",)),
        Slot(attention.output_bias, (rf"{prefix}dec_attn\.o_net\.bias",)),
        Slot(cell.inner_bias, (rf"{prefix}pos_ff\.ff1_net\.bias",)),
        Slot(cell.outer_bias, (rf"{prefix}pos_ff\.ff2_net\.bias",)),
    ]
    if cell.inject:
        found.append(Slot(cell.injection_kernel, (rf"{prefix}inject_conv\.weight",), POINTWISE))
        found.append(Slot(cell.injection_bias, (rf"{prefix}inject_conv\.bias",)))
    for name, kernel, gain, layouts in (
        (r"dec_attn\.qkv_net", attention.kernel, attention.gain, (POINTWISE, CHANNEL_GAIN)),
        (
            r"dec_attn\.r_net",
            attention.position_kernel,
            attention.position_gain,
            (POINTWISE, CHANNEL_GAIN),
        ),
        (
            r"dec_attn\.o_net",
            attention.output_kernel,
            attention.output_gain,
            (POINTWISE, CHANNEL_GAIN),
        ),
        (r"pos_ff\.ff1_net", cell.inner_kernel, cell.inner_gain, (DENSE, ROW_GAIN)),
        (r"pos_ff\.ff2_net", cell.outer_kernel, cell.outer_gain, (DENSE, ROW_GAIN)),
    ):
        direction = "" if gain is None else "_v"
        found.append(Slot(kernel, (rf"{prefix}{name}\.weight{direction}",), layouts[0]))
        if gain is not None:
            found.append(Slot(gain, (rf"{prefix}{name}\.weight_g",), layouts[1]))
    return found


@mapping(LanguageModel, core=DeepEquilibrium)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`word_emb` and `crit`, or `encoder` and `decoder`, around the core's own."""
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *slots(model.head, prefix),
    ]
