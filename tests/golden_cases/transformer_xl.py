"""Golden cases of the Transformer-XL."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert.mappings import ANY_PREFIX, Slot, mapping, slots
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    RelativeAttention,
    TransformerXL,
    recorded_attention,
)
from keras_seq.models import LanguageModel

VECTORS = ("r_w_bias", "r_r_bias")  # inputs of the files of parts, weights here
BY_STEP = (1, 0, 2)  # (steps, N, d) to (b, t, d), or back


@contextlib.contextmanager
def _given_positions(positions) -> Iterator[dict[str, Any]]:
    """Within it, attention reads given sinusoids (m + t, 1, d) and notes its probabilities.

    So that the gradient for the sinusoids can be compared, and with JAX, which traces, as well.
    """
    attention, record = (
        sys.modules[f"keras_seq.layers.{name}"]
        for name in ("relative_attention", "recorded_attention")
    )
    with (
        patch.object(attention, "sinusoids", lambda distances, units, dtype: positions[:, 0]),
        patch.object(record, "runs_eagerly", lambda: True),
        recorded_attention() as found,
    ):
        yield found


def _attend(attention: RelativeAttention, norm, norm_first: bool, x, memory, vectors=None):
    """The attention half of a level with its residual and normalisation."""
    query = norm(x) if norm_first else x
    if memory is not None and norm_first:
        memory = norm(memory)
    x = x + attention(query, memory, vectors=vectors)
    return x if norm_first else norm(x)


def _parts(golden: Golden, dtype: str, prefix: str = ""):
    """Weights and inputs of a file of parts, where the two vectors are inputs."""
    inputs = golden.float_inputs(dtype)
    parameters = {f"{prefix}{name}": array for name, array in golden.parameters.items()}
    return {**parameters, **{name: inputs.pop(name) for name in VECTORS}}, inputs


def _renamed(values: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """Values under the keys of a file of parts."""
    renamed = {key.replace(f"grad/{prefix}", "grad/"): value for key, value in values.items()}
    for name in VECTORS:
        renamed[f"grad_in/{name}"] = renamed.pop(f"grad/{name}")
    return renamed


def _by_batch(inputs):
    """Hidden values (b, t, d) and memory (b, m, d) or `None`."""
    memory = inputs.get("mems")
    return ops.transpose(inputs["w"], BY_STEP), (
        None if memory is None else ops.transpose(memory, BY_STEP)
    )


def _probabilities(found: dict[str, Any]):
    """Those of the one attention layer, as (t, m + t, N, heads)."""
    (noted,) = found.values()
    return ops.transpose(noted, (2, 3, 0, 1))


class _Half:
    """Attention and the normalisation of its sum, as one object with a mapping."""

    def __init__(self, attention: RelativeAttention, norm: keras.layers.LayerNormalization):
        self.attention = attention
        self.norm = norm

    @property
    def weights(self) -> list:
        return [*self.attention.weights, *self.norm.weights]


@mapping(_Half)
def _half_slots(half: _Half, prefix: str = ANY_PREFIX):
    return [
        *slots(half.attention, prefix),
        Slot(half.norm.gamma, (prefix + r"layer_norm\.weight",)),
        Slot(half.norm.beta, (prefix + r"layer_norm\.bias",)),
    ]


@case("txl_rel_attention")
def txl_rel_attention(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The attention half of a level."""
    config = golden.config
    attention = RelativeAttention(
        config["n_head"], head_units=config["d_head"], use_bias=False, dtype=dtype
    )
    half = _Half(attention, keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype))
    for layer in (half.attention, half.norm):
        layer.build((None, None, config["d_model"]))
    parameters, inputs = _parts(golden, dtype)
    load_reference(half, parameters)

    def forward(inputs):
        with _given_positions(inputs["r"]) as found:
            y = _attend(attention, half.norm, config["pre_lnorm"], *_by_batch(inputs))
        return {"out": ops.transpose(y, BY_STEP), "attn_prob": _probabilities(found)}

    return _renamed(differentiate(golden, forward, bind(half, parameters), inputs))


@case("txl_layer")
def txl_layer(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """A level, as a network of one, and the value between its halves."""
    config, prefix = golden.config, "layers.0."
    layer = TransformerXL(
        1,
        config["n_head"],
        config["d_inner"],
        head_units=config["d_head"],
        memory_length=config["mlen"],
        norm_order="pre" if config["pre_lnorm"] else "post",
        dtype=dtype,
    )
    layer.build((None, None, config["d_model"]))
    parameters, inputs = _parts(golden, dtype, prefix)
    load_reference(layer, parameters)

    def forward(inputs):
        x, memory = _by_batch(inputs)
        state = None
        if memory is not None:
            valid = ops.ones(memory.shape[:2], dtype)
            state = {"hidden": ops.expand_dims(memory, 1), "valid": valid}
        with _given_positions(inputs["r"]) as found:
            y = layer(x, initial_state=state)
            probabilities = _probabilities(found)
            half = _attend(
                layer.attentions[0],
                layer.attention_norms[0],
                config["pre_lnorm"],
                x,
                memory,
                layer.vectors,
            )
        outputs = {"attn_out": half, "out": y}
        outputs = {name: ops.transpose(value, BY_STEP) for name, value in outputs.items()}
        return {**outputs, "attn_prob": probabilities}

    return _renamed(differentiate(golden, forward, bind(layer, parameters), inputs), prefix)


def _language_model(golden: Golden, dtype: str) -> LanguageModel:
    config = golden.config
    words, width = config["n_token"], config["d_model"]
    adaptive = {
        "cutoffs": [cutoff for cutoff in config["cutoffs"] if cutoff < words],
        "embedding_dim": config["d_embed"],
        "div_value": config["div_val"],
        "dtype": dtype,
    }
    core = TransformerXL(
        config["n_layer"],
        config["n_head"],
        config["d_inner"],
        head_units=config["d_head"],
        memory_length=config["mem_len"],
        span=config["mem_len"] if config["same_length"] else None,
        clamp_length=config["clamp_len"] if config["clamp_len"] > 0 else None,
        norm_order="pre" if config["pre_lnorm"] else "post",
        dtype=dtype,
    )
    head = AdaptiveSoftmax(
        words,
        form="projected",
        tied=config["tie_weight"],
        tie_projections=config["tie_weight"] and any(config["tie_projs"]),
        **adaptive,
    )
    embedding = AdaptiveEmbedding(words, output_dim=width, **adaptive)
    model = LanguageModel(words, width, core, head=head, embedding=embedding, dtype=dtype)
    model.build((None, None))
    return model


@case("txl_lm")
def txl_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language model over segments that read the memory of those before, without gradient."""
    model, config = _language_model(golden, dtype), golden.config
    load_reference(model, golden.parameters)
    ids, targets = (np.transpose(golden.input(name)) for name in ("tokens", "targets"))
    bounds = np.asarray(model.head.cutoffs)

    def segment(number, state, last):
        """Outputs of a segment, its state, and the last level's outputs so far."""
        start = number * config["tgt_len"]
        window = slice(start, start + config["tgt_len"])
        features = model.features(ids[:, window], state, return_state=True, masks={})
        nll = model.head.nll(features.outputs, targets[:, window], tables=model.tables)
        by_step = np.reshape(targets[:, window].T, (-1, 1))
        order = np.argsort(np.sum(by_step >= bounds, axis=1), kind="stable")
        state = {name: ops.stop_gradient(value) for name, value in features.state.items()}
        # The release also keeps the last level's outputs, which nothing reads.
        last = ops.stop_gradient(ops.concatenate([*last, features.outputs], axis=1))
        kept = min(config["mem_len"], last.shape[1])
        last = last[:, last.shape[1] - kept :]
        levels = state["hidden"][:, :, config["mem_len"] - kept :]
        memory = ops.concatenate([levels, ops.expand_dims(last, 1)], axis=1)
        nll = ops.transpose(nll)
        return (
            {
                "hidden": ops.transpose(features.outputs, BY_STEP),
                "nll": nll,
                "loss": ops.mean(nll),
                "nll_cluster_order": ops.take(ops.reshape(nll, (-1,)), order, axis=0),
                "mems": ops.transpose(memory, (1, 2, 0, 3)),
            },
            state,
            [last],
        )

    def forward(_):
        outputs, state, last = {}, None, []
        for number in range(config["segments"]):
            found, state, last = segment(number, state, last)
            outputs |= {f"seg{number + 1}_{name}": value for name, value in found.items()}
        return outputs

    return differentiate(golden, forward, bind(model, golden.parameters), {})
