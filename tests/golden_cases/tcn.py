"""Golden cases of temporal convolutional networks."""

from typing import Any

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import TCN, TemporalBlock
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier


def _swap(tensor):
    """(N, C, L) to (b, t, d), or back."""
    return ops.transpose(tensor, (0, 2, 1))


def _is_normalized(golden: Golden) -> bool:
    return any(name.endswith("weight_g") for name in golden.parameters)


@case("tcn_block")
def tcn_block(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """One block, and its branch: what its second activation gives."""
    config, seen = golden.config, []

    def activation(x):
        seen.append(ops.relu(x))
        return seen[-1]

    block = TemporalBlock(
        config["n_outputs"],
        config["kernel_size"],
        config["dilation"],
        activation=activation,
        weight_normalization=_is_normalized(golden),
        dtype=dtype,
    )
    inputs = golden.float_inputs(dtype)
    block.build((None, None, config["n_inputs"]))
    load_reference(block, golden.parameters)

    def forward(inputs):
        seen.clear()
        outputs = _swap(block(_swap(inputs["x"])))
        return {"branch": _swap(seen[1]), "out": outputs}

    return differentiate(golden, forward, bind(block, golden.parameters), inputs)


def _core(golden: Golden, dtype: str) -> TCN:
    """The network that a file's `config` describes."""
    config = golden.config
    return TCN(
        config["num_channels"],
        kernel_size=config["kernel_size"],
        dilation_rates=config.get("dilations"),
        weight_normalization=_is_normalized(golden),
        dtype=dtype,
    )


@case("tcn_net")
def tcn_net(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The network alone: the last level from the layer, the others from its blocks."""
    layer = _core(golden, dtype)
    inputs = golden.float_inputs(dtype)
    layer.build((None, None, inputs["x"].shape[1]))
    load_reference(layer, golden.parameters)

    def forward(inputs):
        x = _swap(inputs["x"])
        outputs, hidden = {}, x
        for level, block in enumerate(layer.blocks[:-1]):
            hidden = block(hidden)
            outputs[f"level_{level}"] = _swap(hidden)
        return {**outputs, f"level_{len(outputs)}": _swap(layer(x))}

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("tcn_word_model", "tcn_char_model")
def tcn_language_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language models; the loss is that of the last steps, those after the history."""
    config = golden.config
    model = LanguageModel(
        config["output_size"],
        config["input_size"],
        _core(golden, dtype),
        head="tied" if config["tied"] else "softmax",
        dtype=dtype,
    )
    model.build((None, None))
    load_reference(model, golden.parameters)
    ids, targets = golden.input("tokens"), golden.input("targets")
    scored = ids.shape[1] - config["validseqlen"]

    def forward(_):
        hidden = model.features(ids, masks={}).outputs
        nll = model.head.nll(hidden[:, scored:], targets[:, scored:], tables=model.tables)
        ce = ops.mean(nll)
        outputs: dict[str, Any] = {"ce": ce, "ppl": ops.exp(ce), "bpc": ce / np.log(2)}
        outputs["logits"] = model.head.logits(hidden, tables=model.tables)
        return {name: value for name, value in outputs.items() if f"out/{name}" in golden.arrays}

    return differentiate(golden, forward, bind(model, golden.parameters), {})


@case("tcn_music_model")
def tcn_music_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The music model: probabilities, and the loss summed over notes and frames."""
    config = golden.config
    core = _core(golden, dtype)
    model = FrameModel(core, config["output_size"], sum_over_time=True, dtype=dtype)
    x, y = golden.input("x").astype(dtype), golden.input("y").astype(dtype)[None]
    model.build((None, None, config["input_size"]))
    load_reference(model, golden.parameters)

    def forward(inputs):
        logits = model(inputs["x"])
        losses = model.element_losses(y, logits)
        return {
            "probs": ops.sigmoid(logits),
            "nll_sum": ops.sum(losses),
            "nll_per_frame": ops.mean(losses),
        }

    return differentiate(golden, forward, bind(model, golden.parameters), {"x": x})


@case("tcn_mnist_model")
def tcn_mnist_model(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The pixel classifier, decoded at the last step."""
    config = golden.config
    model = SequenceClassifier(_core(golden, dtype), config["output_size"], dtype=dtype)
    model.build((None, None, config["input_size"]))
    load_reference(model, golden.parameters)

    def forward(inputs):
        log_probs = model(_swap(inputs["x"]))
        losses = model.element_losses(golden.input("targets"), log_probs)
        return {"log_probs": log_probs, "nll": ops.mean(losses)}

    inputs = {"x": golden.input("x").astype(dtype)}
    return differentiate(golden, forward, bind(model, golden.parameters), inputs)
