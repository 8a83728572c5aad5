"""A tiny text and recipes on it."""

import numpy as np
import pytest
from small import on_a_tiny_text

from keras_seq import zoo


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
    name = "trellisnet_python_docs"
    return zoo.recipe(name).replace(**on_a_tiny_text(name), **{"model.carry_state": True})
