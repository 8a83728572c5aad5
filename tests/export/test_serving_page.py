"""The clients of the serving page, against a stand-in for the server: bodies, shapes, answers."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from export.stand_in import Models, grpc_service, predict_json, rest_service

from keras_seq.export import export_model
from keras_seq.layers import TrellisNet
from keras_seq.models import LanguageModel
from keras_seq.pipelines import Vocabulary

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
BLOCKS = re.findall(r"^```(\S+)[^\n]*\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def block(kind: str, holds: str) -> str:
    (found,) = (text for info, text in BLOCKS if info == kind and holds in text)
    return found


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Address and body of every curl command of the page."""
    found = []
    for kind, text in BLOCKS:
        if kind == "bash" and "curl" in text:
            for command in text.strip().split("\n\n"):
                words = shlex.split(command.replace("\\\n", " "))
                found.append((words[words.index("-s") + 1], json.loads(words[-1])))
    return found


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The model of the page, and what serves it."""
    keras.utils.set_random_seed(2)
    vocabulary = Vocabulary(["<eos>", "<unk>", "the", "cat", "sat", "on", "mat", "dog"])
    core = TrellisNet(units=24, output_units=16, levels=6)
    model = LanguageModel(vocabulary.size, embedding_dim=16, core=core)
    to = tmp_path_factory.mktemp("page")
    folder = export_model(model, vocabulary, to=to, name="words")
    return model, Models({"words": folder})


def test_bodies_fit_the_signatures(words):
    model, models = words
    asked = bodies()
    assert {body.get("signature_name", "serving_default") for _, body in asked} == {
        *("serving_default", "text", "generate", "initial_state"),
    }
    for address, body in asked:
        assert address == "localhost:8501/v1/models/words:predict"
        answer = predict_json(models, "words", body)
        answer = answer.get("outputs", answer.get("predictions"))
        assert answer
        match body.get("signature_name"):
            case "text" if "inputs" in body:
                assert np.shape(answer["scores"]) == (len(body["inputs"]["text"]), 8)
            case "text":
                assert len(answer) == len(body["instances"])
                assert {len(row["tokens"]) for row in answer} == {8}
            case "generate":
                assert np.shape(answer["ids"]) == (len(body["inputs"]["text"]), 20)
            case None:
                want = model(np.array(body["inputs"]["ids"]), training=False).numpy()
                np.testing.assert_allclose(answer, want, rtol=1e-5, atol=1e-5)


def test_wrong_bodies_are_refused(words):
    _, models = words
    for body in (
        {"inputs": {"ids": [1, 2]}},
        {"inputs": {"id": [[1, 2]]}},
        {"signature_name": "text"},
        {"signature_name": "generate", "inputs": {"text": ["the"]}},
    ):
        with pytest.raises(ValueError, match="shape|inputs"):
            predict_json(models, "words", body)


def test_the_rest_client_runs(words):
    model, models = words
    source = block("python", "urllib.request")
    with rest_service(models) as address:
        names: dict[str, Any] = {}
        exec(source.replace("localhost:8501", address), names)
        answer = names["predict"]("step", ids=[[5]], **names["state"])
    want = model(np.array([[2, 3, 4, 5]]), training=False).numpy()
    np.testing.assert_allclose(answer["log_probs"], want[:, -1:], rtol=1e-5, atol=1e-5)


def test_the_grpc_client_runs(words, capsys):
    pytest.importorskip("tensorflow_serving")
    model, models = words
    source = block("python", "insecure_channel")
    with grpc_service(models) as address:
        names: dict[str, Any] = {}
        exec(source.replace("localhost:8500", address), names)
        want = model(np.array([[2, 3, 4]]), training=False).numpy()
        np.testing.assert_allclose(names["log_probs"], want, rtol=1e-5, atol=1e-5)
        names["channel"].close()
    assert "cat" in capsys.readouterr().out


def test_the_server_is_started_with_the_folder_that_is_polled():
    """The versions' folder goes where the image looks for the model of that name."""
    words = shlex.split(block("bash", "docker run").replace("\\\n", " "))
    assert words[:2] == ["docker", "run"]
    name = next(word for word in words if word.startswith("MODEL_NAME=")).split("=")[1]
    assert f"target=/models/{name}" in words[words.index("--mount") + 1]
    assert words[-1].startswith("tensorflow/serving")
    assert [words[i + 1] for i, word in enumerate(words) if word == "-p"] == [
        "8500:8500",
        "8501:8501",
    ]
