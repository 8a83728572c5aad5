"""Golden cases of the R-Transformer and its parts."""

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import (
    FeedForward,
    LocalRNN,
    RTransformer,
    RTransformerBlock,
    SelfAttention,
    UnbiasedLayerNormalization,
)
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier


def _differentiate(golden: Golden, forward, bindings, inputs) -> dict[str, np.ndarray]:
    """`differentiate`, where the gradient of the keys' bias counts as the zero that it is.

    The bias adds one number to all logits of a step, which the softmax does not see, so that its
    gradient is zero and the files hold the rounding (1e-16) of a float64 computation. Ours must be
    as small beside the gradient of the values' bias; it is then replaced by the file's.
    """
    values = differentiate(golden, forward, bindings, inputs)
    for key, array in golden.section("grad").items():
        if not key.endswith("linears.1.bias"):
            continue
        largest = np.max(np.abs(golden.arrays[f"grad/{key.replace('.1.bias', '.2.bias')}"]))
        bound = largest * (1e-5 if values[f"grad/{key}"].dtype == np.float32 else 1e-12)
        if np.max(np.abs(array)) < 1e-12 * largest and np.all(
            np.abs(values[f"grad/{key}"]) < bound
        ):
            values[f"grad/{key}"] = array
    return values


def _run_layer(golden: Golden, dtype: str, layer, forward=None) -> dict[str, np.ndarray]:
    """A layer from `in/x` to `out/y`."""
    x = golden.input("x").astype(dtype)
    layer.build(x.shape)
    layer.built = True
    load_reference(layer, golden.parameters)
    run = forward or (lambda inputs: {"y": layer(inputs["x"])})
    return _differentiate(golden, run, bind(layer, golden.parameters), {"x": x})


@case("rt_layer_norm")
def rt_layer_norm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The normalisation alone."""
    layer = UnbiasedLayerNormalization(epsilon=golden.config["eps"], dtype=dtype)
    return _run_layer(golden, dtype, layer)


@case("rt_ffn")
def rt_ffn(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The feed-forward network alone."""
    inner = golden.parameters["w_1.weight"].shape[0]
    return _run_layer(golden, dtype, FeedForward(inner, dtype=dtype))


@case("rt_mh_pooling")
def rt_mh_pooling(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The attention alone. Outputs come from Keras' attention, probabilities from ours."""
    layer = SelfAttention(golden.config["h"], dtype=dtype)

    def forward(inputs):
        _, probabilities = layer(inputs["x"], return_probabilities=True)
        return {"y": layer(inputs["x"]), "attn": probabilities}

    return _run_layer(golden, dtype, layer, forward)


@case("rt_local_rnn")
def rt_local_rnn(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The windowed recurrence alone."""
    config = golden.config
    cell = config["rnn_type"].lower()
    layer = LocalRNN(config["d_model"], config["ksize"], cell, dtype=dtype)
    return _run_layer(golden, dtype, layer)


@case("rt_block")
def rt_block(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """One block."""
    config = golden.config
    layer = RTransformerBlock(
        config["ksize"],
        config["h"],
        local_layers=config["n"],
        cell=config["rnn_type"].lower(),
        dtype=dtype,
    )
    return _run_layer(golden, dtype, layer)


def _stack(golden: Golden, dtype: str, units: int, **options) -> RTransformer:
    """The stack that a file's `config` describes."""
    config = golden.config
    return RTransformer(
        units,
        config["n_level"],
        config["ksize"],
        config["h"],
        local_layers=config["n"],
        cell=config["rnn_type"].lower(),
        dtype=dtype,
        **options,
    )


@case("rt_transformer")
def rt_transformer(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """A stack of blocks."""
    return _run_layer(golden, dtype, _stack(golden, dtype, golden.config["d_model"]))


@case("rt_audio_model")
def rt_audio_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The music model: probabilities, and the loss summed over notes and frames."""
    config = golden.config
    core = _stack(golden, dtype, config["d_model"], project_input=True)
    model = FrameModel(core, notes=config["output_size"], sum_over_time=True, dtype=dtype)
    x, y = golden.input("x").astype(dtype), golden.input("y").astype(dtype)[None]
    model.build(x.shape)
    load_reference(model, golden.parameters)

    def forward(inputs):
        logits = model(inputs["x"])
        nll = ops.sum(model.element_losses(y, logits))
        return {"probs": ops.sigmoid(logits), "nll_sum": nll}

    return _differentiate(golden, forward, bind(model, golden.parameters), {"x": x})


@case("rt_image_model")
def rt_image_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The pixel classifier, decoded at the last step."""
    config = golden.config
    core = _stack(golden, dtype, config["d_model"], project_input=True)
    model = SequenceClassifier(core, config["output_size"], dtype=dtype)
    x = golden.input("x").astype(dtype)
    model.build((None, None, config["input_size"]))
    load_reference(model, golden.parameters)

    def forward(inputs):
        return {"log_probs": model(ops.transpose(inputs["x"], (0, 2, 1)))}

    return _differentiate(golden, forward, bind(model, golden.parameters), {"x": x})


@case("rt_char_model", "rt_word_model")
def rt_language_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language models, with the embedding's table in the decoder."""
    config = golden.config
    core = _stack(golden, dtype, config["input_size"])
    model = LanguageModel(config["output_size"], config["input_size"], core, dtype=dtype)
    model.build((None, None))
    load_reference(model, golden.parameters)

    def forward(inputs):
        hidden = model.features(golden.input("tokens"), masks={}).outputs
        return {"logits": model.head.logits(hidden, tables=model.tables)}

    return _differentiate(golden, forward, bind(model, golden.parameters), {})
