"""Two devices train as one does with the same whole batch; checkpoints, figures, masks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import TINY_TEXT, TRAINED, asked_names, on_a_tiny_text

from keras_seq import training, zoo
from keras_seq.training.strategy import check_cluster, resolve

CONSTANT = {"schedule.name": "constant"}
TRELLIS = {**on_a_tiny_text("trellisnet_python_docs"), **CONSTANT, "model.levels": 3}
CLIPPED_SGD = {
    **TRELLIS,
    "optimizer.name": "SGD",
    "optimizer.learning_rate": 2.0,
    "optimizer.global_clipnorm": 0.2,
    "optimizer.l2": 1e-4,
    "model.auxiliary_frequency": 1,
    "model.auxiliary_weight": 0.3,
}
DROPOUT = {
    "model.embedding_dropout": 0.1,
    "model.input_dropout": 0.2,
    "model.hidden_dropout": 0.2,
    "model.weight_dropout": 0.2,
}
CASES = {
    # The embedding, tied to the softmax, gets a sparse and a dense gradient; lanes carry state.
    "sgd": {"recipe": "trellisnet_python_docs", "changes": CLIPPED_SGD},
    "resumed": {
        "recipe": "trellisnet_python_docs",
        "changes": {**TRELLIS, **DROPOUT, "model.levels": 2},
        "resume": 7,
    },
    "extra": True,
}
MORE = {
    "adam": {"recipe": "trellisnet_python_docs", "changes": TRELLIS},
    "averaged_adaptive": {
        "recipe": "trellisnet_python_docs",
        "changes": {
            **TRELLIS,
            "optimizer.name": "NTASGD",
            "optimizer.learning_rate": 2.0,
            "optimizer.global_clipnorm": 0.2,
            "optimizer.options": {"average_from": 5},
            "model.head": "adaptive",
            "model.cutoffs": [5],
            "model.weight_normalization": False,
        },
    },
    # Rows of different length; batches that two devices do not divide evenly.
    "series": {
        "recipe": "tcn_japanese_vowels",
        "changes": {
            **CONSTANT,
            "data.name": "series_classification",
            "data.batch_size": 5,
            "data.eval_batch_size": 7,
            "data.options": {"buckets": 3},
            "model.units": 4,
            "model.levels": 2,
            "model.dropout": 0.0,
            "epochs": 4,
        },
    },
}
# One small model of every family of the zoo.
SGD = {"optimizer.name": "SGD", "optimizer.learning_rate": 0.3, "optimizer.global_clipnorm": 0.2}
FAMILY_CASES = {
    name: {"recipe": name, "changes": {**TINY_TEXT, **CONSTANT, **SGD, **changes}}
    for name, changes in TRAINED.items()
}


def on_devices(folder: Path, cases: dict) -> dict:
    """What the program prints, on a text of 20 batches and on 32 series."""
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 4 * 8 * 20 + 8 + 60)
    text = letters.astype("uint8").tobytes()
    (folder / "train.txt").write_bytes(text[:-60])
    (folder / "valid.txt").write_bytes(text[-60:])
    rng = np.random.default_rng(1)
    series = [rng.normal(i % 2, 1, (2, 3 + i % 7)).round(3).astype(str) for i in range(32)]
    rows = [":".join([*map(",".join, values), "ab"[i % 2]]) for i, values in enumerate(series)]
    for split in ("TRAIN", "TEST"):
        lines = ["@classLabel true a b", "@data", *rows]
        (folder / f"Two_{split}.ts").write_text("\n".join(lines))
    program = Path(__file__).with_name("on_devices.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, str(program), str(folder), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=570,
        env=environment,
        check=False,
    )
    if result.returncode:
        pytest.fail(result.stderr[-4000:])
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return on_devices(tmp_path_factory.mktemp("devices"), CASES)


def check_equal(result: dict) -> None:
    """Weights, optimizer, carried state, and every figure after every step and epoch."""
    assert result["apart"].keys() == {"model", "optimizer", "carried"}
    assert max(result["apart"].values()) < 1e-6, result["apart"]
    one, two = result["steps"]
    assert len(one) == len(two) == 20
    for step_of_one, step_of_two in zip(one, two, strict=True):
        assert step_of_two == pytest.approx(step_of_one, rel=1e-5)
    assert result["rows"][1] == pytest.approx(result["rows"][0], rel=1e-5)
    assert result["evaluated"][1] == pytest.approx(result["evaluated"][0], rel=1e-6)
    assert result["evaluated"][1] == pytest.approx(result["rows"][1]["val_loss"], rel=1e-6)


@pytest.mark.slow
def test_clipped_sgd_with_carried_state_and_deep_supervision(results):
    check_equal(results["sgd"])
    assert results["sgd"]["status"] == {"replicas": 2, "workers": 1, "index": 0}


@pytest.mark.slow
def test_other_optimizers_and_heads(tmp_path):
    for name, result in on_devices(tmp_path, MORE).items():
        try:
            check_equal(result)
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.fixture(scope="module")
def of_families(tmp_path_factory, request):
    cases = {name: FAMILY_CASES[name] for name in asked_names(request)}
    return on_devices(tmp_path_factory.mktemp("families"), cases)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY_CASES)
def test_every_family(of_families, name):
    check_equal(of_families[name])


def test_every_family_of_the_zoo_is_there():
    families = {zoo.recipe(name).family for name in zoo.names()}
    assert {zoo.recipe(name).family for name in TRAINED} == families


@pytest.mark.slow
def test_resumed_to_the_last_bit_with_dropout(results):
    result = results["resumed"]
    assert {"carried", "metrics", "replicas", "replicas_metrics"} <= set(result["groups"])
    assert max(result["resumed"].values()) == 0.0, result["resumed"]


@pytest.mark.slow
def test_uneven_last_batch(results):
    one, two = results["uneven"]
    for a, b in zip(one, two, strict=True):
        assert np.allclose(_flat(a), _flat(b), atol=1e-6)


@pytest.mark.slow
def test_masks_differ_between_devices_and_come_again_with_the_seed(results):
    first, second = results["masks"]
    assert first == second
    drawn = {json.dumps(mask) for call in first for mask in call}
    assert len(drawn) == 4


@pytest.mark.slow
def test_same_devices_are_one_strategy(results):
    assert results["same"]
    assert "5 logical devices" in results["late"]
    assert "2" in results["late"]


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("both", None, "`strategy` must be one of"),
        ("mirrored", "TPU:0", "names like GPU:0"),
        ("mirrored", "CPU:0,cpu:0", "different devices"),
        ("mirrored", "GPU:7", "GPUs. Received"),
        ("mirrored", 0, "positive"),
        ("one", "CPU:0,CPU:1", "takes one device"),
        ("multi_worker", 2, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_wrong_devices(name, devices, message):
    with pytest.raises(ValueError, match=message):
        training.strategy(name, devices)


def test_one_device_is_the_present_strategy():
    assert training.strategy("one") is resolve(None)
    assert training.strategy(None).num_replicas_in_sync == 1
    with pytest.raises(ValueError, match="which has its own"):
        resolve(training.strategy("one"), "CPU:0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it is not set"),
        ("{", "can not be read"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "not among"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "neither"),
    ],
)
def test_wrong_cluster(monkeypatch, text, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        check_cluster()


def test_the_table_of_bytes_holds_the_zoo():
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    for name in zoo.names():
        recipe = zoo.recipe(name)
        row = re.search(rf"^\| `{name}` \| ([\d,]+) \| ([\d,.]+) \|$", page, re.M)
        assert row, f"docs/scaling.md lacks {name}: run `python benchmarks/bench_scaling.py`"
        parameters, megabytes = (float(figure.replace(",", "")) for figure in row.groups())
        assert parameters == recipe.parameters
        assert megabytes == pytest.approx(4e-6 * parameters, abs=0.006)


def _flat(values) -> list[float]:
    return [x for v in values for x in _flat(v)] if isinstance(values, list) else [values]
