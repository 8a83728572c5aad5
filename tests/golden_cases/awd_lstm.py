"""Golden cases of AWD-LSTM: the language model, its dropout, its averaged steps."""

from typing import Any

import keras
import numpy as np
from keras import ops

from golden_cases.cases import Golden, case, differentiate
from golden_cases.embedding import ReleaseEmbedding
from keras_seq.convert.pru import LSTM_GATES
from keras_seq.convert.reference import bind, load_reference
from keras_seq.layers import LSTM, RecurrentStack
from keras_seq.losses import activation_regularization, temporal_activation_regularization
from keras_seq.models import LanguageModel
from keras_seq.optimizers import NTASGD

BY_STEP = (1, 0, 2)  # (steps, N, d) to (b, t, d), or back


def _language_model(golden: Golden, dtype: str) -> LanguageModel:
    """The model that a file's `config` describes: inner layers of `nhid`, the last of `ninp`."""
    config = golden.config
    tied = config["tie_weights"]
    widths = [config["nhid"]] * config["nlayers"]
    if tied:
        widths[-1] = config["ninp"]
    core = RecurrentStack([LSTM(width, dtype=dtype) for width in widths], dtype=dtype)
    model = LanguageModel(
        config["ntoken"],
        config["ninp"],
        core,
        head="tied" if tied else "softmax",
        embedding=ReleaseEmbedding(config["ntoken"], config["ninp"], dtype=dtype),
        dtype=dtype,
    )
    model.build((None, None))
    return model


def _masks(golden: Golden) -> dict[str, Any]:
    """The masks of a file in our layout."""
    given = golden.section("mask")
    core: dict[str, Any] = {}
    for name, mask in given.items():
        kind, _, index = name.partition("_")
        if kind == "weight":
            core[f"layer_{index}"] = {"weight": [LSTM_GATES.ours(mask)]}
        elif kind == "hidden":
            core[f"dropout_{int(index) + 1}"] = np.transpose(mask, BY_STEP)
    own = {k: np.transpose(given[k], BY_STEP) for k in ("input", "output") if k in given}
    return {**({"embedding": given["embedding"]} if "embedding" in given else {}), **own} | {
        "core": core
    }


def _window(model: LanguageModel, ids, targets, state, config, masks, training: bool):
    """Outputs of a window, and its state."""
    features = model.features(ids, state, return_state=True, training=training, masks=masks)
    core, within = model.core, masks.get("core", {})
    outputs: dict[str, Any] = {}
    x = model.embedding(ids)
    x = model.embedding_dropout(x, ids, training=False, dropout_mask=masks.get("embedding"))
    x = x * masks.get("input", 1)
    for i, layer in enumerate(core.layers[:-1]):
        x = layer(x, initial_state=state[i], masks=within.get(f"layer_{i}", {}))
        outputs[f"raw_{i}"] = x
        x = outputs[f"dropped_{i}"] = x * within.get(f"dropout_{i + 1}", 1)
    last = len(core.layers) - 1
    outputs |= {f"raw_{last}": features.raw, f"dropped_{last}": features.outputs}
    outputs["logits"] = model.head.logits(features.outputs, tables=model.tables)
    outputs = {name: ops.transpose(value, BY_STEP) for name, value in outputs.items()}
    for i, parts in enumerate(features.state):
        outputs[f"h_last_{i}"], outputs[f"c_last_{i}"] = (part[None] for part in parts)
    nll = model.head.nll(features.outputs, targets, tables=model.tables)
    outputs["ce"] = ops.mean(nll)
    outputs["ar_alpha2"] = activation_regularization(features.outputs, config["alpha"])
    outputs["tar_beta1"] = temporal_activation_regularization(features.raw, config["beta"])
    return outputs, features.state


@case("awd_lm", "awd_dropout_masks")
def awd_lm(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """Windows whose states are handed over without gradient, or one under given dropout masks."""
    model, config = _language_model(golden, dtype), golden.config
    load_reference(model, golden.parameters)
    ids, targets = (np.transpose(golden.input(name)) for name in ("tokens", "targets"))
    inputs, masks = golden.float_inputs(dtype), _masks(golden)
    length, segments = config["T"], config.get("segments")

    def forward(inputs):
        layers = range(config["nlayers"])
        state: Any = [[inputs[f"{kind}0_{i}"][0] for kind in "hc"] for i in layers]
        outputs = {}
        for number in range(segments or 1):
            window = slice(number * length, (number + 1) * length)
            found, state = _window(
                model, ids[:, window], targets[:, window], state, config, masks, bool(masks["core"])
            )
            state = keras.tree.map_structure(ops.stop_gradient, state)
            prefix = "" if segments is None else f"seg{number + 1}_"
            outputs |= {f"{prefix}{name}": value for name, value in found.items()}
        return {name: value for name, value in outputs.items() if f"out/{name}" in golden.arrays}

    return differentiate(golden, forward, bind(model, golden.parameters), inputs)


@case("asgd_steps")
def asgd_steps(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The optimizer alone, on given gradients; each rate is read off the step that was made."""
    config = golden.config
    names = list(golden.parameters)
    variables = [keras.Variable(array, dtype=dtype) for array in golden.parameters.values()]
    optimizer = NTASGD(
        config["lr"],
        nonmonotone=config["nonmono"],
        average_from=0 if config["start"] == "ASGD" else None,
        l2=config["wdecay"],
        global_clipnorm=config["clip"] or None,
        nominal_length=config["bptt"],
        form="released",
    )
    optimizer.build(variables)
    lengths, epochs = golden.input("seq_len"), golden.input("epoch")
    losses = [float(loss) for loss in golden.input("val_loss")]
    values: dict[str, list] = {name: [] for name in ("rate", "grad_norm")}
    values |= {name: [] for weight in names for name in (weight, f"average_{weight}")}

    def weights():
        return [ops.convert_to_numpy(variable).astype("float64") for variable in variables]

    for step, length in enumerate(lengths):
        gradients = [golden.input(f"grad_{name}")[step].astype(dtype) for name in names]
        before = weights()
        optimizer.set_window_length(int(length))
        optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients], variables)
        for name, weight in zip(names, weights(), strict=True):
            values[name].append(weight)
        norm = np.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in gradients))
        share = min(1.0, config["clip"] / norm) if config["clip"] else 1.0
        directions = [
            share * g + config["wdecay"] * w for g, w in zip(gradients, before, strict=True)
        ]
        made = [w - new for w, new in zip(before, weights(), strict=True)]
        along = sum(np.sum(d * m) for d, m in zip(directions, made, strict=True))
        values["rate"].append(along / sum(np.sum(d * d) for d in directions))
        values["grad_norm"].append(norm)
        if optimizer.averaging:
            with optimizer.evaluation_weights():
                for name, weight in zip(names, weights(), strict=True):
                    values[f"average_{name}"].append(weight)
        if step + 1 == len(epochs) or epochs[step + 1] != epochs[step]:
            optimizer.epoch_end(losses[: int(epochs[step] - epochs[0]) + 1])
    return {f"out/{name}": np.asarray(rows) for name, rows in values.items() if rows}
