"""Golden files of the pyramidal recurrent unit, of the release and of other sizes."""

import json

import keras
import numpy as np
import pytest
from convert import numpy_reference as reference
from convert.test_fresh_sizes import Draw, passes
from golden_cases.cases import run_case

from keras_seq.convert import ReferenceWeightsError, bind, load_reference
from keras_seq.layers import LSTM, PRU, PyramidalTransform


def test_every_golden_file_passes(golden):
    results = [run_case(path) for path in sorted(golden.glob("pru_*.npz"))]
    assert len(results) == 17
    for result in results:
        assert result is not None
        assert result.ok, (result.name, result.faults)
        # Far inside of the bounds: an error of the formula would not hide below them.
        assert result.forward < 2e-6 and result.gradients < 5e-6, result


# The conventions again, in NumPy; complex numbers are for the gradients (see numpy_reference).


def pyramid(p, x, levels, prefix=""):
    """The four gates f, g, i, o of (..., d)."""
    by_level, source = [], x
    for level in range(levels):
        if level:
            size = 2 * (levels - level) + 1
            padded = np.zeros((*x.shape[:-1], source.shape[-1] + size - 1), source.dtype)
            padded[..., size // 2 : size // 2 + source.shape[-1]] = source
            starts = range(0, source.shape[-1], 2)
            source = np.stack([padded[..., s : s + size].sum(-1) / size for s in starts], axis=-1)
        weight, bias = (p[f"{prefix}pyramid.{level}.{kind}"] for kind in ("weight", "bias"))
        by_level.append(np.split(source @ weight.T + bias, 4, axis=-1))
    blocks = [np.concatenate(gate, axis=-1) for gate in zip(*by_level, strict=True)]
    return [block + x if block.shape[-1] == x.shape[-1] else block for block in blocks]


def grouped(p, h, prefix=""):
    """The four gates of (..., n)."""
    kernel, bias = p[f"{prefix}W"], p[f"{prefix}bias"]
    parts = np.split(h, len(kernel), axis=-1)
    by_group = [
        np.split(part @ k + b, 4, axis=-1) for part, k, b in zip(parts, kernel, bias, strict=True)
    ]
    return [np.concatenate(gate, axis=-1) for gate in zip(*by_group, strict=True)]


def run(step, xs, h, c):
    outputs = []
    for x in xs:
        f, g, i, o = step(x, h)
        c = reference.sigmoid(f) * c + reference.sigmoid(i) * np.tanh(g)
        h = reference.sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def pru_step(p, levels, prefix=""):
    def step(x, h):
        transforms = pyramid(p, x, levels, f"{prefix}pt."), grouped(p, h, f"{prefix}glt.")
        return [a + b for a, b in zip(*transforms, strict=True)]

    return step


def lstm_step(p, prefix=""):
    def step(x, h):
        pre = x @ p[f"{prefix}weight_ih_l0"].T + p[f"{prefix}bias_ih_l0"]
        pre = pre + h @ p[f"{prefix}weight_hh_l0"].T + p[f"{prefix}bias_hh_l0"]
        i, f, g, o = np.split(pre, 4, axis=-1)
        return f, g, i, o

    return step


def pyramid_parameters(draw, inputs, units, levels, prefix=""):
    upper = [-(-units // 2 ** (level + 1)) for level in range(1, levels)]
    found = {}
    for level, width in enumerate([units - sum(upper), *upper]):
        found[f"{prefix}pyramid.{level}.weight"] = draw.normal(4 * width, inputs)
        found[f"{prefix}pyramid.{level}.bias"] = draw.normal(4 * width)
        inputs = -(-inputs // 2)
    return found


def grouped_parameters(draw, units, groups, prefix=""):
    shape = (groups, units // groups, 4 * units // groups)
    return {f"{prefix}W": draw.normal(*shape), f"{prefix}bias": draw.normal(*shape[::2])}


def pru_parameters(draw, inputs, units, levels, groups, prefix=""):
    return {
        **pyramid_parameters(draw, inputs, units, levels, f"{prefix}pt."),
        **grouped_parameters(draw, units, groups, f"{prefix}glt."),
    }


def test_transforms_of_other_sizes(tmp_path, capsys):
    draw = Draw(1)
    config = {"nhid": 6, "ninp": 7, "k": 3}
    reference.write_golden(
        tmp_path / "pru_pyramidal_fresh.npz",
        config,
        pyramid_parameters(draw, 7, 6, 3),
        {"x": draw.normal(2, 1, 7, scale=1)},
        lambda p, given: dict(zip("fgio", pyramid(p, given["x"][:, 0], 3), strict=True)),
    )
    passes(tmp_path / "pru_pyramidal_fresh.npz", capsys)
    (tmp_path / "pru_pyramidal_fresh.npz").unlink()
    reference.write_golden(
        tmp_path / "pru_grouped_linear_fresh.npz",
        {"n": 9, "groups": 3},
        grouped_parameters(draw, 9, 3),
        {"h": draw.normal(1, 2, 9, scale=1)},
        lambda p, given: dict(zip("fgio", grouped(p, given["h"][0]), strict=True)),
    )
    passes(tmp_path / "pru_grouped_linear_fresh.npz", capsys)


def test_layer_of_other_sizes(tmp_path, capsys):
    draw = Draw(2)
    config = {"hidden_size": 6, "input_size": 6, "k": 2, "groups": 3}

    def forward(p, given):
        y, h, c = run(pru_step(p, 2), given["x"], given["h0"][0], given["c0"][0])
        return {"y": y, "h_last": h[None], "c_last": c[None]}

    path = tmp_path / "pru_layer_fresh.npz"
    inputs = {"x": draw.normal(4, 2, 6, scale=1), "h0": draw.normal(1, 2, 6)}
    inputs["c0"] = draw.normal(1, 2, 6)
    reference.write_golden(path, config, pru_parameters(draw, 6, 6, 2, 3), inputs, forward)
    passes(path, capsys)


@pytest.mark.parametrize("kind", ["PRU", "LSTM"])
def test_language_model_of_other_sizes(kind, tmp_path, capsys):
    draw = Draw(3)
    config = {"ntoken": 5, "ninp": 2, "nhid": 4, "nlayers": 2, "rnn_type": kind}
    config |= {"k": 1, "g": 2, "tie_weights": True}
    parameters = {"encoder.weight": draw.normal(5, 2), "decoder.bias": draw.normal(5)}
    inputs = {"tokens": draw.ids(5, 3, 2), "targets": draw.ids(5, 3, 2)}
    for index, (width, units) in enumerate([(2, 4), (4, 2)]):
        prefix = f"rnns.{index}."
        if kind == "PRU":
            parameters |= pru_parameters(draw, width, units, 1, 2, prefix)
        else:
            for name, columns in (("ih", width), ("hh", units)):
                parameters[f"{prefix}weight_{name}_l0"] = draw.normal(4 * units, columns)
                parameters[f"{prefix}bias_{name}_l0"] = draw.normal(4 * units)
        inputs |= {f"{s}0_{index}": draw.normal(1, 2, units) for s in "hc"}

    def forward(p, given):
        x, outputs = p["encoder.weight"][given["tokens"]], {}
        for i in range(2):
            step = pru_step(p, 1, f"rnns.{i}.") if kind == "PRU" else lstm_step(p, f"rnns.{i}.")
            x, h, c = run(step, x, given[f"h0_{i}"][0], given[f"c0_{i}"][0])
            outputs |= {f"raw_{i}": x, f"h_last_{i}": h[None], f"c_last_{i}": c[None]}
        logits = x @ p["encoder.weight"].T + p["decoder.bias"]
        nll = reference.pick(reference.log_softmax(logits), given["targets"])
        return {
            **outputs,
            "logits": logits,
            "ce": np.mean(nll),
            "ar_alpha2": 2 * np.mean(x * x),
            "tar_beta1": np.mean((x[1:] - x[:-1]) ** 2),
        }

    path = tmp_path / f"pru_lm_fresh_{kind.lower()}.npz"
    reference.write_golden(path, config, parameters, inputs, forward)
    passes(path, capsys)


def test_weights_that_do_not_fit_are_refused(golden):
    with np.load(golden / "pru_layer_B.npz") as file:
        arrays = {k.removeprefix("param/"): file[k] for k in file if k.startswith("param/")}
    layer = PRU(16, levels=3, groups=2)
    layer.build((None, None, 8))
    with pytest.raises(ReferenceWeightsError, match=r"missing: `pt.pyramid.2.weight`"):
        load_reference(layer, arrays)
    learned = PyramidalTransform(8, subsampling="convolution")
    learned.build((None, 8))
    with pytest.raises(ValueError, match="the release has none"):
        load_reference(learned, {})
    dense = PRU(8, context_transform="pyramidal")
    dense.build((None, None, 4))
    with pytest.raises(ValueError, match="must have a pyramidal input"):
        load_reference(dense, {})


def test_dropped_recurrent_weights_of_an_lstm(golden):
    """A wrapper for weight dropout renames the recurrent kernel."""
    rng = np.random.default_rng(0)
    arrays = {
        "rnns.0.module.weight_ih_l0": rng.normal(size=(8, 3)),
        "rnns.0.weight_hh_l0_raw": rng.normal(size=(8, 2)),
        "rnns.0.module.bias_ih_l0": rng.normal(size=8),
        "rnns.0.module.bias_hh_l0": rng.normal(size=8),
    }
    layer = LSTM(2)
    layer.build((None, None, 3))
    load_reference(layer, arrays)
    i, f, g, o = np.split(arrays["rnns.0.weight_hh_l0_raw"], 4)
    want = np.concatenate([f, g, i, o]).T
    np.testing.assert_allclose(layer.cell.context_transform.kernel[0], want, atol=1e-6)


RELEASED = {
    ("pru_ptb_word", "g1"): "pru_ptb_g1",
    ("pru_ptb_word", "g2"): "pru_ptb_g2",
    ("pru_ptb_word", None): "pru_ptb_g4",
    ("lstm_ptb_word", None): "pru_repo_lstm_ptb_1000",
    ("pru_ptb_word_single", "k4_g1"): "pru_ablation_single600_k4_g1",
    ("lstm_ptb_word_single", None): "pru_ablation_single600_lstm",
}


@pytest.mark.parametrize(("name", "variant"), RELEASED)
def test_names_and_shapes_of_the_release_fit_the_zoo(name, variant, golden, monkeypatch):
    from keras_seq import zoo

    zeros = keras.initializers.Zeros()  # the values do not matter, and large ones take long
    monkeypatch.setattr(
        keras.initializers.Orthogonal, "__call__", lambda self, shape, dtype=None: zeros(shape)
    )
    counts = json.loads((golden / "parameter_counts.json").read_text())[RELEASED[name, variant]]
    zero = np.float32(0)
    arrays = {key: np.broadcast_to(zero, shape) for key, shape in counts["shapes"].items()}
    model = getattr(zoo, name)(variant=variant)
    bindings = bind(model, arrays)
    assert len(bindings) == len(arrays) == len(model.weights)
    assert model.count_params() == counts["parameters"]
