"""Golden cases of softmax heads and adaptive embeddings."""

from typing import Any

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert.mappings import ANY_PREFIX, mapping
from keras_seq.convert.reference import bind, load_reference
from keras_seq.convert.softmax import adaptive_softmax_slots, embedding_slots
from keras_seq.layers import AdaptiveEmbedding, AdaptiveSoftmax


def _cutoffs(cutoffs: list[int], words: int) -> list[int]:
    """The cut-offs below the vocabulary size, which some files list as the last one."""
    return [cutoff for cutoff in cutoffs if cutoff < words]


def _head_outputs(head: AdaptiveSoftmax, golden: Golden, hidden, tables=None) -> dict[str, Any]:
    """Whichever of the outputs of a head the file has."""
    target = golden.input("target")
    nll = head.nll(hidden, target, tables=tables)
    bounds = np.asarray(head.cutoffs)
    order = np.argsort(np.sum(target[:, None] >= bounds, axis=1), kind="stable")
    outputs = {
        "nll": nll,
        "mean_nll": ops.mean(nll),
        "target_logprob": -nll,
        "nll_cluster_order": ops.take(nll, order, axis=0),
    }
    if "out/log_prob" in golden.arrays:
        outputs["log_prob"] = head(hidden, tables=tables)
    return {name: value for name, value in outputs.items() if f"out/{name}" in golden.arrays}


@case("softmax_splitcross")
def split_cross_entropy(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The split form; the decoder comes as an input of the file and is a weight here."""
    config = golden.config
    words = config["ntoken"]
    head = AdaptiveSoftmax(
        words, cutoffs=_cutoffs(config["splits"], words), form="split", dtype=dtype
    )
    hidden = golden.input("x").astype(dtype)
    head.build(hidden.shape)
    decoder = {name: golden.input(name) for name in ("decoder_weight", "decoder_bias")}
    parameters = {**golden.parameters, **decoder}
    load_reference(head, parameters)
    values = differentiate(
        golden,
        lambda inputs: _head_outputs(head, golden, inputs["x"]),
        bind(head, parameters),
        {"x": hidden},
    )
    for name in decoder:
        values[f"grad_in/{name}"] = values.pop(f"grad/{name}")
    return values


@case("softmax_torch_adaptive")
def torch_adaptive(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """PyTorch's own form."""
    config = golden.config
    words = config["n_classes"]
    head = AdaptiveSoftmax(
        words,
        cutoffs=_cutoffs(config["cutoffs"], words),
        form="torch",
        div_value=config["div_value"],
        use_bias=config.get("head_bias", False),
        dtype=dtype,
    )
    hidden = golden.input("x").astype(dtype)
    head.build(hidden.shape)
    load_reference(head, golden.parameters)
    return differentiate(
        golden,
        lambda inputs: _head_outputs(head, golden, inputs["x"]),
        bind(head, golden.parameters),
        {"x": hidden},
    )


class _EmbeddingAndHead:
    """An adaptive embedding and the softmax tied to it, as one object with a mapping."""

    def __init__(self, embedding: AdaptiveEmbedding, head: AdaptiveSoftmax):
        self.embedding = embedding
        self.head = head

    @property
    def weights(self) -> list:
        return [*self.embedding.weights, *self.head.weights]


@mapping(_EmbeddingAndHead)
def _embedding_and_head_slots(pair: _EmbeddingAndHead, prefix: str = ANY_PREFIX):
    return [
        *embedding_slots(pair.embedding, pair.head, prefix),
        *adaptive_softmax_slots(pair.head, prefix),
    ]


@case("adaptive_embedding_softmax")
def adaptive_embedding_softmax(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The projected form with its tied embedding."""
    config = golden.config
    words, width = config["n_token"], config["d_proj"]
    options = {
        "cutoffs": _cutoffs(config["cutoffs"], words),
        "embedding_dim": config["d_embed"],
        "div_value": config["div_val"],
        "dtype": dtype,
    }
    embedding = AdaptiveEmbedding(words, output_dim=width, **options)
    tied = config.get("tied_layers", True)
    tie_projections = bool(np.any(config.get("tied_projs", False)))
    head = AdaptiveSoftmax(
        words, form="projected", tied=tied, tie_projections=tie_projections, **options
    )
    embedding.build((None, None))
    head.build((None, width))
    pair = _EmbeddingAndHead(embedding, head)
    load_reference(pair, golden.parameters)

    def forward(inputs):
        tables = head.tied_tables(embedding) if tied else None
        outputs = _head_outputs(head, golden, inputs["hidden"], tables)
        return {"embedding": embedding(golden.input("tokens")), **outputs}

    hidden = golden.input("hidden").astype(dtype)
    return differentiate(golden, forward, bind(pair, golden.parameters), {"hidden": hidden})
