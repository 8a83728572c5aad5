"""TCN, Transformer-XL and AWD-LSTM in NumPy float64, as the conventions describe them.

As in `numpy_reference`, functions are analytic, so that gradients may be taken by complex steps.
"""

import numpy as np
from convert.numpy_reference import adaptive, convolve, detach, log_softmax, normalize, sigmoid

# TCN: layout (N, C, L) ----------------------------------------------------------------------------


def relu(x):
    return np.where(np.real(x) > 0, x, 0)


def tcn_block(p, prefix, x, dilation):
    """The branch of a block and its output."""
    hidden = x
    for name in ("conv1", "conv2"):
        name = f"{prefix}{name}."
        weight = p.get(f"{name}weight")
        if weight is None:
            weight = normalize(p[f"{name}weight_v"], p[f"{name}weight_g"])
        before = np.zeros_like(hidden[..., :1])
        hidden = relu(convolve(hidden, weight, dilation, before) + p[f"{name}bias"][:, None])
    if f"{prefix}downsample.weight" in p:
        kernel = p[f"{prefix}downsample.weight"][..., 0]
        x = np.einsum("oi,nil->nol", kernel, x) + p[f"{prefix}downsample.bias"][:, None]
    return hidden, relu(hidden + x)


def tcn(p, prefix, x, levels):
    """The outputs of all levels."""
    outputs = []
    for level in range(levels):
        _, x = tcn_block(p, f"{prefix}network.{level}.", x, 2**level)
        outputs.append(x)
    return outputs


# Transformer-XL: layout (steps, N, d) -------------------------------------------------------------


def layer_norm(p, prefix, x):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    scale = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
    return centred / scale * p[f"{prefix}weight"] + p[f"{prefix}bias"]


def sinusoids(distances, width):
    """(n, 1, d)."""
    angles = np.outer(distances, 10_000.0 ** (-np.arange(0, width, 2) / width))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)[:, None]


def relative_attention(p, prefix, w, mems, r, vectors, config, span=None):
    """The attention half with residual and normalisation; probabilities (q, k, N, heads)."""
    heads, width = config["n_head"], config["d_head"]
    both = w if mems is None else np.concatenate([mems, w])
    if config["pre_lnorm"]:
        both = layer_norm(p, f"{prefix}layer_norm.", both)
    total, queries = len(both), len(w)
    parts = np.split(both @ p[f"{prefix}qkv_net.weight"].T, 3, axis=-1)
    q, k, v = (part.reshape(total, -1, heads, width) for part in parts)
    q = q[total - queries :]
    positions = (r[:, 0] @ p[f"{prefix}r_net.weight"].T).reshape(total, heads, width)
    # The distance of key j from query i is i + m - j, and r holds the largest distance first.
    distance = np.arange(queries)[:, None] + total - queries - np.arange(total)
    by_key = positions[np.clip(total - 1 - distance, 0, total - 1)]  # (q, k, heads, width)
    scores = np.einsum("qnhu,knhu->qknh", q + vectors[0], k)
    scores = scores + np.einsum("qnhu,qkhu->qknh", q + vectors[1], by_key)
    unseen = distance < 0 if span is None else (distance < 0) | (distance >= span)
    scores = np.where(unseen[:, :, None, None], -1e30, scores / np.sqrt(width))
    probabilities = np.exp(np.moveaxis(log_softmax(np.moveaxis(scores, 1, -1)), -1, 1))
    mixed = np.einsum("qknh,knhu->qnhu", probabilities, v).reshape(*w.shape[:2], -1)
    y = w + mixed @ p[f"{prefix}o_net.weight"].T
    return (y if config["pre_lnorm"] else layer_norm(p, f"{prefix}layer_norm.", y)), probabilities


def feed_forward(p, prefix, x, config):
    pre = config["pre_lnorm"]
    inner = layer_norm(p, f"{prefix}layer_norm.", x) if pre else x
    inner = relu(inner @ p[f"{prefix}CoreNet.0.weight"].T + p[f"{prefix}CoreNet.0.bias"])
    y = x + inner @ p[f"{prefix}CoreNet.3.weight"].T + p[f"{prefix}CoreNet.3.bias"]
    return y if pre else layer_norm(p, f"{prefix}layer_norm.", y)


def clusters_of(config) -> list[int]:
    """The first id of each cluster, and the number of words."""
    return [0, *config["cutoffs"], config["n_token"]]


def table_rows(p, config, cluster):
    """Vectors and biases of the words of a cluster."""
    low, high = clusters_of(config)[cluster : cluster + 2]
    shared = config["div_val"] == 1
    which, rows = (0, slice(low, high)) if shared else (cluster, slice(None))
    table = p.get(f"crit.out_layers.{which}.weight")
    if table is None:
        table = p[f"word_emb.emb_layers.{which}.weight"]
    return table[rows], p[f"crit.out_layers.{which}.bias"][rows]


def embed(p, config, tokens):
    width, rows = config["d_model"], []
    for i in range(1 if config["div_val"] == 1 else len(clusters_of(config)) - 1):
        vectors = p[f"word_emb.emb_layers.{i}.weight"]
        projection = p.get(f"word_emb.emb_projs.{i}")
        rows.append(vectors if projection is None else vectors @ projection.T)
    return np.concatenate(rows)[tokens] * np.sqrt(width)


def output_projection(p, config, cluster):
    """That of a cluster: its own, or the embedding's if they are tied."""
    own = p.get(f"crit.out_projs.{cluster}")
    if own is not None:
        return own
    found = p.get(f"word_emb.emb_projs.{0 if config['div_val'] == 1 else cluster}")
    return np.eye(config["d_model"]) if found is None else found


def word_log_probs(p, config, hidden):
    """(n, V) of hidden values (n, d)."""

    def logits(cluster, more=None):
        vectors, bias = table_rows(p, config, cluster)
        if more is not None:
            vectors, bias = np.concatenate([vectors, more[0]]), np.concatenate([bias, more[1]])
        return hidden @ output_projection(p, config, cluster) @ vectors.T + bias

    more = (p["crit.cluster_weight"], p["crit.cluster_bias"]) if config["cutoffs"] else None
    tails = [lambda _, i=i: logits(i) for i in range(1, len(config["cutoffs"]) + 1)]
    return adaptive(hidden, tails, logits(0, more), reverse=True)


def transformer_xl(p, config, tokens, targets):
    """Outputs of all segments under the keys of the files."""
    found, memory = {}, None
    order_of = np.searchsorted(np.asarray(config["cutoffs"]), targets, "right")
    for segment in range(config["segments"]):
        window = slice(segment * config["tgt_len"], (segment + 1) * config["tgt_len"])
        x = embed(p, config, tokens[window])
        past = 0 if memory is None else memory.shape[1]
        distances = np.arange(past + len(x) - 1, -1, -1)
        if config["clamp_len"] > 0:
            distances = np.minimum(distances, config["clamp_len"])
        r, inputs = sinusoids(distances, config["d_model"]), [x]
        for level in range(config["n_layer"]):
            prefix = f"layers.{level}."
            vectors = p["r_w_bias"], p["r_r_bias"]
            span = config["mem_len"] if config["same_length"] else None
            mems = None if memory is None else memory[level]
            attended, _ = relative_attention(
                p, f"{prefix}dec_attn.", x, mems, r, vectors, config, span
            )
            x = feed_forward(p, f"{prefix}pos_ff.", attended, config)
            inputs.append(x)
        new = detach(np.stack(inputs))
        memory = new if memory is None else np.concatenate([memory, new], axis=1)
        memory = memory[:, max(0, memory.shape[1] - config["mem_len"]) :]
        flat = word_log_probs(p, config, x.reshape(-1, x.shape[-1]))
        nll = -np.take_along_axis(flat, targets[window].reshape(-1, 1), axis=-1)[:, 0]
        order = np.argsort(order_of[window].reshape(-1), kind="stable")
        values = {"hidden": x, "nll": nll.reshape(x.shape[:2]), "loss": np.mean(nll)}
        values |= {"nll_cluster_order": nll[order], "mems": memory}
        found |= {f"seg{segment + 1}_{name}": value for name, value in values.items()}
    return found


# AWD-LSTM: layout (steps, N, d) -------------------------------------------------------------------


def lstm(x, state, kernel, recurrent, bias):
    """PyTorch's: outputs, and the last h and c."""
    h, c = state
    outputs = []
    for step in x:
        i, f, g, o = np.split(step @ kernel.T + h @ recurrent.T + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), (h, c)


def awd_lstm(p, config, tokens, targets, states, masks):
    """Outputs of a window under the keys of the files, and the states after it."""
    x = (p["encoder.weight"] * masks.get("embedding", 1.0))[tokens]
    last = tokens == config["ntoken"] - 1  # the padding index -1 of the release
    x = np.where(last[..., None], detach(x), x) * masks.get("input", 1.0)
    found, after, raw = {}, [], x
    for i in range(config["nlayers"]):
        name = f"rnns.{i}.module." if f"rnns.{i}.module.weight_ih_l0" in p else f"rnns.{i}."
        recurrent = p.get(f"{name}weight_hh_l0_raw")
        recurrent = p[f"{name}weight_hh_l0"] if recurrent is None else recurrent
        recurrent = recurrent * masks.get(f"weight_{i}", 1.0)
        bias = p[f"{name}bias_ih_l0"] + p[f"{name}bias_hh_l0"]
        raw, state = lstm(x, states[i], p[f"{name}weight_ih_l0"], recurrent, bias)
        x = raw * masks.get("output" if i + 1 == config["nlayers"] else f"hidden_{i}", 1.0)
        found |= {f"raw_{i}": raw, f"dropped_{i}": x}
        found |= {f"{kind}_last_{i}": part[None] for kind, part in zip("hc", state, strict=True)}
        after.append(state)
    table = p.get("decoder.weight")
    logits = x @ (p["encoder.weight"] if table is None else table).T + p["decoder.bias"]
    picked = np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1)
    found |= {"logits": logits, "ce": -np.mean(picked)}
    found["ar_alpha2"] = config["alpha"] * np.mean(x * x)
    found["tar_beta1"] = config["beta"] * np.mean((raw[1:] - raw[:-1]) ** 2)
    return found, after


def averaged_sgd(config, parameters, gradients, lengths, epochs, losses):
    """Weights, averages, rates and gradient norms of every step, as the release makes them."""
    weights = {name: array.astype(np.float64) for name, array in parameters.items()}
    averaging, seen, past = config["start"] == "ASGD", [], None
    mean, share = {name: np.zeros_like(array) for name, array in weights.items()}, 1.0
    count, first, rows = 0, 0 if averaging else -1, []
    for step, length in enumerate(lengths):
        grads = {name: gradients[name][step].astype(np.float64) for name in weights}
        norm = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
        clip = min(1.0, config["clip"] / (norm + 1e-6))
        own = config["lr"] * length / config["bptt"]
        rate = own if past is None or not averaging else past
        for name, weight in weights.items():
            weights[name] = weight - rate * (clip * grads[name] + config["wdecay"] * weight)
        row = {"rate": rate, "grad_norm": norm, **weights}
        if averaging:
            past, count = own, count + 1
            for name in weights:
                mean[name] = mean[name] + share * (weights[name] - mean[name])
            share = 1 / max(1, count)
            row |= {f"average_{name}": array for name, array in mean.items()}
        rows.append(row)
        if step + 1 == len(epochs) or epochs[step + 1] != epochs[step]:
            loss = losses[epochs[step] - 1]
            earlier = seen[: len(seen) - config["nonmono"]]
            if not averaging and len(seen) > config["nonmono"] and loss > min(earlier):
                averaging, first = True, step + 1
            seen.append(loss)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.stack([row[key] for row in rows if key in row]) for key in keys}, first
