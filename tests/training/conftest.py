"""A tiny text and recipes on it."""

import numpy as np
import pytest

from keras_seq import zoo

TINY = {
    "model.embedding_dim": 8,
    "model.units": 6,
    "model.output_units": 8,
    "model.levels": 2,
    "model.carry_state": True,
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "data.options": {"cache_dir": False},
    "epochs": 2,
    "jit_compile": False,
}


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    """A folder with 208 letters to train on, 70 to validate, 50 to test."""
    folder = tmp_path_factory.mktemp("tiny_text")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 208 + 70 + 50)
    text = letters.astype("uint8").tobytes()
    (folder / "train.txt").write_bytes(text[:208])
    (folder / "valid.txt").write_bytes(text[208:278])
    (folder / "test.txt").write_bytes(text[278:])
    return folder


@pytest.fixture(scope="session")
def tiny_recipe():
    """A language model that trains in a moment: six steps an epoch."""
    return zoo.recipe("trellisnet_python_docs").replace(**TINY)
