"""Golden files of other sizes, options and seeds than the committed ones pass the same runner."""

from typing import Any

import numpy as np
import parity
import pytest
from convert import numpy_reference as reference


class Draw:
    """Draws what a file holds, representable in float32."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape, scale=0.3):
        return (scale * self.rng.normal(size=shape)).astype(np.float32)

    def ids(self, high, *shape):
        return self.rng.integers(0, high, shape).astype(np.int32)

    def mask(self, rate, *shape):
        kept = self.rng.uniform(size=shape) >= rate
        return (kept / (1 - rate)).astype(np.float32)

    def kernels(self, ninp, width, taps, wnorm, prefix, raw=""):
        found = {f"{prefix}bias2": self.normal(4 * width)}
        for name, inputs in (("weight1", ninp), ("weight2", width)):
            direction = self.normal(4 * width, inputs, taps)
            found[f"{prefix}{name}{'_v' if wnorm else ''}{raw}"] = direction
            if wnorm:
                norm = np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True))
                gain = self.rng.uniform(0.5, 1.5, norm.shape) * norm
                found[f"{prefix}{name}_g"] = gain.astype(np.float32)
        return found


def passes(path, capsys) -> None:
    """The runner accepts the file, under a name that says nothing about its sizes."""
    code = parity.main([str(path.parent)])
    output = capsys.readouterr().out
    assert code == 0, output
    assert output.startswith(f"{path.stem}: forward ")


CORES = {
    "one_tap": {"taps": 1, "dilation": [2, 1], "levels": 3, "aux": None, "wnorm": False},
    "four_taps": {"taps": 4, "dilation": [3, 1], "levels": 3, "aux": None, "wnorm": True},
    "single_level": {"taps": 2, "dilation": [1], "levels": 1, "aux": 1, "wnorm": False},
    "aux_not_at_the_end": {"taps": 2, "dilation": [1, 1, 2], "levels": 5, "aux": 2, "wnorm": True},
}


@pytest.mark.parametrize("name", CORES)
def test_core(name, tmp_path, capsys):
    s, draw = CORES[name], Draw(3)
    config = {"nhid": 2, "nout": 1, "ninp": 2, "nlevels": s["levels"], "wnorm": s["wnorm"]}
    config |= {"kernel_size": s["taps"], "dilation": s["dilation"], "aux_frequency": s["aux"]}
    parameters = draw.kernels(2, 3, s["taps"], s["wnorm"], "full_conv.")
    inputs = {"x": draw.normal(3, 2, 5, scale=1), "h0": draw.normal(3, 3, 1)}
    inputs["c0"] = draw.normal(3, 3, 1)

    def forward(p, given):
        weights = reference.kernels(p, "full_conv.")
        state = given["h0"], given["c0"]
        out, aux, h, c = reference.trellis(
            given["x"], *state, weights, config, aux=s["aux"] is not None
        )
        found = {"out": out, "h_last": h, "c_last": c}
        return found if aux is None else {**found, "aux": aux}

    path = tmp_path / "trellis_core_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


def test_weight_share_conv(tmp_path, capsys):
    draw = Draw(4)
    config = {"nhid": 2, "nout": 1, "ninp": 3, "kernel_size": 3, "dilation": 2}
    parameters = draw.kernels(3, 3, 3, False, "")
    inputs = {"z": draw.normal(2, 6, 6, scale=1), "hid": draw.normal(2, 3, 1)}

    def forward(p, given):
        x, h = given["z"][:, :3], given["z"][:, 3:]
        pre = reference.convolve(x, p["weight1"], 2, np.zeros_like(x[..., :1]))
        pre = pre + reference.convolve(h, p["weight2"], 2, given["hid"])
        return {"out": pre + p["bias2"][:, None]}

    path = tmp_path / "trellis_weight_share_conv_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


MODELS = {
    "plain_without_aux": {"experts": 0, "nout": 2, "wnorm": False, "aux": False, "tied": True},
    "mixture_untied": {"experts": 2, "nout": 2, "wnorm": True, "aux": True, "tied": False},
    "tied_with_aux": {"experts": 0, "nout": 2, "wnorm": True, "aux": True, "tied": True},
    "mixture_other_width": {"experts": 2, "nout": 1, "wnorm": False, "aux": False, "tied": True},
}


def model_of(draw, s, taps=2) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Config and parameters of a language model of 7 words."""
    width = 1 + s["nout"]
    config = {"ntoken": 7, "ninp": 2, "nhid": 1, "nout": s["nout"], "nlevels": 3, "length": 4}
    config |= {"kernel_size": taps, "dilation": [1], "wnorm": s["wnorm"], "aux": s["aux"]}
    config |= {"aux_frequency": 2, "n_experts": s["experts"], "tie_weights": s["tied"]}
    parameters = {"encoder.weight": draw.normal(7, 2), "decoder.bias": draw.normal(7)}
    if not s["tied"]:
        parameters["decoder.weight"] = draw.normal(7, 2)
    prefix = "tnet.module.full_conv."
    parameters |= draw.kernels(2, width, taps, s["wnorm"], prefix, raw="_raw")
    if s["experts"]:
        for name, size in (("prior", s["experts"]), ("latent", 2 * s["experts"])):
            parameters[f"mixsoft.{name}.weight"] = draw.normal(size, s["nout"])
            parameters[f"mixsoft.{name}.bias"] = draw.normal(size)
    return config, parameters, {n: draw.normal(2, width, 1) for n in ("h0", "c0")}


@pytest.mark.parametrize("name", MODELS)
def test_language_model_of_two_segments(name, tmp_path, capsys):
    s, draw = MODELS[name], Draw(5)
    config, parameters, inputs = model_of(draw, s)
    tokens = draw.ids(7, 2, 8)
    tokens[0, 1] = 6  # the last word, which has a gradient of its own kind
    inputs |= {"tokens": tokens, "targets": draw.ids(7, 2, 8)}

    def forward(p, given):
        outputs, h, c = {}, given["h0"], given["c0"]
        for k, start in ((1, 0), (2, 4)):
            ids = given["tokens"][:, start : start + 4]
            targets = given["targets"][:, start : start + 4]
            found = reference.language_model(p, ids, h, c, config)
            del found["output"]
            log_probs = found["decoded"]
            if not s["experts"]:
                log_probs = reference.log_softmax(log_probs)
            found["ce"] = np.mean(reference.pick(log_probs, targets))
            if s["aux"]:
                levels = found["aux_decoded"]
                levels = levels if s["experts"] else reference.log_softmax(levels)
                repeated = np.repeat(targets[:, None], levels.shape[1], axis=1)
                nll = reference.pick(levels, repeated)
                found["aux_ce_sum"] = np.sum(np.mean(nll, axis=(0, 2)))
            outputs |= {f"seg{k}_{key}": value for key, value in found.items()}
            h, c = reference.detach(found["h"]), reference.detach(found["c"])
        return outputs

    path = tmp_path / "trellis_lm_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


DROPOUTS = {
    "whole_kernel_normalised": (MODELS["tied_with_aux"], 2, 2),
    "past_taps_of_three": (MODELS["mixture_untied"], 3, 2),
    "whole_kernel_no_aux": (MODELS["plain_without_aux"], 2, 2),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_language_model_under_masks(name, tmp_path, capsys):
    s, taps, dropped = DROPOUTS[name]
    draw = Draw(6)
    config, parameters, inputs = model_of(draw, s, taps)
    config |= {"temporalwdrop": dropped < taps, "wdrop": 0.4, "dropout": 0.3, "dropouth": 0.2}
    config |= {"dropouti": 0.25, "dropoutl": 0.3, "emb_dropout": 0.2}
    inputs["tokens"] = draw.ids(7, 2, 4)
    width, nout, levels = 1 + s["nout"], s["nout"], 1
    masks = {
        "embedding": draw.mask(0.2, 7, 1),
        "input": draw.mask(0.25, 2, 1, 2),
        "weight1": draw.mask(0.4, 4 * width, 2, dropped),
        "weight2": draw.mask(0.4, 4 * width, width, dropped),
        "hidden": draw.mask(0.2, 2, width, 1),
        "output": draw.mask(0.3, 2, 1, nout),
    }
    masks["weight1"][..., 0] = np.maximum(masks["weight1"][..., 0], 1)  # no empty direction
    if s["aux"]:
        masks["aux_output"] = draw.mask(0.3, 2, levels, 1, nout)
    if s["experts"]:
        masks["mos_latent"] = draw.mask(0.3, 2, 1, 2 * s["experts"])
        masks["mos_aux_latent"] = draw.mask(0.3, 2, levels, 1, 2 * s["experts"])

    def forward(p, given):
        found = reference.language_model(
            p, given["tokens"], given["h0"], given["c0"], config, masks
        )
        return {{"h": "h_last", "c": "c_last"}.get(k, k): x for k, x in found.items()}

    path = tmp_path / "trellis_lm_dropout_masks_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward, masks)
    passes(path, capsys)


def test_pixel_classifier(tmp_path, capsys):
    draw = Draw(7)
    config = {"nhid": 1, "nout": 2, "ninp": 2, "nlevels": 3, "kernel_size": 2, "dilation": [1, 3]}
    prefix = "network.0.module.full_conv."
    parameters = draw.kernels(2, 3, 2, True, prefix, raw="_raw")
    parameters |= {"linear.weight": draw.normal(4, 2), "linear.bias": draw.normal(4)}
    inputs = {"x": draw.normal(2, 2, 6), "h0": draw.normal(2, 3, 1), "c0": draw.normal(2, 3, 1)}

    def forward(p, given):
        weights = reference.kernels(p, prefix)
        out, _, h, c = reference.trellis(given["x"], given["h0"], given["c0"], weights, config)
        logits = out[:, -1] @ p["linear.weight"].T + p["linear.bias"]
        return {"log_probs": reference.log_softmax(logits), "h_last": h, "c_last": c}

    path = tmp_path / "trellis_seq_classifier_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


def test_split_cross_entropy(tmp_path, capsys):
    draw, splits = Draw(8), [3, 5, 9]
    config = {"ntoken": 12, "hidden_size": 4, "splits": splits}
    parameters = {"tail_vectors": draw.normal(3, 4), "tail_bias": draw.normal(3)}
    inputs = {"decoder_weight": draw.normal(12, 4), "decoder_bias": draw.normal(12)}
    inputs |= {"x": draw.normal(7, 4, scale=1), "target": draw.ids(12, 7)}

    def forward(p, given):
        weight, bias, x = given["decoder_weight"], given["decoder_bias"], given["x"]
        head = np.concatenate([weight[:3], p["tail_vectors"]])
        head = x @ head.T + np.concatenate([bias[:3], p["tail_bias"]])
        bounds = list(zip(splits, [*splits[1:], 12], strict=True))
        tails = [lambda x, a=a, b=b: x @ weight[a:b].T + bias[a:b] for a, b in bounds]
        log_prob = reference.adaptive(x, tails, head, reverse=True)
        return {
            "log_prob": log_prob,
            "mean_nll": np.mean(reference.pick(log_prob, given["target"])),
        }

    path = tmp_path / "softmax_splitcross_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


@pytest.mark.parametrize("head_bias", [False, True])
def test_torch_adaptive(head_bias, tmp_path, capsys):
    draw, cutoffs = Draw(9), [2, 5, 8]
    config = {"n_classes": 11, "in_features": 8, "cutoffs": cutoffs, "div_value": 2.0}
    config["head_bias"] = head_bias
    parameters = {"head.weight": draw.normal(5, 8)}
    if head_bias:
        parameters["head.bias"] = draw.normal(5)
    for i, words in enumerate([3, 3, 3]):
        parameters[f"tail.{i}.0.weight"] = draw.normal(8 // 2 ** (i + 1), 8)
        parameters[f"tail.{i}.1.weight"] = draw.normal(words, 8 // 2 ** (i + 1))
    inputs = {"x": draw.normal(6, 8, scale=1), "target": draw.ids(11, 6)}

    def forward(p, given):
        def tail(i):
            return lambda x: x @ p[f"tail.{i}.0.weight"].T @ p[f"tail.{i}.1.weight"].T

        head = given["x"] @ p["head.weight"].T + p.get("head.bias", 0.0)
        log_prob = reference.adaptive(given["x"], [tail(i) for i in range(3)], head, reverse=False)
        nll = reference.pick(log_prob, given["target"])
        return {"log_prob": log_prob, "target_logprob": -nll, "mean_nll": np.mean(nll)}

    path = tmp_path / "softmax_torch_adaptive_fresh.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


@pytest.mark.parametrize("div,width", [(1, 4), (1, 3), (2, 3)])
def test_adaptive_embedding_and_softmax(div, width, tmp_path, capsys):
    draw, bounds = Draw(10), [0, 2, 5, 9]
    config = {"n_token": 9, "cutoffs": [2, 5], "d_embed": 4, "d_proj": width, "div_val": div}
    config |= {"tied_layers": True, "tied_projs": False}
    sizes = [9] if div == 1 else [2, 3, 4]
    p0 = {"crit.cluster_weight": draw.normal(2, 4), "crit.cluster_bias": draw.normal(2)}
    for i, size in enumerate(sizes):
        p0[f"word_emb.emb_layers.{i}.weight"] = draw.normal(size, 4 // div**i)
        p0[f"crit.out_layers.{i}.bias"] = draw.normal(size)
        if div > 1 or width != 4:
            p0[f"word_emb.emb_projs.{i}.weight"] = draw.normal(width, 4 // div**i)
    if div > 1 or width != 4:
        for i in range(3):
            p0[f"crit.out_projs.{i}.weight"] = draw.normal(width, 4 // div**i)
    inputs = {"hidden": draw.normal(6, width, scale=1), "target": draw.ids(9, 6)}
    inputs["tokens"] = np.array([[0, 3, 7, 8], [1, 2, 5, 0]], np.int32)

    def forward(p, given):
        x = given["hidden"]

        def cluster(i):
            """Word vectors, bias and projection of a cluster."""
            low, high = bounds[i], bounds[i + 1]
            table, bias = (f"word_emb.emb_layers.{i}.weight", f"crit.out_layers.{i}.bias")
            if div == 1:
                whole = p["word_emb.emb_layers.0.weight"], p["crit.out_layers.0.bias"]
                vectors, offsets = whole[0][low:high], whole[1][low:high]
            else:
                vectors, offsets = p[table], p[bias]
            return vectors, offsets, p.get(f"crit.out_projs.{i}.weight", np.eye(width))

        vectors, offsets, projection = cluster(0)
        head = x @ projection @ np.concatenate([vectors, p["crit.cluster_weight"]]).T
        head = head + np.concatenate([offsets, p["crit.cluster_bias"]])

        def tail(i):
            vectors, offsets, projection = cluster(i)
            return lambda x: x @ projection @ vectors.T + offsets

        log_prob = reference.adaptive(x, [tail(1), tail(2)], head, reverse=True)
        nll = reference.pick(log_prob, given["target"])
        rows = []
        for i, size in enumerate(sizes):
            projection = p.get(f"word_emb.emb_projs.{i}.weight", np.eye(width))
            rows.append(p[f"word_emb.emb_layers.{i}.weight"] @ projection.T)
            assert len(rows[-1]) == size
        embedding = np.concatenate(rows)[given["tokens"]] * np.sqrt(width)
        order = np.argsort(np.searchsorted([2, 5], given["target"], "right"), kind="stable")
        return {"nll": nll, "nll_cluster_order": nll[order], "embedding": embedding}

    path = tmp_path / "adaptive_embedding_softmax_fresh.npz"
    reference.write_golden(path, config, p0, inputs, forward, skip=("nll_cluster_order",))
    passes(path, capsys)
