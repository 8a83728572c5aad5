"""Trained weights that ship with the package."""

import json
import shutil

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import training, zoo
from keras_seq.pipelines import Vocabulary
from keras_seq.zoo import shipped_weights

SETS = zoo.weights()
every_set = pytest.mark.parametrize("shipped", SETS, ids=lambda s: f"{s.model}-{s.name}")


def test_there_are_some():
    assert ("trellisnet_python_docs", "python_docs") in [(s.model, s.name) for s in SETS]
    assert zoo.weights("no_such_model") == []


@every_set
def test_set_is_whole(shipped):
    """Hashes, recipe, sizes, the model card and what it says."""
    manifest = shipped.manifest
    files = {file.name for file in shipped.folder.iterdir()}
    assert files == {*manifest["sha256"], shipped_weights.MANIFEST}
    for name in manifest["sha256"]:
        shipped.checked(name)
    assert (manifest["model"], manifest["name"]) == (shipped.model, shipped.name)
    assert shipped.recipe.name == shipped.model
    assert f"keras-seq train {shipped.model}" in shipped.card
    assert manifest["command"] in shipped.card
    assert shipped.figures["test"]
    assert sum(file.stat().st_size for file in shipped.folder.iterdir()) < 8e6
    vocabulary = shipped.vocabulary_file
    if "vocabulary_size" in shipped.recipe.model:
        assert Vocabulary.load(vocabulary or "").size == shipped.recipe.model["vocabulary_size"]
    else:
        assert vocabulary is None


@every_set
def test_set_loads(shipped):
    model = getattr(zoo, shipped.model)(weights=shipped.name)
    trained = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    assert trained == shipped.manifest["parameters"]
    fresh = zoo.build(shipped.recipe)
    changed = [
        np.abs(ours - theirs).max() > 1e-4
        for ours, theirs in zip(model.get_weights(), fresh.get_weights(), strict=True)
        if np.issubdtype(ours.dtype, np.floating)
    ]
    assert np.mean(changed) > 0.5
    for weight in model.trainable_weights:  # half precision loses nothing of what was packed
        values = keras.ops.convert_to_numpy(weight)
        np.testing.assert_array_equal(values, values.astype("float16").astype("float32"))


def test_figures_are_those_of_the_card():
    """Of the set without data files; exactly where Python's documentation is the same."""
    (shipped,) = zoo.weights("trellisnet_python_docs")
    figures = training.evaluate("trellisnet_python_docs", weights="python_docs")
    assert figures["weights"] == "python_docs (shipped)"
    expected = shipped.figures["test"]
    same = figures["tokens"] == expected["tokens"]
    assert figures["bits"] == pytest.approx(expected["bits"], rel=1e-4 if same else 0.1)
    assert figures["bits"] < 2.5


@pytest.mark.slow
def test_it_speaks():
    (shipped,) = zoo.weights("trellisnet_python_docs")
    model = zoo.trellisnet_python_docs(weights="python_docs")
    vocabulary = Vocabulary.load(shipped.vocabulary_file or "")
    text = "".join(keras_seq.generation.generate(model, vocabulary, "The ", 120, temperature=0.5))
    words = text.split()
    assert len(words) > 10 and max(map(len, words)) < 25


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match=r"no shipped weights 'ptb' .* are: python_docs\."):
        zoo.trellisnet_python_docs(weights="ptb")
    with pytest.raises(ValueError, match=r"None ship .* There are: .*trellisnet_python_docs \("):
        zoo.trellisnet_ptb_word(weights="ptb")
    with pytest.raises(ValueError, match=r"Or give a file that ends in \.weights\.h5"):
        training.load_model("trellisnet_python_docs", "ptb")
    with pytest.raises(ValueError, match="`weights` bring their own settings"):
        zoo.trellisnet_python_docs(weights="python_docs", variant="released")


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="Leave out settings that change sizes"):
        zoo.trellisnet_python_docs(weights="python_docs", units=7)
    # What changes no size may be set.
    model = zoo.trellisnet_python_docs(weights="python_docs", dtype="mixed_bfloat16")
    assert model.compute_dtype == "bfloat16"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the shipped weights that a test may break."""
    folder = tmp_path / "shipped"
    shutil.copytree(shipped_weights.FOLDER, folder)
    monkeypatch.setattr(shipped_weights, "FOLDER", folder)
    return folder / "trellisnet_python_docs" / "python_docs"


@pytest.mark.parametrize("name", ["model.weights.h5", "recipe.json"])
def test_changed_files_are_refused(name, copied):
    zoo.trellisnet_python_docs(weights="python_docs")
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"not the file that was packed.*are: python_docs"):
        zoo.trellisnet_python_docs(weights="python_docs")
    (copied / name).unlink()
    with pytest.raises(ValueError, match="found: no file"):
        zoo.trellisnet_python_docs(weights="python_docs")


def test_a_changed_vocabulary_is_refused(copied):
    (shipped,) = zoo.weights("trellisnet_python_docs")
    for name in ("vocabulary.txt", "vocabulary.json"):
        kept = (copied / name).read_bytes()
        (copied / name).write_bytes(kept + b"\n")
        with pytest.raises(ValueError, match="not the file that was packed"):
            _ = shipped.vocabulary_file
        (copied / name).write_bytes(kept)
    assert shipped.vocabulary_file is not None


def test_manifest_is_plain_json(copied):
    text = (copied / "manifest.json").read_text()
    assert json.loads(text)["precision"] == "float16"
    assert "/" not in json.loads(text)["command"]
