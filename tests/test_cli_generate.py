"""`keras-seq generate` and `keras-seq weights`: text, tunes, shipped weights."""

import json
from pathlib import Path

import h5py
import mido
import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from keras_seq import training, zoo
from keras_seq.cli.app import app
from keras_seq.generation import read_midi, write_midi
from keras_seq.pipelines.music import read_music
from keras_seq.training.packing import save_half, training_command
from keras_seq.zoo import shipped_weights

SMALL = {
    "model.units": 8,
    "model.levels": 1,
    "model.heads": 2,
    "model.window": 3,
    "model.span": 16,
    "data.batch_size": 2,
    "data.options": {"transpose": 2},
}


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """A data folder with a small Nottingham.mat."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def tunes(count):
        cells = np.empty((1, count), object)
        for i in range(count):
            cells[0, i] = (rng.random((12 + i, 88)) < 0.1).astype(np.uint8)
        return cells

    arrays = {"traindata": tunes(4), "validdata": tunes(2), "testdata": tunes(3)}
    savemat(folder / "Nottingham.mat", arrays)
    return folder


@pytest.fixture(scope="module")
def run(music, tmp_path_factory):
    recipe = zoo.recipe("rtransformer_nottingham").replace(**SMALL)
    folder = tmp_path_factory.mktemp("runs") / "tunes"
    return training.train(
        recipe, data_dir=music, run_dir=folder, epochs=1, max_steps=2, seed=7, verbose=0
    )


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The run's weights, packed by the command into a folder of their own."""
    to = tmp_path_factory.mktemp("shipped")
    result = call("weights", run.folder, "--name", "tunes", "--to", to, "--json", "--note", "Tiny.")
    assert result.exit_code == 0, result.stderr
    return to, json.loads(result.stdout)


@pytest.fixture
def installed(packed, monkeypatch):
    """The packed weights in the place of those of the package."""
    monkeypatch.setattr(shipped_weights, "FOLDER", packed[0])
    return packed[1]


@pytest.mark.slow
def test_a_tune_from_a_run(run, music, tmp_path):
    to = tmp_path / "tune.mid"
    arguments = ("generate", run.folder, "--to", to, "--length", 9, "--seed", 3)
    result = call(*arguments, "--prime", "test:1", "--prime-frames", 5, "--top-notes", 4, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["midi"], document["prime_frames"]) == (str(to), 5)
    assert len(document["pitches"]) == 9 and max(map(len, document["pitches"])) <= 4
    assert to.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    roll = read_midi(to)
    assert roll.shape == (14, 88)
    tune = read_music(music / "Nottingham.mat")["test"][1]
    np.testing.assert_array_equal(roll[:5], tune[:5])
    made = [[note + 21 for note in np.flatnonzero(frame)] for frame in roll[5:]]
    assert made == document["pitches"]
    # The same tune as a MIDI file, and without a prime.
    prime = write_midi(tmp_path / "prime.mid", tune)
    options = ("--prime-frames", 5, "--top-notes", 4)
    again = call(*arguments, "--prime", prime, *options, "--json")
    assert json.loads(again.stdout)["pitches"] == document["pitches"]
    alone = call(*arguments)
    assert f"{to}: 0 frames of the prime and 9 made." in alone.stdout
    assert mido.MidiFile(str(to)).length == pytest.approx(9 * 0.3)


def test_the_picture_never_takes_the_place_of_the_tune(run, tmp_path):
    to = tmp_path / "tune.PNG"
    result = call("generate", run.folder, "--to", to, "--length", 2)
    assert result.exit_code == 2
    assert f"for example {tmp_path / 'tune.mid'}. Received: {to}" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_packed_weights_say_what_they_are(packed, run, music):
    _, manifest = packed
    assert manifest["command"] == (
        "keras-seq train rtransformer_nottingham --data-dir DIR --set model.units=8 "
        "--set model.levels=1 --set model.window=3 --set model.heads=2 --set model.span=16 "
        "--set data.batch_size=2 --set data.options.transpose=2 --epochs 1 --seed 7 --max-steps 2"
    )
    assert manifest["figures"]["test"]["examples"] == 3
    expected = training.evaluate(run)["nll_per_frame"]
    assert manifest["figures"]["test"]["nll_per_frame"] == pytest.approx(expected, rel=1e-3)
    assert manifest["precision"] == "float16" and manifest["data"] == "nottingham"
    assert "vocabulary.txt" not in manifest["sha256"]
    with h5py.File(Path(manifest["folder"]) / "model.weights.h5") as file:
        assert "optimizer" not in file and "core" in file
    card = zoo.ShippedWeights(manifest["model"], "tunes", Path(manifest["folder"])).card
    assert "Tiny." in card and manifest["command"] in card


def test_shipped_weights_are_used_by_name(installed, music, tmp_path):
    """By evaluate, generate, export and the zoo; generate takes them of its own accord."""
    options = ("--data-dir", music, "--json")
    result = call("evaluate", "rtransformer_nottingham", "--weights", "tunes", *options)
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["nll_per_frame"] == pytest.approx(
        installed["figures"]["test"]["nll_per_frame"], rel=1e-6
    )
    assert figures["weights"] == "tunes (shipped)"
    made = call(
        "generate", "rtransformer_nottingham", "--to", tmp_path / "a.mid", "--length", 3, "--json"
    )
    assert made.exit_code == 0, made.stderr
    assert len(json.loads(made.stdout)["pitches"]) == 3
    exported = call(
        "export", "rtransformer_nottingham", "--weights", "tunes", "--to", tmp_path / "served"
    )
    assert exported.exit_code == 0, exported.stderr
    assert zoo.rtransformer_nottingham(weights="tunes").core.levels == 1
    listed = call("weights")
    assert "rtransformer_nottingham" in listed.stdout and "nll per frame" in listed.stdout
    (row,) = json.loads(call("weights", "--json").stdout)
    assert row["name"] == "tunes"
    unknown = call("evaluate", "rtransformer_nottingham", "--weights", "tune", *options)
    assert unknown.exit_code == 1
    assert "Those of rtransformer_nottingham are: tunes." in json.loads(unknown.stdout)["error"]


def test_text_with_no_run_and_no_training(tmp_path):
    arguments = ("generate", "--prompt", "The ", "--length", 40, "--temperature", 0.5, "--seed", 1)
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("The ") and len(result.stdout) > 40
    named = call(*arguments[:1], "trellisnet_python_docs", *arguments[1:], "--json")
    assert "The " + json.loads(named.stdout)["text"] + "\n" == result.stdout
    to = tmp_path / "text.txt"
    assert call(*arguments, "--to", to).exit_code == 0
    assert to.read_text() == result.stdout


@pytest.mark.slow
def test_text_under_rules():
    arguments = ("generate", "--prompt", "The ", "--length", 12, "--json", "--stop", "<eos>")
    ruled = call(*arguments, "--ban", "e", "--ban", "t", "--repetition-penalty", 1.2)
    assert ruled.exit_code == 0, ruled.stderr
    text = json.loads(ruled.stdout)["text"]
    assert text and not set(text) & set("et\n")
    searched = call(*arguments, "--beams", 3, "--length-penalty", 1)
    assert searched.exit_code == 0, searched.stderr
    assert "\n" not in json.loads(searched.stdout)["text"]
    free = json.loads(call(*arguments[:-2]).stdout)["text"]
    until = call(*arguments[:-2], "--stop", free[4:7], "--stop", r"\n\n")
    assert json.loads(until.stdout)["text"] == free.split(free[4:7])[0].split("\n\n")[0]
    unknown = call(*arguments, "--stop", "the \u4e2d")
    assert "`stop` must hold tokens of the vocabulary" in json.loads(unknown.stdout)["error"]
    unknown = call(*arguments, "--ban", "cow")
    assert "`ban` must hold tokens of the vocabulary" in json.loads(unknown.stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "RUN"), "--to tune.mid"),
        (("generate", "RUN", "--to", "x.mid", "--prompt", "a"), "there is no --prompt"),
        (("generate", "RUN", "--to", "x.mid", "--prime", "none.mid"), "--prime takes a MIDI file"),
        (("generate", "RUN", "--to", "x.mid", "--prime", "test:9"), "has the tunes 0 to 2"),
        (("generate", "RUN", "--to", "x.mid", "--stop", "a"), "there is no --stop"),
        (("generate", "RUN", "--to", "x.mid", "--beams", "2"), "there is no --beams"),
        (("generate", "--beams", "2", "--top-k", "3"), "--beams searches and draws nothing"),
        (("generate", "--prime", "test:1"), "there is no --prime"),
        (("generate", "--top-notes", "3"), "there is no --top-notes"),
        (("generate", "--stop", "l\udcff"), "it must be UTF-8. Received: the byte 0xff at place 1"),
        (("weights", "RUN"), "a --name"),
        (("weights", "nowhere", "--name", "x"), "is no run folder"),
        (("weights", "--name", "x"), "needs a RUN"),
    ],
)
def test_wrong_usage(arguments, message, run):
    result = call(*(run.folder if word == "RUN" else word for word in arguments))
    assert result.exit_code == 2, result.stderr
    assert message in " ".join(result.stderr.split())


def test_a_set_is_not_replaced_by_accident(packed, run, music):
    to, _ = packed
    with pytest.raises(FileExistsError, match="replace it with `force`"):
        training.pack_weights(run, "tunes", to)
    before = (to / "rtransformer_nottingham" / "tunes" / "manifest.json").read_text()
    training.pack_weights(run, "tunes", to, force=True, note="Again.")
    after = (to / "rtransformer_nottingham" / "tunes" / "manifest.json").read_text()
    assert before != after and "Again." in after
    with pytest.raises(ValueError, match="`name` must be of letters"):
        training.pack_weights(run, "../tunes", to)


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training.packing, "save_half", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.pack_weights(run, "tunes", tmp_path)
    assert not any((tmp_path / "rtransformer_nottingham").iterdir())


def test_half_precision_holds_what_it_can(tmp_path):
    model = zoo.tcn_nottingham(units=4, levels=1)
    model.core.blocks[0].first[1].assign(np.array([1e-9, 1.0001, -3.0, 6e4]))
    save_half(model, tmp_path / "half.weights.h5")
    before = model.get_weights()
    model.load_weights(tmp_path / "half.weights.h5")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("float16").astype(theirs.dtype))
    model.core.blocks[0].first[1].assign(np.full(4, 1e6))
    with pytest.raises(ValueError, match="half precision does not hold"):
        save_half(model, tmp_path / "half.weights.h5")


def test_command_of_an_unchanged_recipe():
    assert training_command(zoo.recipe("tcn_nottingham"), {}) == "keras-seq train tcn_nottingham"
