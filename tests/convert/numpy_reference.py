"""The reference implementations again, in NumPy float64, as the conventions describe them.

Written from the equations and independent of the library. All functions are analytic and take
complex numbers, so that `gradient` may differentiate them by complex steps: f(x + ih) has the
derivative in its imaginary part, exact to rounding. Dropping that part is `detach`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEP = 1e-30


def detach(x):
    """The value without its derivative."""
    return np.real(x) + 0.0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    shifted = x - np.max(np.real(x), axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def pick(log_probs, targets):
    """The negative log-likelihood of each target."""
    return -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


# TrellisNet: layout (N, C, L) --------------------------------------------------------------------


def normalize(v, g):
    return g * v / np.sqrt(np.sum(v * v, axis=(1, 2), keepdims=True))


def drop(weight, mask):
    """Weight dropout on as many leading taps as the mask has."""
    taps = mask.shape[-1]
    return np.concatenate([weight[..., :taps] * mask, weight[..., taps:]], axis=-1)


def kernels(p, prefix="", masks=None):
    """Both kernels, dropped and normalised, and the bias."""
    found = []
    for name in ("weight1", "weight2"):
        key = next(
            k
            for k in p
            if k.startswith(prefix + name) and not k.endswith("_g") and name in k.split(".")[-1]
        )
        weight = p[key]
        if masks and name in masks:
            weight = drop(weight, masks[name])
        gain = f"{prefix}{name}_g"
        found.append(normalize(weight, p[gain]) if gain in p else weight)
    return (*found, p[f"{prefix}bias2"])


def convolve(x, weight, dilation, padding):
    """Causal convolution; `padding` (N, C, 1) stands before the sequence."""
    taps, length = weight.shape[-1], x.shape[-1]
    before = np.repeat(padding, (taps - 1) * dilation, axis=-1)
    x = np.concatenate([before, x], axis=-1)
    return sum(
        np.einsum("oi,nil->nol", weight[..., j], x[..., j * dilation : j * dilation + length])
        for j in range(taps)
    )


def trellis(x, h0, c0, weights, config, hidden_mask=1.0, aux=False):
    """Returns output (N, L, nout), auxiliary outputs (N, M, L, nout), last h and c (N, h, 1)."""
    weight1, weight2, bias = weights
    n, _, length = x.shape
    width = weight2.shape[1]
    dilations = config["dilation"]
    h = c = np.zeros((n, width, length))
    collected = []
    for level in range(config["nlevels"]):
        d = dilations[level % len(dilations)]
        pre = bias[:, None] + convolve(x, weight1, d, np.zeros_like(x[..., :1]))
        pre = pre + convolve(h * hidden_mask, weight2, d, h0 * hidden_mask)
        i, o, g, f = np.split(pre, 4, axis=1)
        shifted = np.concatenate([np.repeat(c0, d, axis=-1), c], axis=-1)[..., :length]
        c = sigmoid(f) * shifted + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if aux and (level + 1) % config["aux_frequency"] == 0:
            collected.append(h[:, -config["nout"] :])
    out = np.moveaxis(h[:, -config["nout"] :], 1, 2)
    aux_out = np.moveaxis(np.stack(collected, axis=1), 2, 3) if collected else None
    return out, aux_out, h[..., -1:], c[..., -1:]


def mixture(p, hidden, table, mask=1.0):
    """Mixture of softmaxes: log-probabilities."""
    prior = np.exp(log_softmax(hidden @ p["mixsoft.prior.weight"].T + p["mixsoft.prior.bias"]))
    latent = hidden @ p["mixsoft.latent.weight"].T + p["mixsoft.latent.bias"]
    experts = prior.shape[-1]
    latent = np.tanh(latent * mask)
    latent = latent.reshape(*latent.shape[:-1], experts, -1)
    probabilities = np.exp(log_softmax(latent @ table.T + p["decoder.bias"]))
    return np.log(np.einsum("...k,...kv->...v", prior, probabilities) + 1e-8)


def language_model(p, tokens, h0, c0, config, masks=None):
    """One segment: a dictionary of raw, output, decoded, aux_decoded, h and c."""
    masks = masks or {}
    vectors = p["encoder.weight"] * masks.get("embedding", 1.0)
    x = vectors[tokens]
    last = tokens == config["ntoken"] - 1  # the padding index -1 of the release
    x = np.where(last[..., None], detach(x), x) * masks.get("input", 1.0)
    weights = kernels(p, "tnet.module.full_conv.", masks)
    raw, aux, h, c = trellis(
        np.moveaxis(x, 1, 2), h0, c0, weights, config, masks.get("hidden", 1.0), config["aux"]
    )
    table = p["encoder.weight"] if config["tie_weights"] else p["decoder.weight"]

    def decode(hidden, mask):
        if config["n_experts"]:
            return mixture(p, hidden, table, masks.get(mask, 1.0))
        return hidden @ table.T + p["decoder.bias"]

    output = raw * masks.get("output", 1.0)
    found = {"raw": raw, "output": output, "decoded": decode(output, "mos_latent"), "h": h, "c": c}
    if config["aux"]:
        found["aux_decoded"] = decode(aux * masks.get("aux_output", 1.0), "mos_aux_latent")
    return found


# Adaptive softmax --------------------------------------------------------------------------------


def adaptive(hidden, clusters, head, reverse):
    """All log-probabilities of an adaptive softmax.

    Args:
        hidden: (n, d).
        clusters: for each further cluster a function to its logits.
        head: logits of frequent words and clusters.
        reverse: whether the columns of the clusters are in reverse order.
    """
    head = log_softmax(head)
    count = len(clusters)
    words = head.shape[-1] - count
    parts = [head[:, :words]]
    for i, logits in enumerate(clusters):
        column = words + (count - 1 - i if reverse else i)
        parts.append(head[:, column : column + 1] + log_softmax(logits(hidden)))
    return np.concatenate(parts, axis=-1)


# Golden files ------------------------------------------------------------------------------------


def gradient(loss: Callable, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradient of `loss(arrays)` for every array, by complex steps."""
    found = {}
    for name, array in arrays.items():
        grad = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1j * STEP
            grad[index] = np.imag(loss({**arrays, name: moved})) / STEP
        found[name] = grad
    return found


def write_golden(
    path: Path,
    config: dict,
    parameters: dict[str, np.ndarray],
    inputs: dict[str, np.ndarray],
    forward: Callable[[dict, dict], dict[str, np.ndarray]],
    masks: dict[str, np.ndarray] | None = None,
    skip: tuple[str, ...] = (),
    seed: int = 0,
) -> None:
    """Writes a golden file of `forward(parameters, inputs)` with loss and all gradients.

    Args:
        path: the file.
        config: what becomes its `config`.
        parameters: weights by PyTorch name.
        inputs: inputs by name; float ones get gradients.
        forward: to outputs by name.
        masks: dropout masks by name.
        skip: outputs that do not enter the loss.
        seed: of the loss's random weights.
    """
    floats = {name: x.astype(np.float64) for name, x in inputs.items() if x.dtype.kind == "f"}
    others = {name: x for name, x in inputs.items() if x.dtype.kind != "f"}
    parameters = {name: x.astype(np.float64) for name, x in parameters.items()}
    outputs = forward(parameters, {**floats, **others})
    rng = np.random.default_rng(seed)
    coef = {k: single(rng.normal(size=np.shape(x))) for k, x in outputs.items() if k not in skip}

    def loss(arrays):
        given = {name: arrays[f"param/{name}"] for name in parameters}
        read = {name: arrays[f"in/{name}"] for name in floats}
        values = forward(given, {**read, **others})
        return sum(np.sum(coef[k] * values[k]) for k in coef)

    variables = {f"param/{k}": x for k, x in parameters.items()}
    variables |= {f"in/{k}": x for k, x in floats.items()}
    file = {"config": np.array(json.dumps(config)), "loss": np.real(loss(variables))}
    for name, grad in gradient(loss, variables).items():
        section, _, key = name.partition("/")
        file[f"grad/{key}" if section == "param" else f"grad_in/{key}"] = grad
    file |= {f"coef/{k}": x for k, x in coef.items()}
    file |= {f"out/{k}": np.asarray(x) for k, x in outputs.items()}
    file |= {f"mask/{k}": x for k, x in (masks or {}).items()}
    file |= {**variables, **{f"in/{k}": x for k, x in others.items()}}
    as_stored: dict[str, Any] = {
        k: single(x) if x.dtype.kind == "f" else x for k, x in file.items()
    }
    np.savez(path, **as_stored)


def single(x) -> np.ndarray:
    return np.asarray(x, np.float32)
