"""TrellisNet against numbers of the original implementation."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.layers import TrellisNet
from keras_seq.ops.products import matrix_product
from keras_seq.ops.time_shift import windows

CASES = [f"trellis_core_k{k}_d{d}_{n}" for k in (2, 3) for d in (1, 124) for n in ("plain", "wn")]
# How the levels run: automatic or written-out gradient, recomputed or not, looped or not.
MODES = {
    "automatic": {"training": False},
    "written_out": {"training": True},
    "rematerialized": {"training": True, "rematerialize": True},
    "loop": {"training": True, "unroll": False},
    "automatic_rematerialized": {
        "training": True,
        "activation": "tanh_lstm",
        "rematerialize": True,
    },
}


@keras.saving.register_keras_serializable("test_trellis_golden")
def function_lstm(pre, previous_hidden, previous_cell):
    """The LSTM as a function, so that the general path runs."""
    i, o, g, f = keras.ops.split(pre, 4, axis=-1)
    cell = keras.ops.sigmoid(f) * previous_cell + keras.ops.sigmoid(i) * keras.ops.tanh(g)
    return keras.ops.sigmoid(o) * keras.ops.tanh(cell), cell


function_lstm.blocks = 4


def to_ours(name, array):
    """Gains and biases as vectors; kernels (4h, d, k) as (k, d, 4h)."""
    if name.endswith(("_g", "bias2")):
        return array.reshape(-1)
    return np.transpose(array, (2, 1, 0))


def close(ours, theirs, tolerance):
    ours = keras.ops.convert_to_numpy(ours)
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_core(case, mode, golden):
    data = np.load(golden / f"{case}.npz")
    config = json.loads(str(data["config"]))
    options = dict(MODES[mode])
    training = options.pop("training")
    if options.get("activation"):
        options["activation"] = function_lstm
    layer = TrellisNet(
        config["nhid"],
        config["nout"],
        config["nlevels"],
        config["kernel_size"],
        tuple(config["dilation"]),
        auxiliary_frequency=config["aux_frequency"],
        weight_normalization=config["wnorm"],
        dtype="float64",
        **options,
    )
    x = tf.constant(np.transpose(data["in/x"], (0, 2, 1)).astype("float64"))
    h, c = (tf.constant(data[f"in/{n}"][..., 0].astype("float64")) for n in ("h0", "c0"))
    layer.build(x.shape)
    suffix = "_v" if config["wnorm"] else ""
    names = {"kernel_input": "weight1" + suffix, "kernel_hidden": "weight2" + suffix}
    names["bias"] = "bias2"
    if config["wnorm"]:
        names.update(gain_input="weight1_g", gain_hidden="weight2_g")
    names = {ours: f"full_conv.{theirs}" for ours, theirs in names.items()}
    for ours, theirs in names.items():
        getattr(layer, ours).assign(to_ours(theirs, data[f"param/{theirs}"]))

    with tf.GradientTape() as tape:
        tape.watch([x, h, c])
        out, aux, (h_last, c_last) = layer(
            x, [h, c], return_state=True, training=training, return_auxiliary=True
        )
        results = {"out": out, "aux": aux, "h_last": h_last[..., None], "c_last": c_last[..., None]}
        loss = sum(tf.reduce_sum(value * data[f"coef/{name}"]) for name, value in results.items())
    for name, value in results.items():
        close(value, data[f"out/{name}"], 1e-6)
    close(loss, data["loss"], 1e-5)
    gradients = tape.gradient(loss, [getattr(layer, name).value for name in names] + [x, h, c])
    for theirs, gradient in zip(names.values(), gradients, strict=False):
        close(gradient, to_ours(theirs, data[f"grad/{theirs}"]), 1e-6)
    close(tf.transpose(gradients[-3], (0, 2, 1)), data["grad_in/x"], 1e-6)
    close(gradients[-2][..., None], data["grad_in/h0"], 1e-6)
    close(gradients[-1][..., None], data["grad_in/c0"], 1e-6)


def test_convolution(golden):
    """The shared convolution alone: zero past for the input, `hid` repeated for the hidden part."""
    data = np.load(golden / "trellis_weight_share_conv.npz")
    config = json.loads(str(data["config"]))
    size, dilation, features = config["kernel_size"], config["dilation"], config["ninp"]
    z, hid = tf.constant(data["in/z"]), tf.constant(data["in/hid"])
    kernels = [tf.constant(to_ours(n, data[f"param/{n}"])) for n in ("weight1", "weight2")]
    bias = tf.constant(data["param/bias2"])
    with tf.GradientTape() as tape:
        tape.watch([z, hid, *kernels, bias])
        sequence = tf.transpose(z, (0, 2, 1))
        past = tf.repeat(tf.transpose(hid, (0, 2, 1)), (size - 1) * dilation, axis=1)
        matrices = [tf.reshape(k, (-1, k.shape[-1])) for k in kernels]
        pre = (
            matrix_product(windows(sequence[..., :features], size, dilation), matrices[0])
            + matrix_product(windows(sequence[..., features:], size, dilation, past), matrices[1])
            + bias
        )
        out = tf.transpose(pre, (0, 2, 1))
        loss = tf.reduce_sum(out * data["coef/out"])
    close(out, data["out/out"], 1e-5)
    gradients = tape.gradient(loss, [*kernels, bias, z, hid])
    names = ("grad/weight1", "grad/weight2", "grad/bias2")
    for gradient, name in zip(gradients, names, strict=False):
        close(gradient, to_ours(name, data[name]), 1e-5)
    close(gradients[-2], data["grad_in/z"], 1e-5)
    close(gradients[-1], data["grad_in/hid"], 1e-5)
