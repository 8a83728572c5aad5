"""A tiny text, a recipe on it, and a space of a few settings."""

import numpy as np
import pytest

from keras_seq import zoo

pytest.importorskip("keras_tuner")

TINY = {
    "model.embedding_dim": 8,
    "model.units": 8,
    "model.layers": 1,
    "model.unit": "lstm",
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "data.options": {"cache_dir": False},
    "epochs": 3,
}


def write_text(folder):
    """208 letters to train on, 70 to validate, 50 to test."""
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 328).astype("uint8").tobytes()
    parts = {"train": letters[:208], "valid": letters[208:278], "test": letters[278:]}
    for name, part in parts.items():
        (folder / f"{name}.txt").write_bytes(part)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_text")
    write_text(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe():
    """A language model that trains in a moment: six steps an epoch."""
    return zoo.recipe("pru_python_docs").replace(**TINY)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No search in several processes, whatever the environment says."""
    for name in ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"):
        monkeypatch.delenv(name, raising=False)
