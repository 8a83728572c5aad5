"""Files of runs and models that were cut short, changed or replaced: each error names its file."""

import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from keras_seq import training, zoo
from keras_seq._reading import BrokenFileError
from keras_seq.pipelines import DataError
from keras_seq.training import weights_file
from keras_seq.training.checkpoint import Checkpoint

SAVED = Path(__file__).resolve().parent.parent / "saved" / "0.1" / "run"


@pytest.fixture
def run(tmp_path):
    """A run that an earlier version wrote."""
    return training.load_run(shutil.copytree(SAVED, tmp_path / "run"))


def readers(run):
    """What reads each file of a run without building a model, and what shows its content."""
    return {
        "recipe.json": lambda: run.recipe.to_json(),
        "status.json": lambda: run.status,
        "metrics.csv": lambda: (run.history, run.best_epoch),
        "vocabulary.txt": lambda: (run.vocabulary.tokens, run.vocabulary.level),
        "vocabulary.json": lambda: (run.vocabulary.tokens, run.vocabulary.level),
        "backup/checkpoint.npz": lambda: shown(Checkpoint.load(run.checkpoint_file)),
    }


def shown(checkpoint):
    groups = [array.tobytes() for group in checkpoint.groups.values() for array in group]
    return groups, checkpoint.meta


def mutations(content: bytes, draw: random.Random, count: int):
    """Files cut short, with flipped bits, or with bytes put in or taken out."""
    yield from (b"", b"\0", content[:-1], b"[]", b"null", b"{}", b"\xff" * 20, b"[" * 10_000)
    for number in range(count):
        place = draw.randrange(len(content))
        flipped = content[place] ^ 1 << draw.randrange(8)
        yield {
            0: content[:place],
            1: content[:place] + bytes([flipped]) + content[place + 1 :],
            2: content[:place] + bytes([flipped]) + content[place + 1 :],
            3: content[:place] + b"\0" + content[place:],
            4: content[:place] + content[place + 9 :],
        }[number % 5]


@pytest.mark.parametrize("name", sorted(readers(None)))
def test_damaged_files_of_a_run_are_named(run, name):
    read, path = readers(run)[name], run.folder / name
    content, draw = path.read_bytes(), random.Random(name)
    whole, refused = read(), 0
    for damaged in mutations(content, draw, 60):
        path.write_bytes(damaged)
        try:
            found = read()
        except ValueError as error:
            assert str(run.folder) in str(error), error
            assert isinstance(error, BrokenFileError), repr(error)
            refused += 1
        else:
            if name.startswith(("vocabulary", "backup")):  # they have a checksum
                assert found == whole or damaged in (b"{}",)
    assert refused >= 20
    for kind in (Path.mkdir, os.mkfifo):
        path.unlink() if path.is_file() else path.rmdir()
        kind(path)
        with pytest.raises((BrokenFileError, DataError), match=f"{name}: .*it is a "):
            read()


@pytest.mark.parametrize("value", [None, True, 3, -1, "text", [], [1], {}, {"run": 3}])
@pytest.mark.parametrize("key", ["state", "epoch", "step", "data_dir", "strategy", "start", "best"])
def test_wrong_entries_of_the_status(run, key, value):
    """Only values of the right type are believed."""
    run.status_file.write_text(json.dumps({**run.status, key: value}))
    right = {
        "state": isinstance(value, str),
        "epoch": type(value) is int,
        "step": type(value) is int,
        "data_dir": value is None or isinstance(value, str),
        "strategy": isinstance(value, dict),
        "start": value == {},
        "best": value is None or isinstance(value, dict),
    }[key]
    if right:
        assert run.status[key] == value
    else:
        with pytest.raises(BrokenFileError, match=rf"status\.json.*`{key}`.*Restore it"):
            _ = run.status


def small_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("suffix", weights_file.SUFFIXES)
def test_damaged_weights_are_named(tmp_path, suffix):
    """No flipped bit leads to other weights, and none to an error without the file's name."""
    model, whole, path = small_model(), tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    weights_file.save_weights(model, whole) if suffix != ".keras" else model.save(whole)
    content, draw = whole.read_bytes(), random.Random(suffix)
    expected, refused = model.get_weights(), 0
    for damaged in mutations(content, draw, 90):
        path.write_bytes(damaged)
        try:
            if suffix == ".keras":
                found = weights_file.load_model_file(path)
            else:
                found = model
                weights_file.load_weights(model, path)
        except ValueError as error:
            assert str(path) in str(error), error
            refused += 1
        else:
            for ours, theirs in zip(found.get_weights(), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert refused >= 25


@pytest.mark.parametrize("suffix", weights_file.SUFFIXES)
def test_weights_that_are_no_numbers_are_refused(tmp_path, suffix):
    model, path = small_model(), tmp_path / f"model{suffix}"
    model.layers[1].bias.assign([np.inf, 0])
    weights_file.save_weights(model, path) if suffix != ".keras" else model.save(path)
    with pytest.raises(BrokenFileError, match=r"model.*weight .*bias: .*not a finite number"):
        if suffix == ".keras":
            weights_file.load_model_file(path)
        else:
            weights_file.load_weights(small_model(), path)


def test_weights_of_another_model_and_too_large_ones(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("vars", (1 << 34,), chunks=(1 << 20,), compression="gzip")
    with pytest.raises(BrokenFileError, match=r"model\.weights\.h5: .*17,179,869,184 numbers"):
        weights_file.load_weights(small_model(), path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(path)
    with pytest.raises(BrokenFileError, match=r"model\.weights\.h5: .*weights of this model"):
        weights_file.load_weights(small_model(), path)
    path = tmp_path / "model.keras"
    small_model().save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/more", bytes(1 << 27))
    with pytest.raises(BrokenFileError, match=r"model\.keras: .*nothing was unpacked"):
        weights_file.load_model_file(path)


def test_a_run_whose_weights_changed_is_not_evaluated(run):
    """Also in what every command loads models with."""
    with h5py.File(run.weights_file, "a") as file:
        path = next(name for name, a in weights_file._arrays(file).items() if a.size > 4)
        array: Any = file[path]
        values = array[()]
        values.flat[0] = np.nan
        array[...] = values
    with pytest.raises(BrokenFileError, match=r"best\.weights\.h5"):
        training.load_model(run)
    with pytest.raises(BrokenFileError, match=r"best\.weights\.h5"):
        training.evaluate(run)


def test_shipped_recipes_are_still_read():
    for shipped in zoo.weights():
        assert zoo.Recipe.from_json(shipped.recipe.to_json()) == shipped.recipe
