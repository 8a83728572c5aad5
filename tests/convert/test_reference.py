"""Reference weights go into models whole or not at all."""

import os
import random
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_seq.convert import (
    ReferenceWeightsError,
    TorchFileError,
    bind,
    convert_file,
    load_reference,
)
from keras_seq.convert.reference import read_arrays
from keras_seq.layers import AdaptiveSoftmax, TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier

FIXTURES = Path(__file__).parent / "fixtures"
CORE: dict[str, Any] = {"units": 7, "output_units": 6, "levels": 6, "weight_normalization": True}


def model(**changes):
    """The model of trellis_lm_tied_wn."""
    core = TrellisNet(**{**CORE, "auxiliary_frequency": 2, **changes})
    built = LanguageModel(37, 6, core)
    built.build((None, None))
    return built


@pytest.fixture
def arrays(golden):
    with np.load(golden / "trellis_lm_tied_wn.npz") as file:
        return {k.removeprefix("param/"): file[k] for k in file if k.startswith("param/")}


def values(built):
    return {weight.path: weight.numpy().copy() for weight in built.weights}


def same(first, second):
    return all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "source",
    [f"trellis_lm{kind}_{form}.pt" for kind in ("", "_checkpoint", "_module") for form in
     ("zip", "legacy")],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same_model(source, golden):
    first, second = model(), model()
    filled = load_reference(first, golden / "trellis_lm_tied_wn.npz")
    assert set(filled) == set(values(first))
    load_reference(second, FIXTURES / source)
    assert same(values(first).values(), values(second).values())
    ids = np.arange(20).reshape(2, 10)
    np.testing.assert_array_equal(first(ids), second(ids))


def test_layouts(arrays):
    built = model()
    load_reference(built, arrays)
    prefix = "tnet.module.full_conv."
    core = built.core
    np.testing.assert_array_equal(
        core.kernel_input[1, 3], arrays[f"{prefix}weight1_v_raw"][:, 3, 1]
    )
    np.testing.assert_array_equal(core.gain_hidden, arrays[f"{prefix}weight2_g"][:, 0, 0])
    bindings = {binding.slot.variable.path: binding for binding in bind(built, arrays)}
    back = bindings[core.kernel_hidden.path].to_reference(core.kernel_hidden.numpy())
    np.testing.assert_array_equal(back[f"{prefix}weight2_v_raw"], arrays[f"{prefix}weight2_v_raw"])


@pytest.mark.parametrize("form", ["{}_v", "{}_v_raw"])
@pytest.mark.parametrize(
    "prefix", ["", "full_conv.", "tnet.module.full_conv.", "network.0.module."]
)
def test_names_of_the_core(form, prefix, arrays):
    """The layer alone, with any of the prefixes and with or without weight dropout's ending."""
    renamed = {}
    for name, array in arrays.items():
        leaf = name.split(".")[-1]
        if "full_conv" in name:
            kernel = re.fullmatch(r"(weight\d)_v_raw", leaf)
            leaf = form.format(kernel[1]) if kernel else leaf
            renamed[prefix + leaf] = array
    layer = TrellisNet(**CORE)
    layer.build((None, None, 6))
    load_reference(layer, renamed)
    np.testing.assert_array_equal(layer.bias, renamed[f"{prefix}bias2"])


FAULTS = {
    "left over": ({"extra": np.zeros((2, 3))}, r"left over: `extra` \(2, 3\)"),
    "missing": (
        {"decoder.bias": None},
        r"missing: `decoder\.bias` \(37,\) for weight `.*bias`",
    ),
    "shape": (
        {"encoder.weight": np.zeros((37, 5))},
        r"`encoder.weight` must be \(37, 6\). Received: \(37, 5\)",
    ),
    "alias": (
        {"decoder.weight": np.zeros((37, 6))},
        "`decoder.weight` and `encoder.weight` are one weight here but differ",
    ),
    "not finite": ({"decoder.bias": np.full(37, np.nan)}, "not finite: `decoder.bias`"),
    "beyond float32": ({"decoder.bias": np.full(37, 1e300)}, "not finite: `decoder.bias`"),
    "type": ({"decoder.bias": np.array(["a"] * 37)}, "must hold numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_and_nothing_is_loaded(name, arrays):
    changes, message = FAULTS[name]
    built = model()
    before = values(built)
    changed = {k: x for k, x in {**arrays, **changes}.items() if x is not None}
    with pytest.raises(ReferenceWeightsError, match=message) as raised:
        load_reference(built, changed)
    assert "nothing was loaded" in str(raised.value)
    assert same(before.values(), values(built).values())


def test_all_faults_are_listed_at_once(arrays):
    built = model(units=8)
    with pytest.raises(ReferenceWeightsError) as raised:
        load_reference(built, {**arrays, "a": np.zeros(1), "b": np.zeros(1)})
    text = str(raised.value)
    assert text.count("left over") == 2 and text.count("shape:") == 5
    assert "`tnet.module.full_conv.bias2` must be (56,). Received: (52,)" in text


def test_normalised_weights_do_not_go_into_a_plain_layer(arrays):
    built = model(weight_normalization=False)
    with pytest.raises(ReferenceWeightsError, match=r"left over: `.*weight1_g` \(52, 1, 1\)"):
        load_reference(built, arrays)


def test_equal_aliases_are_accepted(arrays):
    built = model()
    load_reference(built, {**arrays, "decoder.weight": arrays["encoder.weight"].copy()})
    np.testing.assert_array_equal(built.embedding.embeddings, arrays["encoder.weight"])


def test_double_precision_weights_are_rounded(arrays):
    built = model()
    load_reference(built, {k: x.astype(np.float64) for k, x in arrays.items()})
    np.testing.assert_array_equal(built.embedding.embeddings, arrays["encoder.weight"])


def test_objects_without_mapping_and_unbuilt_ones(tmp_path):
    with pytest.raises(ReferenceWeightsError, match="must be built"):
        load_reference(TrellisNet(**CORE), {})
    dense = keras.layers.Dense(2)
    dense.build((None, 3))
    with pytest.raises(ValueError, match=r"must be of a class with a mapping.*Received.*Dense"):
        load_reference(dense, {})
    path = tmp_path / "x.npz"
    path.write_bytes(b"no npz")
    with pytest.raises(ReferenceWeightsError, match=r"x\.npz: it cannot be read"):
        load_reference(model(), path)


def test_damaged_npz_files_are_named(golden, tmp_path):
    """Whatever is flipped or cut off: an error that names the file, or the arrays as they were."""
    arrays = {"param/a": np.arange(60.0).reshape(3, 20), "param/b": np.zeros(400, "float32")}
    whole, path, draw = tmp_path / "whole.npz", tmp_path / "damaged.npz", random.Random(3)
    refused = 0
    for kind in (np.savez, np.savez_compressed):
        kind(whole, **arrays)
        content = whole.read_bytes()
        for number in range(150):
            data = bytearray(content)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data[: draw.randrange(len(data))] if number % 5 == 0 else data)
            try:
                found = read_arrays(path)
            except ReferenceWeightsError as error:
                assert str(path) in str(error)
                refused += 1
            else:
                for name in set(found) & {"a", "b"}:
                    np.testing.assert_array_equal(found[name], arrays[f"param/{name}"])
    assert refused > 200


def test_only_what_the_model_needs_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(1 << 20, "float32"))
    with pytest.raises(ReferenceWeightsError, match=r"bomb\.npz: .*nothing was unpacked"):
        read_arrays(path, limit=1 << 20)
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    with pytest.raises(ReferenceWeightsError, match=r"pipe\.npz: it is a pipe"):
        load_reference(model(), pipe)


def test_split_softmax_in_a_language_model(arrays):
    """The WikiText-103 model: decoder tied, tails with the criterion."""
    core = TrellisNet(**CORE)
    head = AdaptiveSoftmax(37, cutoffs=(10, 20), form="split", tied=True)
    built = LanguageModel(37, 6, core, head=head)
    built.build((None, None))
    tails = {"tail_vectors": np.ones((2, 6)), "tail_bias": np.ones(2)}
    load_reference(built, {**arrays, **{f"criterion.{k}": x for k, x in tails.items()}})
    np.testing.assert_array_equal(head.cluster_kernel, np.ones((2, 6)))


def test_classifier(golden):
    core = TrellisNet(7, 5, 5, dilation_rate=(1, 1, 2, 4), weight_normalization=True)
    built = SequenceClassifier(core, 5)
    built.build((None, None, 1))
    path = golden / "trellis_seq_classifier_k2.npz"
    filled = load_reference(built, path)
    assert filled[built.dense.kernel.path] == ("linear.weight",)
    with np.load(path) as file:
        x, h0, c0 = (file[f"in/{name}"] for name in ("x", "h0", "c0"))
        state = [h0[..., 0], c0[..., 0]]
        found = built(np.moveaxis(x, 1, 2), initial_state=state)
        np.testing.assert_allclose(found, file["out/log_probs"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["model.weights.h5", "deep/model.keras"])
def test_converted_file(name, tmp_path):
    built = model()
    path = convert_file(FIXTURES / "trellis_lm_legacy.pt", built, tmp_path / name)
    if name.endswith(".keras"):
        loaded = keras.models.load_model(path)
    else:
        loaded = model()
        loaded.load_weights(path)
    ids = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(built(ids), loaded(ids))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_failed_conversions_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"must end in '\.weights\.h5'.*Received.*model\.h5"):
        convert_file(FIXTURES / "trellis_lm_zip.pt", model(), tmp_path / "model.h5")
    with pytest.raises(TorchFileError):
        convert_file(tmp_path / "none.pt", model(), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
