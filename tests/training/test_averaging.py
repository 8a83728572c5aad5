"""A run pulls the trigger of NT-ASGD by itself, and keeps both kinds of weights."""

import os
import signal

import keras
import numpy as np
import pytest

from keras_seq import training

AWD = {
    "optimizer.name": "NTASGD",
    "optimizer.learning_rate": 30.0,  # so large that an epoch is soon worse than one before
    "optimizer.options": {"nonmonotone": 0},
    "optimizer.scale_by_length": True,
    "schedule.name": "constant",
    "epochs": 4,
}
STEPS = 6  # of an epoch


class Press(keras.callbacks.Callback):
    """Ctrl-C after some steps."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Trigger(keras.callbacks.Callback):
    """Notes the optimizer and its trigger after each epoch."""

    def __init__(self):
        super().__init__()
        self.triggered = []

    def on_epoch_end(self, epoch, logs=None):
        self.triggered.append(self.model.optimizer.triggered)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_recipe, tiny_text):
    """A run without interruption, and when its trigger was pulled."""
    watch = Trigger()
    run = training.train(
        tiny_recipe.replace(**AWD),
        tiny_text,
        tmp_path_factory.mktemp("averaging") / "whole",
        callbacks=[watch],
        verbose=0,
    )
    return run, watch.triggered


def test_trigger_follows_the_rule(whole):
    run, triggered = whole
    losses = [row["val_nll"] for row in run.history]
    rule = [e > 0 and losses[e] > min(losses[:e]) for e in range(4)]
    assert any(rule[:3])
    assert triggered == [any(rule[: e + 1]) for e in range(4)]


def test_resumes_exactly_after_the_trigger(whole, tmp_path, tiny_text):
    run, triggered = whole
    within = STEPS * (triggered.index(True) + 1) + 3  # in the middle of the next epoch
    stopped = training.train(
        run.recipe, tiny_text, tmp_path / "parts", callbacks=[Press(within)], verbose=0
    )
    assert (stopped.status["reason"], stopped.status["step"]) == ("interrupted", within)
    resumed = training.train(run_dir=stopped.folder, resume=True, verbose=0)
    files = [np.load(r.checkpoint_file) for r in (run, resumed)]
    for key in files[0].files:
        if key != "meta":
            np.testing.assert_array_equal(files[0][key], files[1][key], err_msg=key)
    best = run.history[run.best_epoch - 1]
    again = training.evaluate(resumed, split="validation")
    assert again["nll"] == pytest.approx(best["val_nll"], rel=1e-5)


def test_last_weights_are_those_of_the_last_row(whole):
    run, triggered = whole
    assert triggered[-2]  # the last epoch was measured with the mean
    figures = training.evaluate(run, split="validation", weights="last")
    assert figures["nll"] == pytest.approx(run.history[-1]["val_nll"], rel=1e-5)
    with np.load(run.checkpoint_file) as file:
        raw = [file[key] for key in file.files if key.startswith("model/")]
    model = run.load_model("last")
    same = [np.array_equal(a, b) for a, b in zip(model.variables, raw, strict=True)]
    assert not all(same)


def test_run_stops_by_the_non_monotone_rule(whole, tmp_path, tiny_text):
    run, triggered = whole
    recipe = run.recipe.replace(stop_nonmonotone=0)
    stopped = training.train(recipe, tiny_text, tmp_path / "stopped", verbose=0)
    assert stopped.status["state"] == "finished"
    assert "worse than one more than 0 epochs before" in stopped.status["reason"]
    assert len(stopped.history) == triggered.index(True) + 1
