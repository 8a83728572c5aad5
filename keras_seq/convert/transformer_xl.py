"""Transformer-XL: names and layouts of the original release."""

from keras_seq.convert.mappings import ANY_PREFIX, DENSE, Slot, Unused, mapping, slots
from keras_seq.convert.softmax import embedding_slots
from keras_seq.layers import RelativeAttention, TiedSoftmax, TransformerXL
from keras_seq.models import LanguageModel

_VECTORS = ("r_w_bias", "r_r_bias")  # content, position


@mapping(RelativeAttention)
def relative_attention_slots(
    layer: RelativeAttention, prefix: str = ANY_PREFIX
) -> list[Slot | Unused]:
    """`qkv_net`, `r_net` and `o_net`, without biases; `r_w_bias` and `r_r_bias` if it owns them."""
    if layer.weight_normalization or layer.use_bias:
        raise ValueError(
            "`model` must have attention without weight normalisation and without a bias, as the "
            f"release has. Received: weight_normalization={layer.weight_normalization}, "
            f"use_bias={layer.use_bias}."
        )
    found: list[Slot | Unused] = [
        Slot(layer.kernel, (rf"{prefix}qkv_net\.weight",), DENSE),
        Slot(layer.position_kernel, (rf"{prefix}r_net\.weight",), DENSE),
        Slot(layer.output_kernel, (rf"{prefix}o_net\.weight",), DENSE),
    ]
    if layer.own_vectors:
        vectors = zip((layer.content, layer.position), _VECTORS, strict=True)
        found += [Slot(vector, (prefix + name,)) for vector, name in vectors]
    return found


@mapping(TransformerXL)
def transformer_xl_slots(layer: TransformerXL, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`layers.<level>`, `r_w_bias` and `r_r_bias`; `pos_emb.inv_freq` holds the frequencies."""
    found: list[Slot | Unused] = [
        Slot(vector, (prefix + name,))
        for vector, name in zip(layer.vectors, _VECTORS, strict=False)
    ]
    for level in range(layer.levels):
        name = rf"{prefix}layers\.{level}\."
        feed_forward = layer.feed_forwards[level]
        found += slots(layer.attentions[level], rf"{name}dec_attn\.")
        found += _norm(layer.attention_norms[level], rf"{name}dec_attn\.layer_norm")
        for kernel, bias, place in (
            (feed_forward.inner_kernel, feed_forward.inner_bias, 0),
            (feed_forward.output_kernel, feed_forward.output_bias, 3),
        ):
            linear = rf"{name}pos_ff\.CoreNet\.{place}\."
            found += [Slot(kernel, (linear + "weight",), DENSE), Slot(bias, (linear + "bias",))]
        found += _norm(layer.feed_forward_norms[level], rf"{name}pos_ff\.layer_norm")
    return [*found, Unused(rf"{prefix}pos_emb\.inv_freq")]


def _norm(norm, name: str) -> list[Slot | Unused]:
    return [Slot(norm.gamma, (rf"{name}\.weight",)), Slot(norm.beta, (rf"{name}\.bias",))]


@mapping(LanguageModel, core=TransformerXL)
def language_model_slots(model: LanguageModel, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`word_emb` and `crit` around the layers.

    A release without clusters has the adaptive softmax of one, which is an ordinary softmax.
    """
    head = slots(model.head, prefix)
    if isinstance(model.head, TiedSoftmax):
        words = rf"{prefix}(?:out_layers\.0|decoder)\."
        pairs = ((model.head.kernel, "weight"), (model.head.bias, "bias"))
        head = [Slot(variable, (words + kind,)) for variable, kind in pairs if variable is not None]
    return [
        *embedding_slots(model.embedding, model.head, prefix),
        *slots(model.core, prefix),
        *head,
    ]
