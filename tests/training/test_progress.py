"""What is shown of a run, without training."""

import io

import pytest
from rich.console import Console

from keras_seq.training import progress as shown
from keras_seq.training.session import Limits
from keras_seq.training.state import Progress


def reporter(recipe, epochs=3, max_steps=None, level=None, **options):
    limits = Limits(epochs, max_steps, 10, 120.0, None)
    console = Console(file=io.StringIO(), width=200)
    return shown.Reporter(recipe, console, 2, limits, 100.0, level, **options)


def after_one_epoch(reporter, monkeypatch) -> str:
    """The line of an epoch of ten steps of two seconds, with a validation of five."""
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    progress = Progress()
    reporter.epoch_begin(0, progress)
    for step in range(1, 11):
        now[0] += 2
        progress.step = progress.step_in_epoch = step
        reporter.step(progress, {"loss": 1.0})
    reporter.validation_begin(progress)
    now[0] += 5
    row = {"epoch": 1, "loss": 1.0, "bits": 2.0, "learning_rate": 0.1, "seconds": 25.0}
    reporter.epoch_end(progress, row, True)
    return reporter.console.file.getvalue()


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"epochs": 3}, "0:00:50 left"),  # 20 steps and two validations
        ({"epochs": 3, "max_steps": 15}, "0:00:15 left"),
        ({"epochs": 10_000}, "2 days, 21:26:15 left"),
    ],
)
def test_the_time_left_is_that_of_the_run(tiny_recipe, monkeypatch, limits, left):
    line = after_one_epoch(reporter(tiny_recipe, **limits), monkeypatch)
    assert left in line
    assert "0.5 steps/s  50 tokens/s" in line


def test_nothing_is_left_after_the_last_epoch(tiny_recipe, monkeypatch):
    assert "left" not in after_one_epoch(reporter(tiny_recipe, epochs=1), monkeypatch)


def test_bits_are_of_what_the_vocabulary_holds(tiny_recipe, monkeypatch):
    """The recipe is one of characters; its data may be words."""
    assert "bits/char 2" in after_one_epoch(reporter(tiny_recipe, level="character"), monkeypatch)
    for level in ("word", None):
        line = after_one_epoch(reporter(tiny_recipe, level=level), monkeypatch)
        assert "bits/token 2" in line
