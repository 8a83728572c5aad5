"""Golden cases of the DEQ-Transformer."""

from typing import Any

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq import gradients
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import AdaptiveEmbedding, AdaptiveSoftmax, DeepEquilibrium, DEQTransformerCell
from keras_seq.models import LanguageModel

# The span that the release has where none is given.
DEFAULT_SPAN = 1000


def _cell(golden: Golden, dtype: str, **options) -> DEQTransformerCell:
    config = golden.config
    if config["n_head"] * config["d_head"] != config["d_model"]:
        raise ValueError(
            "The heads of a file must fill its width, as the injection does. Received: "
            f"n_head={config['n_head']}, d_head={config['d_head']}, d_model={config['d_model']}."
        )
    return DEQTransformerCell(
        config["d_model"],
        heads=config["n_head"],
        inner_units=config["d_inner"],
        memory_length=config["mlen"],
        span=config.get("local_size") or DEFAULT_SPAN,
        norm_order="pre" if config["pre_lnorm"] else "post",
        weight_normalization=config["wnorm"],
        dtype=dtype,
        **options,
    )


def _swap(tensor):
    """(N, C, L) to (b, t, d), or back."""
    return ops.transpose(tensor, (0, 2, 1))


@case("deq_tf_layer")
def deq_tf_layer(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """One application of the cell, and its value between the two halves."""
    cell = _cell(golden, dtype, inject=False)
    past = golden.config["mlen"]
    z_shape = tuple(_swap(golden.input("z")).shape)
    cell.build(z_shape, (*z_shape[:-1], 3 * z_shape[-1]))
    load_reference(cell, golden.parameters)
    names = [name for name in ("z", "us", "z0") if f"in/{name}" in golden.arrays]
    inputs = {name: golden.input(name).astype(dtype) for name in names}

    def forward(inputs):
        injected, state = _swap(inputs["us"]), None
        if past:
            state = {
                "hidden": _swap(inputs["z0"]),
                "injected": injected[:, :past],
                "valid": ops.ones((z_shape[0], past), dtype),
            }
        context = cell.prepare(injected[:, past:], initial_state=state)
        half = cell.attend(_swap(inputs["z"]), context)
        return {"attn_block_out": _swap(half), "out": _swap(cell.feed_forward(half, context))}

    return differentiate(golden, forward, bind(cell, golden.parameters), inputs)


def _language_model(golden: Golden, dtype: str) -> LanguageModel:
    config = golden.config
    words, width = config["n_token"], config["d_model"]
    adaptive = {
        "cutoffs": [cutoff for cutoff in config["cutoffs"] if cutoff < words],
        "embedding_dim": config["d_embed"],
        "div_value": config["div_val"],
        "dtype": dtype,
    }
    # The files were solved to about 1e-13.
    core = DeepEquilibrium(_cell(golden, dtype), tolerance=1e-12, max_steps=300, dtype=dtype)
    model = LanguageModel(
        words,
        width,
        core,
        head=AdaptiveSoftmax(
            words, form="projected", tied=config.get("tie_weights", True), **adaptive
        ),
        embedding=AdaptiveEmbedding(words, output_dim=width, **adaptive),
        dtype=dtype,
    )
    model.build((None, None))
    return model


@case("deq_tf_lm", dtype="float64")
def deq_tf_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language model: at its equilibrium with the implicit gradient, and two levels of it.

    Two levels are run with and without the memory, as in pre-training.
    """
    model = _language_model(golden, dtype)
    load_reference(model, golden.parameters)
    cell, past = model.core.cell, golden.config["mlen"]
    ids, targets = (np.transpose(golden.input(name)) for name in ("tokens", "targets"))
    memory: dict[str, Any] = {
        name: np.transpose(golden.input(key).astype(dtype), (1, 0, 2))
        for name, key in (("hidden", "mem_z"), ("injected", "mem_u"))
    }
    memory["valid"] = np.ones((len(ids), past), dtype)
    empty = cell.get_initial_state(len(ids))
    by_step = (1, 0, 2)

    def losses(hidden):
        """(L, N)."""
        return ops.transpose(model.head.nll(hidden, targets, tables=model.tables))

    def levels(x, state):
        context = cell.prepare(x, training=True, initial_state=state)
        start = ops.zeros_like(x)
        return gradients.unrolled_steps(lambda z: cell.iterate(z, context), start, 2)

    def forward(_):
        hidden, state = model.core(
            model.embedding(ids), initial_state=memory, return_state=True, training=True
        )
        x = model.embedding(ids)
        unrolled, alone = levels(x, memory), levels(x, empty)
        nothing = cell.next_state(alone, x, empty)
        flat = ops.reshape(losses(unrolled), (-1,))
        bounds = np.asarray(model.head.cutoffs)
        clusters = np.sum(np.reshape(targets.T, (-1, 1)) >= bounds, axis=1)
        order = np.argsort(clusters, kind="stable")
        return {
            "nll": losses(hidden),
            "z_star": ops.transpose(hidden, by_step),
            "new_mem_z": ops.transpose(state["hidden"], by_step),
            "new_mem_u": ops.transpose(state["injected"], by_step),
            "nll_eval": losses(model.core(x, initial_state=memory, training=False)),
            "hidden_unrolled_2layers": ops.transpose(unrolled, by_step),
            "nll_unrolled_2layers": losses(unrolled),
            "nll_unrolled_2layers_cluster_order": ops.reshape(
                ops.take(flat, order, axis=0), targets.T.shape
            ),
            "nll_unrolled_2layers_nomem": losses(alone),
            "nomem_new_mem_z": ops.transpose(nothing["hidden"], by_step),
            "nomem_new_mem_u": ops.transpose(nothing["injected"], by_step),
        }

    bindings = bind(model, golden.parameters)
    return differentiate(golden, forward, bindings, {}, lambda outputs: ops.mean(outputs["nll"]))
