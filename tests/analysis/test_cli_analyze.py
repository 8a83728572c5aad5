"""`keras-seq analyze` from a run to its files."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_seq import training, zoo
from keras_seq.cli.app import app


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run on words."""
    folder = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["a", "cat", "dog", "sits", "runs"], (60, 6))
    lines = [" ".join(row) for row in words]
    for name, part in (("train", lines[:40]), ("valid", lines[40:50]), ("test", lines[50:])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n")
    recipe = zoo.recipe("pru_python_docs").replace(
        **{
            "data.name": "text",
            "data.options": {"cache_dir": False, "level": "word"},
            "data.batch_size": 4,
            "data.eval_batch_size": 2,
            "data.length": 8,
            "model.embedding_dim": 8,
            "model.units": 8,
            "model.layers": 1,
            "model.groups": 2,
        }
    )
    run_dir = tmp_path_factory.mktemp("run") / "run"
    return training.train(recipe, folder, run_dir=run_dir, epochs=1, verbose=0)


@pytest.fixture(scope="module")
def numbers(run, tmp_path_factory):
    """What the command prints with every option."""
    pytest.importorskip("matplotlib")
    tags = tmp_path_factory.mktemp("tags") / "tags.tsv"
    tags.write_text("cat\tnoun\ndog\tnoun\nsits\tverb\nruns\tverb\nowl\tnoun\n")
    stored = run.weights_file.read_bytes()
    result = call("analyze", run.folder, "--tags", tags, "--text", "a cat sits", "--json")
    if result.exit_code or run.weights_file.read_bytes() != stored:
        pytest.fail(f"the command failed, or changed the weights: {result.stderr}")
    return json.loads(result.stdout)


def test_analyze(run, numbers):
    folder = run.folder / "analysis"
    assert json.loads((folder / "analysis.json").read_text()) == numbers
    for name in ("entropy", "saliency", "embeddings"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    evaluated = json.loads(call("evaluate", run.folder, "--json").stdout)
    assert numbers["entropy"]["tokens"] == evaluated["tokens"] == sum(numbers["entropy"]["counts"])
    assert numbers["entropy"]["loss"] == pytest.approx(evaluated["nll"], rel=1e-5)
    assert numbers["saliency"]["tokens"] == ["a", "cat", "sits"]
    tops = [[share for _, share in row["top"]] for row in numbers["saliency"]["predictions"]]
    assert [len(top) for top in tops] == [5, 5, 5]
    assert all(top == sorted(top, reverse=True) for top in tops)
    assert np.shape(numbers["saliency"]["norms"]) == (3, 3)
    assert 0 < numbers["coverage"]["passages"] <= 1
    bands = numbers["embeddings"]["bands"]
    assert sum(band["words"] for band in bands) == run.vocabulary.size
    assert {row["tag"]: row["words"] for row in numbers["embeddings"]["tags"]} == {
        "noun": 2,
        "verb": 2,
    }
    assert images_of(run.logs_folder / "analysis") == {
        "analysis/entropy",
        "analysis/saliency",
        "analysis/embeddings",
    }


def images_of(folder) -> set[str]:
    """Tags of the images that TensorBoard finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = set(events.Tags()["images"])
    for tag in tags:
        image = events.Images(tag)[0]
        assert image.encoded_image_string.startswith(b"\x89PNG")
        assert image.width > 100
    return tags


def test_without_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    numbers = json.loads(call("analyze", run.folder, "--to", tmp_path / "out", "--json").stdout)
    assert len(numbers["saliency"]["tokens"]) == 8  # the first passage of the test split
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["analysis.json"]
    result = call("analyze", run.folder, "--to", tmp_path / "none")
    assert result.exit_code == 1
    assert "keras-seq[plots]" in result.stderr
    assert not (tmp_path / "none").exists()


def test_plain_output(run, numbers, monkeypatch):
    monkeypatch.setattr("keras_seq.analysis.analyze", lambda *args, **options: numbers)
    result = call("analyze", run.folder)
    assert result.exit_code == 0, result.stderr
    assert f"entropy     mean {numbers['entropy']['mean']:.4g}" in result.stdout
    assert "noun" in result.stdout
    assert f"{run.folder}/analysis/saliency.png: written." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("nowhere",), "neither a run folder", 2),
        (("nowhere", "--split", "train"), "--split", 2),
        (("nowhere", "--tags", "none.tsv"), "no such file", 2),
        (("nowhere", "--fraction", "1"), "below 1", 2),
        (("trellisnet_adding", "--json"), "is for language models", 1),
    ],
)
def test_wrong_usage(arguments, message, code):
    result = call("analyze", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
