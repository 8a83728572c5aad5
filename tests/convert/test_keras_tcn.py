"""keras-tcn: its arguments, golden numbers of it, and files of it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from golden_cases.cases import Golden, run_case
from typer.testing import CliRunner

from keras_seq.cli.app import app
from keras_seq.convert import (
    ReferenceWeightsError,
    convert_file,
    keras_tcn_layer,
    load_keras_tcn,
    load_reference,
)
from keras_seq.layers import TCN
from keras_seq.models import SequenceClassifier

FIXTURES = Path(__file__).parent / "fixtures"
FILE = FIXTURES / "keras_tcn.keras"  # keras-tcn itself wrote it: see make_keras_tcn.py
KINDS = ("noskip", "skip", "skip_stacks2", "tanh_noskip")


@pytest.fixture(scope="module")
def answers():
    with np.load(FIXTURES / "keras_tcn_answers.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def model():
    return load_keras_tcn(FILE)


@pytest.mark.parametrize("kind", KINDS)
def test_golden_file_passes(kind, golden):
    result = run_case(golden / f"keras_tcn_layer_{kind}.npz")
    assert result is not None and result.ok and result.exact is None, result
    assert result.forward < 2e-6 and result.gradients < 5e-6


def test_the_branch_is_activated_once_more(golden):
    """Without this, outputs would differ by far more than rounding where there is no ReLU."""
    file = Golden.load(golden / "keras_tcn_layer_tanh_noskip.npz")
    x, answer = file.input("x"), file.arrays["out/out"]
    layer = TCN(5, 3, 3, activation="tanh", weight_normalization=False)
    layer.build(x.shape)
    load_reference(layer, file.parameters)
    assert np.abs(np.asarray(layer(x)) - answer).max() > 0.05


def test_arguments_are_theirs():
    layer = keras_tcn_layer()
    assert layer.units == 64 and len(layer.blocks) == 6 and layer.skip_connections
    assert not layer.return_sequences and layer.receptive_field == 1 + 2 * 2 * 63
    config = keras_tcn_layer(
        [4, 5], 2, 1, (1, 3), use_skip_connections=False, name="a"
    ).get_config()
    assert config["units"] == (4, 5) and config["name"] == "a" and config["spatial_dropout"]
    layer = keras_tcn_layer(4, dilations=(1, 2))
    layer.build((None, None, 3))
    for block in layer.blocks:
        for weight in block.weights:
            assert bool(np.any(weight)) == ("kernel" in weight.name)  # biases begin with zeros
    with pytest.raises(ValueError, match="`use_layer_norm` must be False"):
        keras_tcn_layer(use_batch_norm=True, use_layer_norm=True)
    with pytest.raises(ValueError, match="returns the step in the middle"):
        keras_tcn_layer(padding="same")


def test_a_file_of_theirs_gives_their_answers(model, answers, tmp_path):
    assert [layer.name for layer in model.layers if isinstance(layer, TCN)] == ["tcn_1"]
    np.testing.assert_allclose(model(answers["x"]), answers["y"], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "ours.keras")
    ours = keras.saving.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(ours(answers["x"]), answers["y"], rtol=1e-5, atol=1e-6)


def weights_of(path: Path, tmp_path: Path) -> Path:
    """The weights within a `.keras` file, as `save_weights` writes them."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read("model.weights.h5")
    written = tmp_path / "theirs.weights.h5"
    written.write_bytes(content)
    return written


def test_faults_are_named_and_nothing_is_loaded(model, tmp_path):
    path = weights_of(FILE, tmp_path)
    before = [weight.numpy().copy() for weight in model.weights]
    with h5py.File(path, "r+") as file:
        del file["layers/dense/vars/1"]
        kernel = np.asarray(file["layers/tcn/residual_block_1/conv1D_0/vars/0"])
        del file["layers/tcn/residual_block_1/conv1D_0/vars/0"]
        file["layers/tcn/residual_block_1/conv1D_0/vars/0"] = kernel[:1]
    with pytest.raises(ReferenceWeightsError, match=r"conv1D_0/kernel` must be \(3, 5, 6\)"):
        load_keras_tcn(path, model)
    with h5py.File(path, "r+") as file:
        del file["layers/tcn/residual_block_1/conv1D_0/vars/0"]
        file["layers/tcn/residual_block_1/conv1D_0/vars/0"] = kernel
    with pytest.raises(ReferenceWeightsError, match=r"missing: `layers/dense/bias` \(2,\)"):
        load_keras_tcn(path, model)
    other = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(4)])
    with pytest.raises(ReferenceWeightsError, match="layers of the class TCN"):
        load_keras_tcn(path, other)
    for was, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(was, weight)


def test_the_command_writes_the_model_of_the_file(theirs, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["convert", *map(str, arguments)])

    to = tmp_path / "ours.keras"
    result = call(theirs, "--to", to)
    assert result.exit_code == 0, result.output
    assert f"{to}: 162 parameters of the Keras model" in result.stdout
    x = np.ones((2, 5, 3), "float32")
    want = load_keras_tcn(theirs)(x)
    np.testing.assert_allclose(keras.saving.load_model(to)(x), want, rtol=1e-6)
    sizes = ["features=3", "classes=2", "units=4", "levels=2", "kernel_size=2"]
    sizes += ["skip_connections=true", "branch_activation=true", "weight_normalization=false"]
    options = [part for size in sizes for part in ("--set", size)]
    result = call(theirs, "tcn_seq_mnist", *options, "--to", tmp_path / "zoo.weights.h5")
    assert result.exit_code == 0, result.output
    for arguments in ((weights_of(theirs, tmp_path),), (theirs, "--set", "units=3")):
        refused = call(*arguments, "--to", to)
        assert refused.exit_code == 2 and "Give the MODEL" in refused.stderr


def test_links_to_other_files_are_not_followed(model, tmp_path):
    path = weights_of(FILE, tmp_path)
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/2"] = h5py.ExternalLink("/etc/passwd", "a")
    with pytest.raises(ReferenceWeightsError, match=r"`layers/dense/vars/2` is a link"):
        load_keras_tcn(path, model)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(ReferenceWeightsError, match="must be a file with a layer of keras-tcn"):
        load_keras_tcn(path)
    path.write_bytes(FILE.read_bytes()[:900])
    with pytest.raises(ReferenceWeightsError, match=r"other\.keras: it cannot be read as a .keras"):
        load_keras_tcn(path)
    with pytest.raises(ReferenceWeightsError, match="no such file"):
        load_keras_tcn(tmp_path / "none.keras")
    with pytest.raises(ReferenceWeightsError, match="nowhere.weights.h5: no such file"):
        load_reference(TCN(4, 1), tmp_path / "nowhere.weights.h5")


def write_theirs(path: Path, arrays: dict[str, Any], config: dict[str, Any]) -> None:
    """A file in the layout of keras-tcn 3.5.7: a `TCN`, and a `Dense` after it."""
    inputs = keras.Input((None, 3))
    ours = keras_tcn_layer(**config)
    made = keras.Model(inputs, keras.layers.Dense(2, name="dense")(ours(inputs)))
    text = json.loads(made.to_json())
    for layer in text["config"]["layers"]:
        if layer["class_name"] == "TCN":
            layer |= {"module": "tcn.tcn", "registered_name": "Custom>TCN", "config": config}
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name}"] = array
        for group in ("dense", "tcn"):
            file.require_group(f"layers/{group}/vars").attrs["name"] = group
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(text))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")


@pytest.fixture
def theirs(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for block, width in enumerate((3, 4)):
        for place, features in enumerate((width, 4)):
            name = f"tcn/residual_block_{block}/conv1D_{place}/vars"
            kernel = rng.normal(size=(2, features, 4)) / 3
            arrays |= {f"{name}/0": kernel, f"{name}/1": np.ones(4)}
    name = "tcn/residual_block_0/matching_conv1D/vars"
    arrays |= {f"{name}/0": rng.normal(size=(1, 3, 4)), f"{name}/1": np.ones(4)}
    arrays |= {"dense/vars/0": rng.normal(size=(4, 2)), "dense/vars/1": np.ones(2)}
    config = {"name": "tcn", "nb_filters": 4, "kernel_size": 2, "dilations": [1, 2]}
    write_theirs(tmp_path / "theirs.keras", arrays, {**config, "return_sequences": True})
    return tmp_path / "theirs.keras"


def test_weights_alone_go_into_a_model_of_the_same_layers(theirs, tmp_path):
    model = load_keras_tcn(theirs)
    x = np.random.default_rng(1).normal(size=(2, 7, 3)).astype("float32")
    wanted = np.asarray(model(x))
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    path = weights_of(theirs, tmp_path)
    assert load_keras_tcn(path, model) is model
    np.testing.assert_allclose(model(x), wanted, rtol=1e-6)
    with pytest.raises(ReferenceWeightsError, match="`model` must be given"):
        load_keras_tcn(path)


def test_layers_and_classifiers_of_ours_take_the_weights(theirs, tmp_path):
    whole = load_keras_tcn(theirs)
    x = np.random.default_rng(1).normal(size=(2, 7, 3)).astype("float32")
    layer = keras_tcn_layer(4, 2, 1, (1, 2), return_sequences=True)
    layer.build(x.shape)
    load_keras_tcn(theirs, layer)
    np.testing.assert_allclose(whole.layers[-1](layer(x)), whole(x), rtol=1e-5, atol=1e-6)
    core = keras_tcn_layer(4, 2, 1, (1, 2), return_sequences=True)
    classifier = SequenceClassifier(core, 2, return_sequences=True)
    classifier.build(x.shape)
    load_reference(classifier, theirs)
    logits = np.asarray(whole(x))
    wanted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(classifier(x), wanted, rtol=1e-4, atol=1e-5)
    convert_file(theirs, classifier, tmp_path / "ours.weights.h5")
    with pytest.raises(ReferenceWeightsError, match="has not one layer of keras-tcn"):
        load_keras_tcn(FILE, layer)
    normalised = TCN(4, 2, skip_connections=True)
    normalised.build(x.shape)
    with pytest.raises(ReferenceWeightsError, match="must have no normalised weights"):
        load_keras_tcn(theirs, normalised)
