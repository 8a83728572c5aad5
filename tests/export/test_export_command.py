"""`keras-seq export`, with the weights that ship."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from keras_seq.cli.app import app
from keras_seq.export import litert

SHIPPED = ("trellisnet_python_docs", "--weights", "python_docs")


def call(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_options_reach_the_folder(tmp_path):
    options = ("--name", "docs", "--version", 7, "--top-k", 3, "--max-length", 5)
    options = (*options, "--stop", "<eos>", "--ban", "e", "--ban", "t", "--beams", 2)
    result = call(*SHIPPED, "--to", tmp_path, *options, "--weights-as", "int8", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    folder = tmp_path / "docs" / "7"
    assert document["path"] == str(folder)
    assert document["left_out"] == {}
    assert {"log_probs", "text", "generate", "step", "initial_state"} < set(document["signatures"])
    description = json.loads((folder / "assets.extra" / "keras_seq.json").read_text())
    assert description["weights_as"] == "int8"
    assert description["recipe"]["name"] == "trellisnet_python_docs"
    assert (description["text"]["top_k"], description["text"]["max_length"]) == (3, 5)
    assert "beam_search" in document["signatures"] and description["text"]["beams"] == 2
    assert len(description["text"]["stop_ids"]) == 1 and len(description["text"]["ban_ids"]) == 2
    served = tf.saved_model.load(str(folder)).signatures
    assert served["text"](text=tf.constant(["The "]))["tokens"].shape == (1, 3)
    # A taken version is told.
    again = call(*SHIPPED, "--to", tmp_path, *options, "--json")
    assert again.exit_code == 1
    assert "Version 7 exists already" in json.loads(again.stdout)["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights-as", "int4"), "--weights-as must be one of: int8, bfloat16. Received: int4."),
        (("--format", "onnx"), "--format must be one of: savedmodel, litert. Received: onnx."),
        (("--format", "litert", "--weights-as", "bfloat16"), "int8 or none. Received: bfloat16."),
        (("--top-k", "0"), "--top-k"),
        (("--version", "0"), "--version"),
    ],
)
def test_wrong_options_are_wrong_usage(tmp_path, options, message):
    result = call(*SHIPPED, "--to", tmp_path / "served", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
def test_litert(tmp_path, monkeypatch):
    """All of a model; a part of it; none."""
    options = ("pru_python_docs", "--weights", "python_docs", "--to", tmp_path, "--format")
    options = (*options, "litert")
    result = call(*options)
    assert result.exit_code == 0, result.stderr
    path = Path(tmp_path / "pru_python_docs_litert" / "1")
    assert (path / "model.tflite").is_file()
    assert f"{path}: written, with log_probs, step, initial_state." in result.stdout
    lacking = ["log_probs"]

    def converted(folder, signatures, kind):
        return b"", {name: "it does not run" for name in signatures if name in lacking}

    monkeypatch.setattr(litert, "_converted", converted)
    result = call(*options)
    assert "written, with step, initial_state." in result.stdout
    assert "Left out: log_probs, since it does not run" in result.stdout
    lacking.append("step")
    refused = call(*options)
    assert refused.exit_code == 1
    assert "cannot be a LiteRT file. log_probs: it does not run" in refused.stderr
