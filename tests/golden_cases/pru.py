"""Golden cases of the pyramidal recurrent unit and its LSTM baseline."""

from typing import Any

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert.pru import GATES
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import LSTM, PRU, GroupedLinear, PyramidalTransform, RecurrentStack
from keras_seq.losses import activation_regularization, temporal_activation_regularization
from keras_seq.models import LanguageModel


def _by_gate(pre) -> dict[str, Any]:
    """Pre-activations (b, 4u) as the four outputs of a file."""
    return dict(zip(GATES, ops.split(pre, 4, axis=-1), strict=True))


@case("pru_pyramidal")
def pru_pyramidal(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The pyramidal transform of (b, 1, d)."""
    config = golden.config
    layer = PyramidalTransform(config["nhid"], config["k"], blocks=4, dtype=dtype)
    inputs = golden.float_inputs(dtype)
    layer.build(inputs["x"].shape)
    load_reference(layer, golden.parameters)

    def forward(inputs):
        return _by_gate(layer(inputs["x"])[:, 0])

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("pru_grouped_linear")
def pru_grouped_linear(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The grouped linear transform of (1, b, n)."""
    config = golden.config
    layer = GroupedLinear(config["n"], config["groups"], blocks=4, dtype=dtype)
    inputs = golden.float_inputs(dtype)
    layer.build(inputs["h"].shape)
    load_reference(layer, golden.parameters)

    def forward(inputs):
        return _by_gate(layer(inputs["h"])[0])

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("pru_layer")
def pru_layer(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The layer alone, from a given state; (t, b, d) in the file."""
    config = golden.config
    layer = PRU(config["hidden_size"], config["k"], config["groups"], dtype=dtype)
    inputs = golden.float_inputs(dtype)
    layer.build((None, None, inputs["x"].shape[-1]))
    load_reference(layer, golden.parameters)

    def forward(inputs):
        y, (h, c) = layer(
            ops.transpose(inputs["x"], (1, 0, 2)),
            initial_state=[inputs["h0"][0], inputs["c0"][0]],
            return_state=True,
        )
        return {"y": ops.transpose(y, (1, 0, 2)), "h_last": h[None], "c_last": c[None]}

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


def _language_model(golden: Golden, dtype: str) -> LanguageModel:
    """The model that a file's `config` describes: inner layers of `nhid`, the last of `ninp`."""
    config = golden.config
    count, tied = config["nlayers"], config.get("tie_weights", True)
    widths = [config["nhid"]] * count
    if tied:
        widths[-1] = config["ninp"]
    core = RecurrentStack(
        [
            LSTM(width, dtype=dtype)
            if config["rnn_type"] == "LSTM"
            else PRU(width, config["k"], config["g"], dtype=dtype)
            for width in widths
        ],
        dtype=dtype,
    )
    model = LanguageModel(
        config["ntoken"], config["ninp"], core, head="tied" if tied else "softmax", dtype=dtype
    )
    model.build((None, None))
    return model


@case("pru_lm", "pru_lm_lstm_baseline")
def pru_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language model, with each layer's outputs and states, and both regularisers."""
    model = _language_model(golden, dtype)
    core = model.core
    load_reference(model, golden.parameters)
    ids, targets = (np.transpose(golden.input(name)) for name in ("tokens", "targets"))
    inputs = golden.float_inputs(dtype)
    by_time = (1, 0, 2)

    def forward(inputs):
        outputs = {}
        state = [[inputs[f"{kind}0_{i}"][0] for kind in "hc"] for i in range(len(core.layers))]
        features = model.features(ids, state, return_state=True, masks={})
        x = model.embedding(ids)
        for i, layer in enumerate(core.layers):
            x = layer(x, initial_state=state[i])
            outputs[f"raw_{i}"] = ops.transpose(x, by_time)
            outputs[f"h_last_{i}"], outputs[f"c_last_{i}"] = (s[None] for s in features.state[i])
        logits = model.head.logits(features.outputs, tables=model.tables)
        nll = model.head.nll(features.outputs, targets, tables=model.tables)
        return {
            **outputs,
            "logits": ops.transpose(logits, by_time),
            "ce": ops.mean(nll),
            "ar_alpha2": activation_regularization(features.outputs, 2.0),
            "tar_beta1": temporal_activation_regularization(features.raw, 1.0),
        }

    return differentiate(golden, forward, bind(model, golden.parameters), inputs)
