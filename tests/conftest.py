"""Fixtures of the whole suite."""

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

from keras_seq.gradients import graphs_released

ROOT = Path(__file__).resolve().parent.parent


SLOW = ROOT / "tests" / "slow_tests.txt"  # what a quiet machine of two cores took too long for


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests of the list as slow; those that are slow by nature say so themselves."""
    listed = set(SLOW.read_text().splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What is imported by now stays; the garbage collector need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _graphs():
    """The graphs of a file are gone when its tests are: those of all files take gigabytes."""
    with graphs_released():
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state."""
    keras.utils.set_random_seed(1234)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden files."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("KERAS_SEQ_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no data folder: set KERAS_SEQ_DATA to one with ptb/, mnist/, ... in it")
    return folder
