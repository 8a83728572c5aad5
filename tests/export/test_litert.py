"""Exports as LiteRT files, loaded in a process with TensorFlow alone."""

import json

import keras
import numpy as np
import pytest
from export.bare import Bare
from export.test_zoo_models import DOCS, shipped
from generation.small_models import letters, trellis_model

from keras_seq import zoo
from keras_seq.export import export_model
from keras_seq.pipelines import Vocabulary

WHOLE = ["log_probs", "step", "initial_state"]
STEPS = ["step", "initial_state"]
# What LiteRT's own operations can run of each model; nothing of one that is refused.
RUNS = dict.fromkeys(DOCS, WHOLE) | {
    "pru_python_docs": STEPS,
    "deq_transformer_python_docs": [],
}


def described(folder) -> dict:
    return json.loads((folder / "assets.extra" / "keras_seq.json").read_text())


def check(model, folder, bare: Bare, length: int) -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, model.vocabulary_size, (2, length)).astype("int32")
    signatures = list(described(folder)["signatures"])
    both, first = (keras.ops.convert_to_numpy(model(ids[:rows], training=False)) for rows in (2, 1))
    if "log_probs" in signatures:
        bare.ask(folder, "lite", "log_probs", {"ids": ids})
        bare.ask(folder, "lite", "log_probs", {"ids": ids[:1, :3]})
    bare.ask(folder, "lite_stream", ids[:1])
    *whole, steps = bare.run()
    for answer, want in zip(whole, (both, first[:, :3]), strict=False):
        np.testing.assert_allclose(answer["log_probs"], want, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(steps, first, rtol=1e-5, atol=2e-5)


def test_a_language_model(tmp_path):
    model = trellis_model(10)
    folder = export_model(model, letters(), tmp_path, name="tiny", format="litert")
    assert {path.name for path in folder.iterdir()} == {"model.tflite", "assets", "assets.extra"}
    vocabulary = Vocabulary.load(folder / "assets" / "vocabulary.txt")
    assert vocabulary.tokens == letters().tokens
    description = described(folder)
    assert description["format"] == "litert" and description["left_out"] == {}
    assert list(description["signatures"]) == WHOLE
    assert description["signatures"]["step"]["inputs"]["ids"]["shape"] == [1, 1]
    assert description["signatures"]["log_probs"]["inputs"]["ids"]["shape"] == [None, None]
    check(model, folder, Bare(tmp_path), 9)


@pytest.mark.slow
def test_int8(tmp_path):
    model = trellis_model(10)
    plain = export_model(model, None, tmp_path, format="litert")
    small = export_model(model, None, tmp_path, format="litert", weights_as="int8")
    # Not among the versions that a server polls.
    assert (small.parent.name, small.name) == (f"{model.name}_litert", "2")
    assert described(small)["weights_as"] == "int8"
    files = [folder / "model.tflite" for folder in (plain, small)]
    assert files[1].stat().st_size < files[0].stat().st_size


def test_options_that_do_not_fit(tmp_path):
    model = trellis_model(10)
    with pytest.raises(ValueError, match="float32 or int8 weights"):
        export_model(model, None, tmp_path, format="litert", weights_as="bfloat16")
    with pytest.raises(ValueError, match="`format` must be one of"):
        export_model(model, None, tmp_path, format="onnx")


@pytest.mark.slow
def test_a_model_that_cannot_be_one_is_refused(tmp_path):
    """With the operations that are missing; no version is left behind."""
    model = zoo.deq_transformer_python_docs(units=16, heads=2, inner_units=16)
    with pytest.raises(ValueError, match="cannot be a LiteRT file.*step: .*MatrixDiagPart"):
        export_model(model, None, tmp_path, name="deq", format="litert")
    assert not list((tmp_path / "deq").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCS)
def test_models_of_the_documentation(tmp_path, name):
    model, vocabulary = shipped(name)
    if not RUNS[name]:
        with pytest.raises(ValueError, match="cannot be a LiteRT file"):
            export_model(model, vocabulary, tmp_path, name=name, format="litert")
        return
    folder = export_model(model, vocabulary, tmp_path, name=name, format="litert")
    assert list(described(folder)["signatures"]) == RUNS[name]
    assert set(described(folder)["left_out"]) == set(WHOLE) - set(RUNS[name])
    check(model, folder, Bare(tmp_path), 20)
