"""The command line: names, options, streams and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_seq import training, zoo
from keras_seq.cli.app import app
from keras_seq.cli.parsing import as_text
from keras_seq.training.building import build_model
from keras_seq.training.weights_file import recipe_of

TINY = (
    "embedding_dim=8",
    "model.units=6",
    "output_units=8",
    "levels=3",
    "data.name=text",
    'data.options={"cache_dir": false}',
    "batch_size=4",
    "eval_batch_size=2",
    "length=8",
    "jit_compile=false",
)
SETTINGS = [argument for setting in TINY for argument in ("--set", setting)]


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 330).astype("uint8").tobytes()
    for name, part in (
        ("train", letters[:210]),
        ("valid", letters[210:280]),
        ("test", letters[280:]),
    ):
        (folder / f"{name}.txt").write_bytes(part)
    return folder


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """A run trained by the real program, and what it wrote."""
    folder = tmp_path_factory.mktemp("run") / "a run"
    command = [sys.executable, "-m", "keras_seq", "train", *SETTINGS]
    command += ["--data-dir", text, "--run-dir", folder, "--epochs", "1", "--seed", "5", "--json"]
    environment = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    if result.returncode:
        pytest.fail(result.stderr)
    return folder, result


def test_train_json_owns_standard_output(run):
    folder, result = run
    document = json.loads(result.stdout)
    assert document["state"] == "finished"
    assert document["run"] == str(folder)
    assert "epoch 1/1" in result.stderr
    assert "I0000" not in result.stderr  # TensorFlow's own messages
    recipe = training.load_run(folder).recipe
    assert (recipe.seed, recipe.epochs, recipe.model["levels"]) == (5, 1, 3)


def test_help_does_not_load_keras():
    code = (
        "import sys; sys.argv = ['keras-seq', 'train', '--help']\n"
        "from keras_seq.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code, 'keras' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "0 False"
    for option in ("--data-dir", "--run-dir", "--epochs", "--max-steps", "--seed", "--resume"):
        assert option in result.stdout
    assert result.stderr == ""


def test_list():
    result = call("list", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert sorted(rows) == zoo.names()
    row = rows["trellisnet_ptb_word"]
    assert (row["family"], row["task"], row["reported"]) == ("trellisnet", "language_model", 56.97)
    assert row["parameters"] == zoo.recipe("trellisnet_ptb_word").parameters
    assert "Table" in row["source"]
    plain = call("list")
    assert plain.exit_code == 0
    assert "trellisnet_ptb_word" in plain.stdout


@pytest.mark.slow
def test_describe(run):
    result = call("describe", "trellisnet_ptb_word", "--json", "--set", "units=64")
    facts = json.loads(result.stdout)
    assert facts["settings"]["model.units"] == 64
    assert "optimizer.learning_rate" in facts["settings"]
    built = call("describe", run[0], "--build")
    assert built.exit_code == 0
    assert "kernel_hidden" in built.stdout
    assert "receptive field  4 steps" in built.stdout


def test_evaluate(run):
    result = call("evaluate", run[0], "--json")
    figures = json.loads(result.stdout)
    assert figures["tokens"] == 50
    assert figures["perplexity"] == pytest.approx(np.exp(figures["nll"]), rel=1e-5)
    plain = call("evaluate", run[0], "--split", "validation", "--weights", "last")
    assert "validation: 70 tokens" in plain.stdout


@pytest.mark.slow
def test_evaluate_dynamic(run):
    plain = json.loads(call("evaluate", run[0], "--json").stdout)
    stored = (run[0] / "best.weights.h5").read_bytes()
    arguments = ("evaluate", run[0], "--dynamic", "--json")
    result = call(*arguments, "--dynamic-rate", 0.05, "--dynamic-decay", 0, "--dynamic-steps", 5)
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["tokens"] == plain["tokens"] == 50
    assert figures["dynamic"]["learning_rate"] == 0.05
    assert abs(figures["nll"] - plain["nll"]) > 1e-3
    # Without a rate nothing is learnt: the plain figure, to rounding.
    still = json.loads(call(*arguments, "--dynamic-rate", 0, "--dynamic-batches", 1).stdout)
    assert still["nll"] == pytest.approx(plain["nll"], rel=1e-5)
    assert still["dynamic"]["statistics_batches"] == 1
    assert (run[0] / "best.weights.h5").read_bytes() == stored
    assert json.loads(call("evaluate", run[0], "--json").stdout)["nll"] == plain["nll"]


@pytest.mark.slow
def test_evaluate_cache(run):
    plain = json.loads(call("evaluate", run[0], "--json").stdout)
    arguments = ("evaluate", run[0], "--cache", "--cache-size", 20, "--cache-theta", 0.5)
    none = json.loads(call(*arguments, "--cache-lambda", 0, "--json").stdout)
    assert none["nll"] == pytest.approx(plain["nll"], rel=1e-5)
    half = json.loads(call(*arguments, "--cache-lambda", 0.5, "--batch-size", 1, "--json").stdout)
    assert half["cache"] == {"size": 20, "sharpness": 0.5, "share": 0.5}
    assert half["tokens"] == 50
    assert abs(half["nll"] - plain["nll"]) > 1e-3
    assert "size 20, sharpness 0.5, share 0.13" in call(*arguments).stdout


def test_generate(run):
    arguments = ("generate", run[0], "--prompt", "abc", "--length", "9", "--seed", "3")
    first, again = call(*arguments), call(*arguments)
    assert first.exit_code == 0, first.stderr
    assert first.stdout == again.stdout
    assert first.stdout.startswith("abc")
    greedy = call(*arguments, "--temperature", "0", "--top-k", "2", "--top-p", "0.5", "--json")
    document = json.loads(greedy.stdout)
    assert document["prompt"] == "abc"
    assert len(document["text"]) == 9


def test_export(run, tmp_path):
    result = call("export", run[0], "--to", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    path = Path(json.loads(result.stdout)["path"])
    assert (path / "saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["out.weights.h5", "out.keras"])
def test_convert_and_evaluate_the_result(name, run, text, tmp_path, monkeypatch):
    source = training.load_run(run[0]).load_model()

    def load_reference(model, path):
        assert path.read_bytes() == b"weights"
        model.set_weights(source.get_weights())

    monkeypatch.setattr("keras_seq.convert.load_reference", load_reference)
    (tmp_path / "model.pt").write_bytes(b"weights")
    to = tmp_path / name
    size = source.vocabulary_size
    arguments = ("convert", tmp_path / "model.pt", "trellisnet_python_docs", *SETTINGS)
    result = call(*arguments, "--set", f"vocabulary_size={size}", "--to", to, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["file"] == str(to)
    assert recipe_of(to).model["levels"] == 3
    figures = json.loads(call("evaluate", to, "--data-dir", text, "--json").stdout)
    expected = json.loads(call("evaluate", run[0], "--json").stdout)
    assert figures["nll"] == pytest.approx(expected["nll"], rel=1e-6)
    assert (figures["tokens"], figures["model"]) == (50, "trellisnet_python_docs")


def test_weights_of_a_name(run, tmp_path):
    path = tmp_path / "plain.weights.h5"
    build_model(zoo.recipe("trellisnet_python_docs")).save_weights(path)
    result = call("evaluate", path)
    assert result.exit_code == 1
    assert "--weights" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "trellisnet_ptb_wrd"), "Did you mean: trellisnet_ptb_word"),
        (("train", "--set", "unit=3"), "Did you mean model.units"),
        (("train", "--set", "model.unit=3"), "Did you mean model.units"),
        (("train", "--set", "units"), "key=value"),
        (("train", "--set", "units=many"), "takes a number"),
        (("train", "--set", "carry_state=3"), "true or false"),
        (("train", "trellisnet_ptb_word", "--set", "history=3"), "ambiguous"),
        (("train", "--set", "epochs=several"), "takes a number"),
        (("train", "--resume", "--set", "units=3"), "--resume"),
        (("train", "--epochs", "0"), "greater than or equal to 1. Received: 0."),
        (("train", "--epochs", "many"), "Received: many."),
        (("train", "--epochs"), "requires an argument"),
        (("train", "trellisnet_adding", "trellisnet_adding"), "unexpected extra argument"),
        (("train", "--nonsense"), "No such option"),
        (("train", ""), "it is empty"),
        (("train", "--run-dir", ""), "'--run-dir': it is empty"),
        (("train", "--data-dir="), "'--data-dir': it is empty"),
        (("train", "--set", "units=3", "--set", ""), "'--set': it is empty"),
        (("tune", ""), "it is empty"),
        (("tune", "--tuner", "grid"), "Received: grid."),
        (("describe", ""), "it is empty"),
        (("generate", ""), "it is empty"),
        (("generate", "--weights", ""), "it is empty"),
        (("generate", "--prompt", "l\udce9ger"), "must be UTF-8. Received: the byte 0xe9"),
        (("analyze", "trellisnet_python_docs", "--text", "\udcff"), "the byte 0xff at place 0"),
        (("weights", "--force"), "--force needs a RUN"),
        (("weights", "--to", "folder"), "--to needs a RUN"),
        (("evaluate",), "Missing argument"),
        (("evaluate", "nowhere"), "neither a run folder"),
        (("evaluate", "trellisnet_python_docs", "--split", "train"), "--split"),
        (("evaluate", "nowhere", "--dynamic", "--cache"), "not both"),
        (("evaluate", "nowhere", "--cache-size", "3"), "--cache-size is a setting of --cache"),
        (("evaluate", "nowhere", "--cache", "--cache-lambda", "1"), "must be below 1"),
        (("evaluate", "nowhere", "--dynamic", "--dynamic-steps", "0"), "greater than or equal"),
        (("convert", "x.pt", "trellisnet_python_docs", "--to", "y.txt"), "--to must end in"),
        (("generate", "trellisnet_adding"), "no language model"),
        (("generate", "/no/such/run"), "neither a run folder"),
        (("paint",), "No such command"),
        (("train", "--set", "optimizer.name=NonMonotoneTrigger"), "RAdam, RMSprop. Received"),
        (("train", "--set", "optimizer.options.momentun=0.9"), "momentun"),
    ],
)
def test_wrong_usage(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("keras-seq: error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    in_json = call(*arguments, "--json")
    assert in_json.exit_code == 2
    said = json.loads(in_json.stdout)["error"]
    assert in_json.stderr == f"keras-seq: error: {said}\n"


def test_no_command_is_help():
    result = call()
    assert result.exit_code == 2
    assert "Usage:" in result.stdout
    assert "evaluate" in result.stdout
    assert call("--json").exit_code == 2
    assert "No such option" in json.loads(call("--json").stdout)["error"]


def test_texts_that_may_be_empty(run):
    result = call("generate", run[0], "--prompt", "", "--length", "3")
    assert result.exit_code == 0, result.stderr


@pytest.mark.slow
def test_a_prompt_in_any_locale():
    """Bytes of UTF-8 that an ASCII locale hands over as surrogates; text is written as UTF-8."""
    assert as_text("naïve") == "naïve"
    assert as_text(os.fsdecode(b"l\xc3\xa9ger")) == "léger"
    code = (
        "import sys\n"
        "from keras_seq.cli import app\n"
        "app._print_any_text()\n"
        "from keras_seq.cli.parsing import as_text\n"
        "print(as_text(sys.argv[1]))\n"
    )
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    result = subprocess.run(
        [sys.executable, "-c", code, "léger".encode()],
        capture_output=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "léger\n".encode()), result.stderr


def test_failures(run, tmp_path):
    result = call("train", *SETTINGS, "--data-dir", tmp_path / "none", "--json")
    assert result.exit_code == 1
    assert "none" in json.loads(result.stdout)["error"]
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    debug = call("train", *SETTINGS, "--data-dir", tmp_path / "none", "--debug")
    assert "Traceback" in debug.stderr
    assert call("train", *SETTINGS, "--run-dir", run[0]).exit_code == 1
    adding = call("evaluate", "trellisnet_adding", "--cache")
    assert adding.exit_code == 1
    assert "is for language models" in adding.stderr
    missing = call("convert", tmp_path / "x.pt", "trellisnet_python_docs", "--to", "y.keras")
    assert missing.exit_code == 1


def test_next_commands_are_printed(run, text, tmp_path):
    folder = tmp_path / "short run"
    arguments = ("--data-dir", text, "--run-dir", folder, "--max-steps", "1", "--epochs", "1")
    result = call("train", *SETTINGS, *arguments)
    assert result.exit_code == 0, result.stderr
    for name in ("evaluate", "generate", "export"):
        assert f"keras-seq {name} '{folder}'" in result.stdout
    assert "tensorboard --logdir" in result.stdout
    resumed = call("train", "--run-dir", folder, "--resume", "--max-steps", "2", "--quiet")
    assert resumed.exit_code == 0
    assert resumed.stdout == f"{folder}\n"
    assert training.load_run(folder).status["step"] == 2


def test_a_recipe_file(run, tmp_path, text):
    recipe = tmp_path / "recipe.json"
    recipe.write_text((run[0] / "recipe.json").read_text())
    arguments = ("--recipe", recipe, "--data-dir", text, "--run-dir", tmp_path / "run")
    result = call("train", *arguments, "--max-steps", "1", "--quiet")
    assert result.exit_code == 0, result.stderr
    recipe.write_text("{}")
    assert call("train", "--recipe", recipe).exit_code == 2


def test_an_interrupted_run_fails_and_says_how_to_go_on(text, tmp_path, monkeypatch):
    real, folder = training.train, tmp_path / "run"

    def interrupted(*args, **kwargs):
        run = real(*args, **kwargs)
        run.update_status(state="stopped", reason="interrupted")
        return run

    monkeypatch.setattr(training, "train", interrupted)
    arguments = ("--data-dir", text, "--run-dir", folder, "--max-steps", "1", "--json")
    result = call("train", *SETTINGS, *arguments)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "stopped"
    assert f"--run-dir {folder} --resume" in result.stderr


def test_a_key_press_is_one_line(monkeypatch):
    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", pressed)
    result = call("evaluate", "trellisnet_python_docs")
    assert (result.exit_code, result.stderr) == (1, "keras-seq: error: interrupted.\n")
