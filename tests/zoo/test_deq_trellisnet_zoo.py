"""DEQ-TrellisNet's zoo: sizes, settings, and every command on a tiny model."""

import json

import numpy as np
import pytest
from released_weights import command_to_convert
from typer.testing import CliRunner

from keras_seq import training, zoo
from keras_seq.cli.app import app
from keras_seq.training.opening import load_model

NAMES = [name for name in zoo.names() if name.startswith("deq_trellisnet_")]
TINY = {
    "model.embedding_dim": 6,
    "model.units": 4,
    "model.output_units": 6,
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "data.options": {"cache_dir": False},
    "jit_compile": False,
}


def test_the_entries():
    assert [name.removeprefix("deq_trellisnet_") for name in NAMES] == [
        "copy_memory",
        "japanese_vowels",
        "ptb_char",
        "ptb_word",
        "python_docs",
        "wt103",
    ]
    figures = {name: zoo.recipe(name).reported.value for name in NAMES}
    assert figures["deq_trellisnet_ptb_word"] == 57.1
    assert figures["deq_trellisnet_wt103"] == 29.0


def test_wikitext103_has_the_size_of_the_reference(golden):
    counts = json.loads((golden / "parameter_counts.json").read_text())
    want = counts["deq_trellisnet_wt103"]["parameters"]
    assert zoo.recipe("deq_trellisnet_wt103").parameters == want


def test_evaluation_may_take_more_steps_than_training():
    for name in NAMES:
        core = zoo.recipe(name).model
        assert core["inference_max_steps"] > core["max_steps"]
    with pytest.raises(ValueError, match="no setting 'solvers'"):
        zoo.deq_trellisnet_python_docs(solvers="broyden")


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 330).astype("uint8").tobytes()
    for name, part in zip(
        ("train", "valid", "test"), (letters[:210], letters[210:280], letters[280:]), strict=True
    ):
        (folder / f"{name}.txt").write_bytes(part)
    return folder


def train_tiny(text, folder):
    recipe = zoo.recipe("deq_trellisnet_python_docs").replace(**TINY, **{"model.max_steps": 4})
    return training.train(recipe, text, folder, max_steps=2, verbose=0)


def test_train_evaluate_and_generate(text, tmp_path):
    run = train_tiny(text, tmp_path / "run")
    names = (run.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"equilibrium_steps", "val_equilibrium_residual", "equilibrium_failures"} <= set(names)
    assert any((run.folder / "logs" / "train").iterdir())
    figures = training.evaluate(run)
    assert figures["tokens"] == 50 and np.isfinite(figures["bits"])
    made = call("generate", run.folder, "--prompt", "abc", "--length", "5", "--seed", "1")
    assert made.exit_code == 0, made.output


@pytest.mark.slow
def test_export_and_describe(text, tmp_path):
    run = train_tiny(text, tmp_path / "run")
    served = call("export", run.folder, "--to", tmp_path / "served")
    assert served.exit_code == 0, served.output
    assert call("describe", "deq_trellisnet_python_docs").exit_code == 0


@pytest.mark.parametrize("name", ["ptb_word", pytest.param("ptb_char", marks=pytest.mark.slow)])
def test_recipes_of_the_papers_train(name, text, tmp_path):
    changes = {**TINY, "model.pretrain_levels": 2, "model.pretrain_steps": 1, "model.max_steps": 3}
    if name == "ptb_word":
        changes |= {"model.history": 3, "data.history": 3}
    recipe = zoo.recipe(f"deq_trellisnet_{name}").replace(**changes)
    run = training.train(recipe, text, tmp_path / "run", max_steps=2, verbose=0)
    row = run.history[-1]
    assert np.isfinite(row["loss"]) and row["equilibrium_steps"] == 2.5  # two levels, three steps
    if name == "ptb_word":  # as the release's weights, back through the command
        arguments = command_to_convert(run, tmp_path)
        done = call(*arguments)
        assert done.exit_code == 0, done.output
        built, recipe, _ = load_model(arguments[-1])
        assert recipe.name == "deq_trellisnet_ptb_word"
        got, want = (
            np.concatenate([np.ravel(w) for w in m.trainable_weights])
            for m in (built, run.load_model())
        )
        np.testing.assert_array_equal(got, want)


def test_wikitext103_and_copy_memory_run_small():
    model = zoo.deq_trellisnet_wt103(
        vocabulary_size=50, cutoffs=[10, 20], embedding_dim=4, units=3, output_units=4
    )
    assert np.isfinite(np.asarray(model(np.zeros((2, 5), "int32")))).all()
    model = zoo.deq_trellisnet_copy_memory(units=3, output_units=4)
    assert model(np.zeros((2, 5), "int32")).shape == (2, 5, 10)
