"""Golden cases of TrellisNet."""

from typing import Any

import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from golden_cases.embedding import ReleaseEmbedding
from keras_seq.convert.reference import Binding, bind, load_reference
from keras_seq.layers import MixtureOfSoftmaxes, TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier


def _is_normalized(golden: Golden) -> bool:
    return any(name.endswith("weight1_g") for name in golden.parameters)


def _core(golden: Golden, dtype: str, auxiliary: bool) -> TrellisNet:
    """The layer that a file's `config` describes."""
    config = golden.config
    return TrellisNet(
        units=config["nhid"],
        output_units=config["nout"],
        levels=config["nlevels"],
        kernel_size=config["kernel_size"],
        dilation_rate=_dilation(config),
        auxiliary_frequency=config["aux_frequency"] if auxiliary else None,
        weight_normalization=_is_normalized(golden),
        hidden_dropout=config.get("dropouth", 0.0),
        weight_dropout=config.get("wdrop", 0.0),
        temporal_weight_dropout=config.get("temporalwdrop", True),
        state="history",
        dtype=dtype,
    )


def _dilation(config: dict[str, Any]) -> tuple[int, ...]:
    value = config["dilation"]
    return tuple(value) if isinstance(value, list) else (value,)


def _state(inputs: dict[str, Any]) -> list:
    """The hidden pair of a file, (N, h, 1) each, as a state of ours."""
    return [inputs["h0"][:, :, 0], inputs["c0"][:, :, 0]]


def _columns(state) -> list:
    """A state of ours as the hidden pair of a file."""
    return [ops.expand_dims(part, -1) for part in state]


@case("trellis_core")
def trellis_core(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The network alone, from a given hidden pair."""
    auxiliary = "out/aux" in golden.arrays
    layer = _core(golden, dtype, auxiliary)
    inputs = golden.float_inputs(dtype)
    layer.build((None, None, inputs["x"].shape[1]))
    load_reference(layer, golden.parameters)

    def forward(inputs):
        result = layer(
            ops.transpose(inputs["x"], (0, 2, 1)),
            initial_state=_state(inputs),
            return_state=True,
            return_auxiliary=auxiliary,
        )
        outputs = {"out": result[0]}
        outputs["h_last"], outputs["c_last"] = _columns(result[-1])
        if auxiliary:
            outputs["aux"] = result[1]
        return outputs

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)


@case("trellis_weight_share_conv")
def weight_share_conv(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The shared convolution alone: the pre-activations of one level.

    The level is the second of a network whose gates are replaced: those of the first level return
    the file's hidden channels, those of the second level give the pre-activations away.
    """
    config = golden.config
    inputs = golden.float_inputs(dtype)
    parameters = golden.parameters
    channels, width = parameters["weight2"].shape[:2]
    ninp = parameters["weight1"].shape[1]
    hidden: list = []
    seen: list = []

    def gates(pre, previous_hidden, previous_cell):
        seen.append(pre)
        return (hidden[-1], hidden[-1]) if len(seen) == 1 else (pre[..., :width],) * 2

    setattr(gates, "blocks", channels // width)  # noqa: B010
    layer = TrellisNet(
        units=width - config["nout"],
        output_units=config["nout"],
        levels=2,
        kernel_size=config["kernel_size"],
        dilation_rate=(1, *_dilation(config)),
        activation=gates,
        state="history",
        dtype=dtype,
    )
    layer.build((None, None, ninp))
    bindings = bind(layer, parameters)
    load_reference(layer, parameters)

    def forward(inputs):
        z = ops.transpose(inputs["z"], (0, 2, 1))
        seen.clear()
        hidden.append(z[..., ninp:])
        state = inputs["hid"][:, :, 0]
        layer(z[..., :ninp], initial_state=[state, ops.zeros_like(state)])
        return {"out": ops.transpose(seen[-1], (0, 2, 1))}

    return differentiate(golden, forward, bindings, inputs)


@case("trellis_lm")
def trellis_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The language model: two segments with carried history, or one under given dropout masks."""
    auxiliary = any("aux_decoded" in name for name in golden.section("out"))
    model = _language_model(golden, dtype, auxiliary)
    bindings = bind(model, golden.parameters)
    load_reference(model, golden.parameters)
    inputs = golden.float_inputs(dtype)
    if "out/raw" in golden.arrays:
        return _masked_segment(golden, model, bindings, inputs, auxiliary)
    return _two_segments(golden, model, bindings, inputs, auxiliary)


def _language_model(golden: Golden, dtype: str, auxiliary: bool) -> LanguageModel:
    config = golden.config
    tied = config.get("tie_weights", True)
    head: Any = "tied" if tied else "softmax"
    if config.get("n_experts"):
        head = MixtureOfSoftmaxes(
            config["ntoken"],
            experts=config["n_experts"],
            embedding_dim=config["ninp"],
            latent_dropout=config.get("dropoutl", 0.0),
            tied=tied,
            dtype=dtype,
        )
    model = LanguageModel(
        config["ntoken"],
        config["ninp"],
        _core(golden, dtype, auxiliary),
        head=head,
        embedding=ReleaseEmbedding(config["ntoken"], config["ninp"], dtype=dtype),
        embedding_dropout=config.get("emb_dropout", 0.0),
        input_dropout=config.get("dropouti", 0.0),
        output_dropout=config.get("dropout", 0.0),
        auxiliary_weight=1.0 if auxiliary else 0.0,
        dtype=dtype,
    )
    model.build((None, None))
    return model


def _decode(model: LanguageModel, hidden, masks=None):
    """What the release's decoder returns: logits, or log-probabilities of a mixture."""
    if isinstance(model.head, MixtureOfSoftmaxes):
        return model.head(hidden, tables=model.tables, masks=masks or {})
    return model.head.logits(hidden, tables=model.tables)


def _two_segments(
    golden: Golden,
    model: LanguageModel,
    bindings: list[Binding],
    inputs: dict[str, np.ndarray],
    auxiliary: bool,
) -> dict[str, np.ndarray]:
    tokens, targets = golden.input("tokens"), golden.input("targets")
    length = golden.config["length"]

    def forward(inputs):
        outputs, state = {}, _state(inputs)
        for index, start in enumerate(range(0, tokens.shape[1], length), start=1):
            ids, following = tokens[:, start : start + length], targets[:, start : start + length]
            features = model.features(
                ids, state, return_state=True, return_auxiliary=auxiliary, masks={}
            )
            segment = {
                "raw": features.raw,
                "decoded": _decode(model, features.outputs),
                "ce": ops.mean(model.head.nll(features.outputs, following, tables=model.tables)),
            }
            segment["h"], segment["c"] = _columns(features.state)
            if auxiliary:
                levels = features.auxiliary.shape[1]
                repeated = np.repeat(following[:, None], levels, axis=1)
                nll = model.head.nll(features.auxiliary, repeated, tables=model.tables)
                segment["aux_decoded"] = _decode(model, features.auxiliary)
                segment["aux_ce_sum"] = levels * ops.mean(nll)
            outputs.update({f"seg{index}_{name}": value for name, value in segment.items()})
            state = [ops.stop_gradient(part) for part in features.state]
        return outputs

    return differentiate(golden, forward, bindings, inputs)


def _masks(golden: Golden) -> dict[str, Any]:
    """The masks of a file in our layout."""
    given = golden.section("mask")

    def take(*axes, **names: str) -> dict[str, np.ndarray]:
        return {
            ours: np.transpose(given[theirs], axes) if axes else given[theirs]
            for ours, theirs in names.items()
            if theirs in given
        }

    return {
        **take(embedding="embedding", input="input", output="output", auxiliary="aux_output"),
        "core": {
            **take(2, 1, 0, weight_input="weight1", weight_hidden="weight2"),
            **take(0, 2, 1, hidden="hidden"),
        },
        "head": take(latent="mos_latent"),
        "auxiliary_head": take(latent="mos_aux_latent"),
    }


def _masked_segment(
    golden: Golden,
    model: LanguageModel,
    bindings: list[Binding],
    inputs: dict[str, np.ndarray],
    auxiliary: bool,
) -> dict[str, np.ndarray]:
    masks = _masks(golden)

    def forward(inputs):
        features = model.features(
            golden.input("tokens"),
            _state(inputs),
            return_state=True,
            training=True,
            return_auxiliary=auxiliary,
            masks=masks,
        )
        outputs = {
            "raw": features.raw,
            "output": features.outputs,
            "decoded": _decode(model, features.outputs, masks["head"]),
        }
        outputs["h_last"], outputs["c_last"] = _columns(features.state)
        if auxiliary:
            outputs["aux_decoded"] = _decode(model, features.auxiliary, masks["auxiliary_head"])
        return outputs

    return differentiate(golden, forward, bindings, inputs)


@case("trellis_seq_classifier")
def trellis_seq_classifier(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The pixel classifier, decoded at the last step."""
    classes = golden.arrays["out/log_probs"].shape[-1]
    model = SequenceClassifier(_core(golden, dtype, False), classes, dtype=dtype)
    inputs = golden.float_inputs(dtype)
    model.build((None, None, inputs["x"].shape[1]))
    load_reference(model, golden.parameters)

    def forward(inputs):
        log_probs, state = model(
            ops.transpose(inputs["x"], (0, 2, 1)), initial_state=_state(inputs), return_state=True
        )
        outputs = {"log_probs": log_probs}
        outputs["h_last"], outputs["c_last"] = _columns(state)
        return outputs

    return differentiate(golden, forward, bind(model, golden.parameters), inputs)
