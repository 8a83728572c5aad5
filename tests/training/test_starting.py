"""A run that begins with the best weights of another one, as fine-tuning does."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from keras_seq import training, zoo
from keras_seq.cli.app import app
from keras_seq.training.checkpoint import Checkpoint

# A rate so small that no weight changes: the figures are those of the weights it began with.
STILL = {
    "optimizer.name": "NTASGD",
    "optimizer.learning_rate": 1e-30,
    "optimizer.options": {"average_from": 0},
    "schedule.name": "constant",
    "model.embedding_dropout": 0.3,
    "epochs": 1,
    "seed": 5,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_recipe, tiny_text):
    folder = tmp_path_factory.mktemp("source") / "run"
    return training.train(tiny_recipe, tiny_text, folder, verbose=0)


@pytest.fixture(scope="module")
def other_text(tmp_path_factory, tiny_text):
    """Texts whose own vocabulary is smaller."""
    folder = tmp_path_factory.mktemp("other_text")
    for name in ("train.txt", "valid.txt", "test.txt"):
        text = (tiny_text / name).read_bytes().translate(bytes.maketrans(b"klm", b"aaa"))
        (folder / name).write_bytes(text)
    return folder


def test_begins_with_the_figure_of_the_other_run(source, tiny_recipe, tmp_path):
    """Also after a kill before the first checkpoint, with the other run gone."""
    recipe, folder = tiny_recipe.replace(**STILL), tmp_path / "run"
    copy = training.Run(shutil.copytree(source.folder, tmp_path / "copy"))

    def killed(self, path):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", killed)
        training.train(recipe, run_dir=folder, start=copy, max_steps=1, verbose=0)
    assert not (folder / "backup" / "checkpoint.npz").exists()
    began = training.load_run(folder).status["start"]
    assert began == {
        "run": str(copy.folder.resolve()),
        "recipe": recipe.name,
        "epoch": source.best_epoch,
    }
    shutil.rmtree(copy.folder)
    run = training.train(run_dir=folder, resume=True, verbose=0)
    best = source.status["best"]
    assert run.history[0]["val_nll"] == pytest.approx(best["val_nll"], rel=1e-6)
    assert (run.status["start"], run.status["step"]) == (began, 1)


def test_reads_other_texts_with_the_vocabulary_of_the_other_run(
    source, tiny_recipe, other_text, tmp_path
):
    recipe = tiny_recipe.replace(**STILL)
    fresh = training.train(recipe, other_text, tmp_path / "fresh", max_steps=1, verbose=0)
    assert fresh.vocabulary.size < source.vocabulary.size
    assert "start" not in fresh.status
    run = training.train(
        recipe, other_text, tmp_path / "run", start=source.folder, max_steps=1, verbose=0
    )
    assert run.vocabulary.tokens == source.vocabulary.tokens
    assert run.recipe.model["vocabulary_size"] == source.vocabulary.size


def test_errors(source, tiny_recipe, tiny_text, tmp_path):
    def refused(error, match, recipe=tiny_recipe, start=source, **options):
        folder = tmp_path / "refused"
        with pytest.raises(error, match=match):
            training.train(recipe, tiny_text, folder, start=start, verbose=0, **options)
        assert not folder.exists()

    wider = tiny_recipe.replace(**{"model.units": 7})
    refused(ValueError, r"same architecture.*units=6 there and 7 here", wider)
    data = {"data.name": "text", "data.batch_size": 4, "data.length": 8}
    other = zoo.recipe("pru_python_docs").replace(**data, **{"data.eval_batch_size": 2})
    refused(ValueError, "family trellisnet, pru_python_docs is one of pru", other)
    refused(FileNotFoundError, "no run here", start=tmp_path)
    without = training.Run(shutil.copytree(source.folder, tmp_path / "without"))
    without.weights_file.unlink()
    refused(FileNotFoundError, "no best weights yet", start=without)
    with pytest.raises(ValueError, match="began with fresh weights, not with those of"):
        training.train(run_dir=source.folder, resume=True, start=without, verbose=0)


def test_from_the_command_line(source, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    folder = tmp_path / "run"
    options = ("--recipe", source.recipe_file, "--from", source.folder, "--set", "seed=5")
    limits = ("--run-dir", folder, "--epochs", 1, "--max-steps", 1, "--json")
    result = call("train", *options, *limits)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["start"]["epoch"] == source.best_epoch
    refused = call("train", "--run-dir", folder, "--resume", "--from", source.folder)
    assert refused.exit_code == 2
    assert "leave the other options out" in refused.output
