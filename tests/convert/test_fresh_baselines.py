"""Golden files of baselines of other sizes, options and seeds than the committed ones."""

import json

import numpy as np
import pytest
from convert import numpy_baselines as baselines
from convert import numpy_reference as reference
from convert.test_fresh_sizes import Draw, passes

# TCN ----------------------------------------------------------------------------------------------


def block_of(draw, prefix, inputs, outputs, taps, normalized=True):
    """The parameters of a block."""
    found = {}
    for name, width in (("conv1", inputs), ("conv2", outputs)):
        kernel = draw.normal(outputs, width, taps, scale=0.5)
        name = f"{prefix}{name}."
        found[f"{name}bias"] = draw.normal(outputs)
        if not normalized:
            found[f"{name}weight"] = kernel
            continue
        norm = np.sqrt(np.sum(kernel**2, axis=(1, 2), keepdims=True))
        found[f"{name}weight_v"] = kernel
        found[f"{name}weight_g"] = (draw.rng.uniform(0.5, 1.5, norm.shape) * norm).astype("float32")
    if inputs != outputs:
        found[f"{prefix}downsample.weight"] = draw.normal(outputs, inputs, 1)
        found[f"{prefix}downsample.bias"] = draw.normal(outputs)
    return found


def network_of(draw, prefix, inputs, channels, taps):
    found = {}
    for level, outputs in enumerate(channels):
        found |= block_of(draw, f"{prefix}network.{level}.", inputs, outputs, taps)
        inputs = outputs
    return found


@pytest.mark.parametrize(
    ("inputs", "outputs", "taps", "dilation", "normalized"),
    [(3, 3, 4, 3, True), (1, 2, 2, 5, False), (2, 3, 5, 1, True)],
)
def test_tcn_block(inputs, outputs, taps, dilation, normalized, tmp_path, capsys):
    draw = Draw(11)
    config = {"n_inputs": inputs, "n_outputs": outputs, "kernel_size": taps, "dilation": dilation}
    parameters = block_of(draw, "", inputs, outputs, taps, normalized)

    def forward(p, given):
        branch, out = baselines.tcn_block(p, "", given["x"], dilation)
        return {"branch": branch, "out": out}

    path = tmp_path / "tcn_block_fresh.npz"
    x = draw.normal(3, inputs, 7, scale=1)
    reference.write_golden(path, config, parameters, {"x": x}, forward)
    passes(path, capsys)


def test_tcn_net(tmp_path, capsys):
    draw, channels = Draw(12), [2, 3, 3, 1]
    config = {"num_inputs": 2, "num_channels": channels, "kernel_size": 2}
    config["dilations"] = [1, 2, 4, 8]
    parameters = network_of(draw, "", 2, channels, 2)

    def forward(p, given):
        levels = baselines.tcn(p, "", given["x"], len(channels))
        return {f"level_{i}": level for i, level in enumerate(levels)}

    path = tmp_path / "tcn_net_fresh.npz"
    reference.write_golden(path, config, parameters, {"x": draw.normal(1, 2, 9, scale=1)}, forward)
    passes(path, capsys)


@pytest.mark.parametrize(
    ("name", "tied", "measure"),
    [("word_model", False, "ppl"), ("word_model", True, "ppl"), ("char_model", True, "bpc")],
)
def test_tcn_language_model(name, tied, measure, tmp_path, capsys):
    draw, channels, words = Draw(13), [3, 2], 7
    width = 2 if tied else 3
    config = {"input_size": width, "output_size": words, "num_channels": channels}
    config |= {"kernel_size": 3, "tied": tied, "validseqlen": 4}
    parameters = {"encoder.weight": draw.normal(words, width), "decoder.bias": draw.normal(words)}
    parameters |= network_of(draw, "tcn.", width, channels, 3)
    if not tied:
        parameters["decoder.weight"] = draw.normal(words, channels[-1])
    inputs = {"tokens": draw.ids(words, 3, 6), "targets": draw.ids(words, 3, 6)}

    def forward(p, given):
        x = np.moveaxis(p["encoder.weight"][given["tokens"]], 1, 2)
        hidden = np.moveaxis(baselines.tcn(p, "tcn.", x, len(channels))[-1], 1, 2)
        table = p["encoder.weight"] if tied else p["decoder.weight"]
        logits = hidden @ table.T + p["decoder.bias"]
        scored = reference.pick(reference.log_softmax(logits), given["targets"])[:, -4:]
        ce = np.mean(scored)
        return {"logits": logits, "ce": ce} | (
            {"ppl": np.exp(ce)} if measure == "ppl" else {"bpc": ce / np.log(2)}
        )

    path = tmp_path / f"tcn_{name}_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


def test_tcn_music_model(tmp_path, capsys):
    draw, channels, notes = Draw(14), [3, 2, 2], 4
    config = {"input_size": notes, "output_size": notes, "num_channels": channels}
    config["kernel_size"] = 2
    parameters = network_of(draw, "tcn.", notes, channels, 2)
    parameters |= {"linear.weight": draw.normal(notes, 2), "linear.bias": draw.normal(notes)}
    inputs = {"x": draw.ids(2, 1, 6, notes).astype("float32")}
    y = draw.ids(2, 6, notes).astype("float32")

    def forward(p, given):
        hidden = baselines.tcn(p, "tcn.", np.moveaxis(given["x"], 1, 2), len(channels))[-1]
        logits = np.moveaxis(hidden, 1, 2) @ p["linear.weight"].T + p["linear.bias"]
        probs = reference.sigmoid(logits)
        nll = -np.sum(y * np.log(probs) + (1 - y) * np.log(1 - probs))
        return {"probs": probs, "nll_sum": nll, "nll_per_frame": nll / 6}

    path = tmp_path / "tcn_music_model_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    with np.load(path) as file:
        arrays = {**file, "in/y": y}
    np.savez(path, **arrays)
    passes(path, capsys)


def test_tcn_mnist_model(tmp_path, capsys):
    draw, channels = Draw(15), [2, 2]
    config = {"input_size": 2, "output_size": 3, "num_channels": channels, "kernel_size": 4}
    parameters = network_of(draw, "tcn.", 2, channels, 4)
    parameters |= {"linear.weight": draw.normal(3, 2), "linear.bias": draw.normal(3)}
    inputs = {"x": draw.normal(4, 2, 8, scale=1), "targets": draw.ids(3, 4)}

    def forward(p, given):
        last = baselines.tcn(p, "tcn.", given["x"], len(channels))[-1][..., -1]
        log_probs = reference.log_softmax(last @ p["linear.weight"].T + p["linear.bias"])
        return {"log_probs": log_probs, "nll": np.mean(reference.pick(log_probs, given["targets"]))}

    path = tmp_path / "tcn_mnist_model_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


# Transformer-XL -----------------------------------------------------------------------------------


def norm_of(draw, prefix, width):
    gain = 1 + draw.normal(width, scale=0.2)
    return {f"{prefix}weight": gain.astype("float32"), f"{prefix}bias": draw.normal(width)}


def attention_of(draw, prefix, config):
    width, inner = config["d_model"], config["n_head"] * config["d_head"]
    return {
        f"{prefix}qkv_net.weight": draw.normal(3 * inner, width),
        f"{prefix}r_net.weight": draw.normal(inner, width),
        f"{prefix}o_net.weight": draw.normal(width, inner),
        **norm_of(draw, f"{prefix}layer_norm.", width),
    }


def level_of(draw, prefix, config):
    width, inner = config["d_model"], config["d_inner"]
    return {
        **attention_of(draw, f"{prefix}dec_attn.", config),
        f"{prefix}pos_ff.CoreNet.0.weight": draw.normal(inner, width),
        f"{prefix}pos_ff.CoreNet.0.bias": draw.normal(inner),
        f"{prefix}pos_ff.CoreNet.3.weight": draw.normal(width, inner),
        f"{prefix}pos_ff.CoreNet.3.bias": draw.normal(width),
        **norm_of(draw, f"{prefix}pos_ff.layer_norm.", width),
    }


PARTS = {
    "three_heads": {"n_head": 3, "d_head": 1, "mlen": 3, "qlen": 2, "pre_lnorm": True},
    "one_step": {"n_head": 1, "d_head": 5, "mlen": 2, "qlen": 1, "pre_lnorm": False},
    "no_memory": {"n_head": 2, "d_head": 3, "mlen": 0, "qlen": 4, "pre_lnorm": False},
}


@pytest.mark.parametrize("part", ["rel_attention", "layer"])
@pytest.mark.parametrize("name", PARTS)
def test_transformer_xl_part(name, part, tmp_path, capsys):
    draw, config = Draw(16), {**PARTS[name], "d_model": 4, "d_inner": 3}
    past, queries = config["mlen"], config["qlen"]
    make = attention_of if part == "rel_attention" else level_of
    parameters = make(draw, "", config)
    inputs = {"w": draw.normal(queries, 2, 4, scale=1)}
    if past:
        inputs["mems"] = draw.normal(past, 2, 4, scale=1)
    distances = np.arange(past + queries - 1, -1, -1)
    inputs["r"] = baselines.sinusoids(distances, 4).astype("float32")
    for vector in ("r_w_bias", "r_r_bias"):
        inputs[vector] = draw.normal(config["n_head"], config["d_head"])

    def forward(p, given):
        vectors = given["r_w_bias"], given["r_r_bias"]
        prefix = "" if part == "rel_attention" else "dec_attn."
        attended, probabilities = baselines.relative_attention(
            p, prefix, given["w"], given.get("mems"), given["r"], vectors, config
        )
        found = {"attn_prob": probabilities}
        if part == "rel_attention":
            return {"out": attended, **found}
        out = baselines.feed_forward(p, "pos_ff.", attended, config)
        return {"attn_out": attended, "out": out, **found}

    path = tmp_path / f"txl_{part}_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


XL = {"n_token": 9, "d_model": 4, "d_embed": 4, "n_head": 2, "d_head": 3, "d_inner": 3}
XL |= {"n_layer": 2, "tgt_len": 3, "mem_len": 4, "segments": 2, "cutoffs": [3, 6], "div_val": 1}
XL |= {"pre_lnorm": False, "same_length": False, "clamp_len": -1, "tie_weight": True}
XL |= {"tie_projs": [False, True, True]}
MODELS = {
    "small_memory": {"mem_len": 2, "tgt_len": 4, "same_length": True, "clamp_len": 1},
    "many_segments": {"segments": 4, "tgt_len": 2, "mem_len": 5, "same_length": True},
    "no_clusters": {"cutoffs": [], "tie_projs": [False], "n_layer": 1, "pre_lnorm": True},
    "one_cluster": {"cutoffs": [5], "tie_projs": [False, True], "div_val": 2, "n_layer": 1},
    "narrow_words": {"d_embed": 2, "n_layer": 1, "segments": 1},
    "own_projections": {"d_embed": 2, "tie_projs": [False] * 3, "n_layer": 1, "segments": 1},
    "own_words": {"tie_weight": False, "tie_projs": [False] * 3, "n_layer": 1, "segments": 1},
}


def crit_of(draw, config):
    """Embedding and softmax."""
    bounds, width = baselines.clusters_of(config), config["d_model"]
    sizes = np.diff(bounds).tolist()
    widths = [int(config["d_embed"] // config["div_val"] ** i) for i in range(len(sizes))]
    projected = config["div_val"] > 1 or config["d_embed"] != width
    tables = [config["n_token"]] if config["div_val"] == 1 else sizes
    found = {}
    for i, size in enumerate(tables):
        found[f"word_emb.emb_layers.{i}.weight"] = draw.normal(size, widths[i])
        found[f"crit.out_layers.{i}.bias"] = draw.normal(size)
        if projected:
            found[f"word_emb.emb_projs.{i}"] = draw.normal(width, widths[i])
        if not config["tie_weight"]:
            found[f"crit.out_layers.{i}.weight"] = draw.normal(size, widths[i])
    for i in range(len(sizes)):
        if projected and not config["tie_projs"][i]:
            found[f"crit.out_projs.{i}"] = draw.normal(width, widths[i])
    if len(sizes) > 1:
        found["crit.cluster_weight"] = draw.normal(len(sizes) - 1, widths[0])
        found["crit.cluster_bias"] = draw.normal(len(sizes) - 1)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_transformer_xl_language_model(name, tmp_path, capsys):
    draw, config = Draw(17), {**XL, **MODELS[name]}
    parameters = crit_of(draw, config)
    for level in range(config["n_layer"]):
        parameters |= level_of(draw, f"layers.{level}.", config)
    for vector in ("r_w_bias", "r_r_bias"):
        parameters[vector] = draw.normal(config["n_head"], config["d_head"])
    steps = config["segments"] * config["tgt_len"]
    inputs = {key: draw.ids(config["n_token"], steps, 2) for key in ("tokens", "targets")}

    def forward(p, given):
        return baselines.transformer_xl(p, config, given["tokens"], given["targets"])

    path = tmp_path / "txl_lm_fresh.npz"
    skip = [f"seg{i}_{key}" for i in range(1, 5) for key in ("mems", "nll_cluster_order")]
    reference.write_golden(path, config, parameters, inputs, forward, skip=tuple(skip))
    passes(path, capsys)


# AWD-LSTM -----------------------------------------------------------------------------------------


def awd_of(draw, nlayers, tied, wrapped):
    """Config, parameters and inputs of a model of 7 words, without length."""
    config = {"ntoken": 7, "ninp": 2, "nhid": 3, "nlayers": nlayers, "tie_weights": tied}
    config |= {"alpha": 2.0, "beta": 1.0, "rnn_type": "LSTM"}
    parameters = {"encoder.weight": draw.normal(7, 2), "decoder.bias": draw.normal(7)}
    inputs, width = {}, 2
    for i in range(nlayers):
        units = 2 if tied and i == nlayers - 1 else 3
        name = f"rnns.{i}.module." if wrapped else f"rnns.{i}."
        parameters[f"{name}weight_ih_l0"] = draw.normal(4 * units, width)
        raw = "_raw" if wrapped else ""
        parameters[f"{name}weight_hh_l0{raw}"] = draw.normal(4 * units, units)
        for bias in ("bias_ih_l0", "bias_hh_l0"):
            parameters[name + bias] = draw.normal(4 * units)
        for kind in "hc":
            inputs[f"{kind}0_{i}"] = draw.normal(1, 2, units)
        width = units
    if not tied:
        parameters["decoder.weight"] = draw.normal(7, width)
    return config, parameters, inputs


@pytest.mark.parametrize(
    ("nlayers", "tied", "wrapped", "segments"), [(1, True, False, 3), (2, False, True, 1)]
)
def test_awd_language_model(nlayers, tied, wrapped, segments, tmp_path, capsys):
    draw = Draw(18)
    config, parameters, inputs = awd_of(draw, nlayers, tied, wrapped)
    config |= {"T": 3, "segments": segments}
    inputs |= {key: draw.ids(7, 3 * segments, 2) for key in ("tokens", "targets")}
    inputs["tokens"][1, 0] = 6  # the last word, which has a gradient of its own kind

    def forward(p, given):
        states = [[given[f"{kind}0_{i}"][0] for kind in "hc"] for i in range(nlayers)]
        outputs = {}
        for number in range(segments):
            window = slice(3 * number, 3 * number + 3)
            tokens, targets = given["tokens"][window], given["targets"][window]
            found, states = baselines.awd_lstm(p, config, tokens, targets, states, {})
            found = {k: v for k, v in found.items() if not k.startswith("dropped")}
            outputs |= {f"seg{number + 1}_{key}": value for key, value in found.items()}
            states = [[reference.detach(part) for part in state] for state in states]
        return outputs

    path = tmp_path / "awd_lm_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


def test_awd_dropout_masks(tmp_path, capsys):
    draw = Draw(19)
    config, parameters, inputs = awd_of(draw, 2, False, True)
    config["T"] = 4
    inputs |= {key: draw.ids(7, 4, 2) for key in ("tokens", "targets")}
    inputs["tokens"][2, 1] = 6
    masks = {
        "embedding": draw.mask(0.2, 7, 1),
        "input": draw.mask(0.4, 1, 2, 2),
        "weight_0": draw.mask(0.5, 12, 3),
        "weight_1": draw.mask(0.5, 12, 3),
        "hidden_0": draw.mask(0.3, 1, 2, 3),
        "output": draw.mask(0.3, 1, 2, 3),
    }

    def forward(p, given):
        states = [[given[f"{kind}0_{i}"][0] for kind in "hc"] for i in range(2)]
        tokens, targets = given["tokens"], given["targets"]
        return baselines.awd_lstm(p, config, tokens, targets, states, masks)[0]

    path = tmp_path / "awd_dropout_masks_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward, masks)
    passes(path, capsys)


@pytest.mark.parametrize(
    ("start", "losses", "first"),
    [("SGD", [3.0, 2.5, 2.6, 2.7, 2.4], 8), ("SGD", [3.0, 2.5, 2.0], -1), ("ASGD", [2.0, 1.5], 0)],
)
def test_asgd_steps(start, losses, first, tmp_path, capsys):
    draw, per_epoch = Draw(20), 2
    config = {"start": start, "lr": 3.0, "bptt": 8, "clip": 0.3, "wdecay": 0.05, "nonmono": 1}
    steps = per_epoch * len(losses)
    parameters = {"one": draw.normal(4), "two": draw.normal(2, 3), "three": draw.normal(1, 1)}
    epochs = np.repeat(np.arange(1, len(losses) + 1), per_epoch).astype("int32")
    lengths = draw.rng.integers(3, 12, steps).astype("int32")
    gradients = {name: draw.normal(steps, *x.shape, scale=1) for name, x in parameters.items()}
    expected, found = baselines.averaged_sgd(
        config, parameters, gradients, lengths, epochs.tolist(), losses
    )
    assert found == first
    file = {"config": np.array(json.dumps(config)), "in/seq_len": lengths, "in/epoch": epochs}
    file["in/val_loss"] = reference.single(losses)
    file |= {f"in/grad_{name}": x for name, x in gradients.items()}
    file |= {f"param/{name}": x for name, x in parameters.items()}
    file |= {f"out/{name}": reference.single(x) for name, x in expected.items()}
    path = tmp_path / "asgd_steps_fresh.npz"
    np.savez(path, **file)
    passes(path, capsys)
