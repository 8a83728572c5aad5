"""Fixtures of the pipeline tests."""

from pathlib import Path

import pytest
from pipeline_files import LINES, character_file, images, word_file, write_idx


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache folder of its own for every test; no data folder from the environment."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("KERAS_SEQ_CACHE", str(folder))
    monkeypatch.delenv("KERAS_SEQ_DATA", raising=False)
    return folder


@pytest.fixture
def ptb_folder(tmp_path) -> Path:
    """A data folder with ptb/ and ptb_char/."""
    for folder, write in (("ptb", word_file), ("ptb_char", character_file)):
        (tmp_path / folder).mkdir()
        for split, lines in LINES.items():
            (tmp_path / folder / f"{split}.txt").write_bytes(write(lines))
    return tmp_path


@pytest.fixture
def mnist_folder(tmp_path) -> Path:
    """A data folder with mnist/: 50 training and 20 test images."""
    (tmp_path / "mnist").mkdir()
    for prefix, count in (("train", 50), ("t10k", 20)):
        x, y = images(count, (28, 28), count)
        write_idx(tmp_path / "mnist" / f"{prefix}-images-idx3-ubyte.gz", x)
        write_idx(tmp_path / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", y)
    return tmp_path
