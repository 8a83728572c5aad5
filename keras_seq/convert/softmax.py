"""Softmax heads and their embeddings: names and layouts of the original releases."""

from typing import Any

import keras

from keras_seq.convert.mappings import ANY_PREFIX, DENSE, Slot, Unused, mapping
from keras_seq.layers import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    MixtureOfSoftmaxes,
    SoftmaxHead,
    TiedSoftmax,
)


def embedding_slots(
    embedding: keras.layers.Layer, head: SoftmaxHead, prefix: str = ANY_PREFIX
) -> list[Slot | Unused]:
    """The slots of a model's embedding; of a tied one, the decoder's names are aliases.

    Args:
        embedding: `keras.layers.ReversibleEmbedding`, `keras.layers.Embedding` or
            `AdaptiveEmbedding`.
        head: the model's head.
        prefix: a regular expression for what stands before the names.
    """
    if isinstance(embedding, AdaptiveEmbedding):
        return _adaptive_embedding_slots(embedding, head, prefix)
    names = "encoder|decoder" if head.tied else "encoder"
    return [Slot(embedding.embeddings, (rf"{prefix}(?:{names})\.weight",))]


@mapping(AdaptiveEmbedding)
def adaptive_embedding_slots(layer: AdaptiveEmbedding, prefix: str = ANY_PREFIX):
    """`emb_layers.<cluster>.weight` and `emb_projs.<cluster>`, with or without `.weight`."""
    return _adaptive_embedding_slots(layer, None, prefix)


def _adaptive_embedding_slots(layer, head, prefix) -> list[Slot | Unused]:
    tables = r"(?:emb_layers|out_layers)" if head is not None and head.tied else "emb_layers"
    tie_projections = head is not None and head.tie_projections
    found: list[Slot | Unused] = [
        Slot(table, (rf"{prefix}{tables}\.{i}\.weight",)) for i, table in enumerate(layer.tables)
    ]
    for i, projection in enumerate(layer.projections):
        # The head projection of the softmax is its own even where the others are shared; where
        # there is one table they share the embedding's only projection.
        name = rf"emb_projs\.{i}"
        if tie_projections and i:
            name = rf"(?:emb_projs|out_projs)\.{i}"
        elif tie_projections and len(layer.projections) == 1:
            name = r"(?:emb_projs\.0|out_projs\.[1-9]\d*)"
        found.append(Slot(projection, (prefix + name + _PARAMETER,)))
    return found


_PARAMETER = r"(?:\.weight)?"  # projections are modules in one release and parameters in another


@mapping(TiedSoftmax)
def tied_softmax_slots(layer: TiedSoftmax, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`decoder.weight` (unless tied) and `decoder.bias`."""
    return _decoder_slots(layer.kernel, layer.bias, prefix)


def _decoder_slots(kernel, bias, prefix) -> list[Slot | Unused]:
    weights = (("weight", kernel), ("bias", bias))
    return [
        Slot(variable, (rf"{prefix}decoder[._]{name}",))
        for name, variable in weights
        if variable is not None
    ]


@mapping(MixtureOfSoftmaxes)
def mixture_slots(layer: MixtureOfSoftmaxes, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`prior` and `latent` (dense layers) and the decoder that the experts share."""
    return [
        Slot(layer.prior_kernel, (rf"{prefix}prior\.weight",), DENSE),
        Slot(layer.prior_bias, (rf"{prefix}prior\.bias",)),
        Slot(layer.latent_kernel, (rf"{prefix}latent\.weight",), DENSE),
        Slot(layer.latent_bias, (rf"{prefix}latent\.bias",)),
        *_decoder_slots(layer.kernel, layer.bias, prefix),
    ]


@mapping(AdaptiveSoftmax)
def adaptive_softmax_slots(layer: AdaptiveSoftmax, prefix: str = ANY_PREFIX):
    """Each form under the names of the release that it follows.

    Split: `decoder.weight`, `decoder.bias`, `tail_vectors`, `tail_bias`. Projected: `out_layers`,
    `out_projs`, `cluster_weight`, `cluster_bias`. Torch: `head` and `tail` of PyTorch's module,
    where `head` holds frequent words and clusters in one matrix.
    """
    found: list[Slot | Unused] = []
    if layer.form == "torch":
        return _torch_slots(layer, prefix)
    clusters = [(layer.cluster_kernel, "weight"), (layer.cluster_bias, "bias")]
    if layer.form == "split":
        kernel = layer.kernels[0] if layer.kernels else None
        bias = layer.biases[0] if layer.biases else None
        found += _decoder_slots(kernel, bias, prefix)
        names = {"weight": "tail_vectors", "bias": "tail_bias"}
    else:
        for i, kernel in enumerate(layer.kernels):
            found.append(Slot(kernel, (rf"{prefix}out_layers\.{i}\.weight",)))
        for i, bias in enumerate(layer.biases):
            found.append(Slot(bias, (rf"{prefix}out_layers\.{i}\.bias",)))
        for i, projection in enumerate(layer.projections):
            found.append(Slot(projection, (rf"{prefix}out_projs\.{i}{_PARAMETER}",)))
        names = {"weight": "cluster_weight", "bias": "cluster_bias"}
    found += [Slot(v, (prefix + names[kind],)) for v, kind in clusters if v is not None]
    return found


def _torch_slots(layer: AdaptiveSoftmax, prefix: str) -> list[Slot | Unused]:
    words, clusters = layer.kernels[0].shape[0], len(layer.cutoffs)
    total = words + clusters
    parts: list[tuple[str, Any, int]] = [("weight", layer.kernels[0], 0)]
    if layer.cluster_kernel is not None:
        parts.append(("weight", layer.cluster_kernel, words))
    if layer.biases:
        parts.append(("bias", layer.biases[0], 0))
    if layer.cluster_bias is not None:
        parts.append(("bias", layer.cluster_bias, words))
    found: list[Slot | Unused] = [
        Slot(variable, (rf"{prefix}head\.{kind}",), rows=(first, total))
        for kind, variable, first in parts
    ]
    tails = zip(layer.projections, layer.kernels[1:], strict=True)
    for i, (projection, kernel) in enumerate(tails):
        found.append(Slot(projection, (rf"{prefix}tail\.{i}\.0\.weight",), DENSE))
        found.append(Slot(kernel, (rf"{prefix}tail\.{i}\.1\.weight",)))
    return found
