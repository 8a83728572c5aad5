"""What a run does and leaves behind."""

import csv
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_seq import training, zoo
from keras_seq.training import building
from keras_seq.training.best_weights import STEP
from keras_seq.training.checkpoint import Checkpoint
from keras_seq.training.reproducibility import order_operations
from keras_seq.training.weights_file import attribute


class Watch(keras.callbacks.Callback):
    """Notes what happens."""

    def __init__(self):
        super().__init__()
        self.events = []
        self.rates = []
        self.traces = []

    def set_model(self, model):
        super().set_model(model)
        self.steps_traced = 0
        loss_terms = model.loss_terms

        def counted(*args, training=None, **kwargs):
            self.steps_traced += bool(training)
            return loss_terms(*args, training=training, **kwargs)

        model.loss_terms = counted

    def on_train_begin(self, logs=None):
        self.events.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(f"batch {batch}")
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(sorted(name for name in logs or () if name.endswith("loss")))
        self.traces.append(self.steps_traced)

    def on_train_end(self, logs=None):
        self.events.append("end")


@pytest.fixture(scope="module")
def finished(tiny_recipe, tiny_text, tmp_path_factory):
    """A finished run and what its callback saw."""
    watch = Watch()
    folder = tmp_path_factory.mktemp("runs") / "finished"
    patient = keras.callbacks.EarlyStopping("val_bits", patience=9)  # its mode follows the metric
    run = training.train(tiny_recipe, tiny_text, folder, callbacks=[watch, patient], verbose=0)
    assert patient.mode == "min"
    return run, watch


def test_the_folder_is_complete(finished, tiny_recipe, tiny_text):
    run, _ = finished
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "backup",
        "best.weights.h5",
        "curves.png",
        "logs",
        "metrics.csv",
        "recipe.json",
        "status.json",
        "vocabulary.txt",
    }
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert run.recipe == tiny_recipe.replace(**{"model.vocabulary_size": run.vocabulary.size})
    status = run.status
    assert (status["state"], status["epoch"], status["step"]) == ("finished", 2, 12)
    assert status["data_dir"] == str(tiny_text.resolve())
    assert training.load_run(run.folder).best_epoch == status["best_epoch"]


@pytest.mark.parametrize("name", ["recipe.json", "status.json"])
def test_a_changed_number_is_noticed(finished, tmp_path, name):
    """And a file without a checksum, as of an earlier version, is taken as it is."""
    copy = training.load_run(shutil.copytree(finished[0].folder, tmp_path / "run"))
    path, read = copy.folder / name, (lambda: copy.recipe, lambda: copy.status)
    read = read[name == "status.json"]
    text, whole = path.read_text(), read()
    document = json.loads(text)
    for place in [i for i, letter in enumerate(text) if letter.isdigit()]:
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        if json.loads(changed) == document:  # 1e-4 and 1e-04
            continue
        path.write_text(changed)
        with pytest.raises(ValueError, match=rf"{name}: .*Restore it"):
            read()
    path.write_text(json.dumps(dict(reversed(document.items()))))
    assert read() == whole
    assert len(document.pop("checksum")) == 64
    path.write_text(json.dumps(document))
    assert read() == whole
    if name == "recipe.json":  # a copy of it may be changed by hand
        changed = json.dumps({**json.loads(text), "epochs": 77})
        assert zoo.Recipe.from_json(changed) == whole.replace(epochs=77)
        path.write_text(changed)
        with pytest.raises(ValueError, match=r"values have changed .* remove the entry `checksum`"):
            read()
    else:
        copy.update_status(epoch=1)
        assert "checksum" in path.read_text() and "checksum" not in copy.status


def test_metrics_rows(finished):
    run, _ = finished
    with run.metrics_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["6", "12"]
    for row in run.history:
        assert row["val_tokens"] == 70
        assert row["tokens"] == 4 * 8 * 6
        assert row["perplexity"] == pytest.approx(np.exp(row["nll"]), rel=1e-5)


def test_callbacks_see_one_training(finished):
    events = finished[1].events
    assert events[0] == "begin"
    assert events.count("begin") == events.count("end") == 1
    assert events[-1] == "end"
    losses = ["loss", "val_loss"]
    epoch = [f"batch {n}" for n in range(6)]
    assert events[1:-1] == [0, *epoch, losses, 1, *epoch, losses]


def test_the_step_is_traced_once(finished):
    first, second = finished[1].traces
    assert first == second


def test_tensorboard_logs(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = finished
    values = {}
    for part in ("train", "validation"):
        reader = EventAccumulator(str(run.logs_folder / part)).Reload()
        for tag in reader.Tags()["scalars"]:
            values[part, tag] = [(event.step, event.value) for event in reader.Scalars(tag)]
    assert {"loss", "learning_rate", "epoch_loss"} <= {
        tag for part, tag in values if part == "train"
    }
    steps, losses = zip(*values["validation", "nll"], strict=True)
    assert steps == (6, 12)
    assert losses == pytest.approx([row["val_nll"] for row in run.history])


def test_evaluate_is_exact_and_repeatable(finished):
    run, _ = finished
    first = training.evaluate(run)
    again = training.evaluate(run.folder)
    assert first["tokens"] == 50
    assert first["nll"] == again["nll"]
    validation = training.evaluate(str(run.folder), split="validation")
    assert validation["tokens"] == 70
    best = run.history[run.best_epoch - 1]
    assert validation["nll"] == pytest.approx(best["val_nll"], rel=1e-5)
    assert validation["perplexity"] == pytest.approx(best["val_perplexity"], rel=1e-5)
    last = training.evaluate(run, split="validation", weights="last")
    assert last["nll"] == pytest.approx(run.history[-1]["val_nll"], rel=1e-5)
    with pytest.raises(ValueError, match="`split` must be one of"):
        training.evaluate(run, split="train")


def test_a_run_goes_on_with_more_epochs(finished, tmp_path, tiny_recipe, tiny_text):
    constant = tiny_recipe.replace(**{"schedule.name": "constant"})
    parts = tmp_path / "parts"
    training.train(constant, tiny_text, parts, epochs=1, verbose=0)
    extended = training.train(run_dir=parts, epochs=2, resume=True, verbose=0)
    whole = training.train(constant, tiny_text, tmp_path / "whole", verbose=0)
    assert extended.history[1]["val_nll"] == pytest.approx(whole.history[1]["val_nll"], rel=1e-5)
    before = (extended.folder / "metrics.csv").read_bytes()
    again = training.train(run_dir=parts, resume=True, verbose=0)
    assert again.status["state"] == "finished"
    assert (extended.folder / "metrics.csv").read_bytes() == before


def test_max_steps_ends_within_an_epoch_and_goes_on(tmp_path, tiny_recipe, tiny_text):
    # The tokens that were trained on: fewest in a part of an epoch, the same in whole ones.
    recipe = tiny_recipe.replace(**{"schedule.name": "constant", "monitor": "tokens"})
    folder = tmp_path / "run"
    run = training.train(recipe, tiny_text, folder, max_steps=8, verbose=0)
    assert [row["step"] for row in run.history] == [6, 8]
    assert run.status["reason"] == "8 steps are done"
    assert run.best_epoch == 2 and attribute(run.weights_file, STEP) == 8
    run = training.train(run_dir=folder, max_steps=12, resume=True, verbose=0)
    # The part of an epoch is dropped from the rows, and so are its weights.
    assert run.best_epoch == 1 and attribute(run.weights_file, STEP) == 6
    assert not run.former_weights_file.exists()
    assert [row["step"] for row in run.history] == [6, 12]
    assert run.history[1]["tokens"] == 4 * 8 * 6  # the means cover the whole epoch


@pytest.mark.slow
def test_best_weights_agree_with_the_rows_of_a_run_that_goes_on(
    tmp_path, tiny_recipe, tiny_text, monkeypatch
):
    """A part of an epoch that was the best is dropped from the rows, and so are its weights."""
    # The tokens that were trained on: fewest in a part of an epoch, the same in whole ones.
    changes = {"schedule.name": "constant", "monitor": "tokens", "epochs": 3}
    recipe, folder = tiny_recipe.replace(**changes), tmp_path / "run"

    def best(run):
        return run.load_model().get_weights()

    def same(ours, theirs):
        return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

    run = training.train(recipe, tiny_text, folder, max_steps=6, verbose=0)
    first = best(run)
    resume = {"run_dir": folder, "resume": True, "verbose": 0}

    def killed(self, path):
        raise KeyboardInterrupt

    # Killed between the weights and the checkpoint, also of a whole epoch.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", killed)
        training.train(**resume, max_steps=8)
    assert run.former_weights_file.is_file()
    assert same(best(run), first) and run.best_epoch == 1
    run = training.train(**resume, max_steps=8)
    part = best(run)
    assert run.best_epoch == 2 and not same(part, first)
    last = run.load_model("last").get_weights()
    assert same(part, last)
    run = training.train(**resume, max_steps=12)
    assert [row["step"] for row in run.history] == [6, 12]
    assert run.best_epoch == 1 and same(best(run), first)
    assert not run.former_weights_file.exists()
    # Without a whole epoch there is no best one.
    alone = training.train(recipe, tiny_text, tmp_path / "alone", max_steps=2, verbose=0)
    assert alone.best_epoch == 1

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    resume["run_dir"] = alone.folder
    alone = training.train(**resume, max_steps=4, callbacks=[Stop()])
    assert alone.history == [] and alone.status["step"] == 3
    with pytest.raises(FileNotFoundError, match="No epoch has ended yet"):
        alone.load_model()


def test_schedule_and_early_stopping_work_in_a_run(tmp_path, tiny_recipe, tiny_text):
    recipe = tiny_recipe.replace(
        **{
            "optimizer.learning_rate": 1e-9,  # no epoch is clearly better than the one before
            "schedule.name": "milestones",
            "schedule.milestones": (2,),
            "schedule.factor": 0.5,
            "schedule.minimum": 0.0,
            "early_stopping": 2,
            "monitor": "val_tokens",  # stays the same
            "epochs": 9,
        }
    )
    run = training.train(recipe, tiny_text, tmp_path / "run", verbose=0)
    assert len(run.history) == 3
    assert run.best_epoch == 1
    assert "no better val_tokens in 2 epochs" in run.status["reason"]
    rates = [row["learning_rate"] for row in run.history]
    assert rates == [1e-9, 5e-10, 5e-10]


def test_not_a_number_stops_the_run_and_keeps_good_weights(tmp_path, tiny_recipe, tiny_text):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 9:
                weight = self.model.trainable_variables[0]
                weight.assign(weight * np.nan)

    folder = tmp_path / "run"
    with pytest.raises(training.TrainingError, match="the loss is nan at step 10"):
        training.train(tiny_recipe, tiny_text, folder, callbacks=[Poison()], verbose=0)
    run = training.load_run(folder)
    assert run.status["state"] == "stopped"
    assert "nan" in run.status["reason"]
    for which in ("best", "last"):
        assert all(np.isfinite(w).all() for w in run.load_model(which).get_weights())
    assert Checkpoint.load(run.checkpoint_file).meta["step"] == 6
    assert np.isfinite(training.evaluate(run)["nll"])


def test_ctrl_c_saves_and_resumes(tmp_path, tiny_recipe, tiny_text):
    class Press(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 8:
                os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "run"
    run = training.train(tiny_recipe, tiny_text, folder, callbacks=[Press()], verbose=0)
    assert (run.status["state"], run.status["reason"]) == ("stopped", "interrupted")
    assert run.status["step"] == 8
    run = training.train(run_dir=folder, resume=True, verbose=0)
    assert (run.status["state"], run.status["step"]) == ("finished", 12)


def test_refusals(finished, tmp_path, tiny_recipe, tiny_text, monkeypatch):
    run, _ = finished
    with pytest.raises(FileExistsError, match="holds a run already"):
        training.train(tiny_recipe, tiny_text, run.folder, verbose=0)
    with pytest.raises(ValueError, match="begun with other settings"):
        other = tiny_recipe.replace(**{"model.units": 4})
        training.train(other, tiny_text, run.folder, resume=True, verbose=0)
    with pytest.raises(ValueError, match="holds a run of trellisnet_python_docs"):
        training.train("trellisnet_adding", run_dir=run.folder, resume=True, verbose=0)
    with pytest.raises(ValueError, match="`seed`"):
        training.train(run_dir=run.folder, seed=2, resume=True, verbose=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        training.train(resume=True, verbose=0)
    with pytest.raises(ValueError):
        training.train(tiny_recipe, tmp_path / "nothing", verbose=0)
    assert not (tmp_path / "runs").exists()  # nothing is left of a run that could not begin
    with pytest.raises(ValueError, match="neither a run folder nor a model file"):
        training.evaluate("trellisnet_python_doc")
    with pytest.raises(ValueError, match="`monitor` must be one of: val_loss, val_nll, .*val_nl'"):
        bad = tiny_recipe.replace(monitor="val_nl")
        training.train(bad, tiny_text, tmp_path / "bad", verbose=0)
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="`optimizer.name` must be one of"):
        bad = tiny_recipe.replace(**{"optimizer.name": "SGDD"})
        training.train(bad, tiny_text, tmp_path / "bad", verbose=0)


@pytest.mark.slow
def test_default_folders_are_numbered_and_newest_is_resumed(
    tmp_path, tiny_recipe, tiny_text, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe.replace(epochs=1)
    first = training.train(recipe, tiny_text, max_steps=1, verbose=0)
    second = training.train(recipe, tiny_text, max_steps=1, verbose=0)
    names = [first.folder.name, second.folder.name]
    assert names == ["trellisnet_python_docs-1", "trellisnet_python_docs-2"]
    os.utime(first.folder, (1, 1))
    resumed = training.train(resume=True, max_steps=2, verbose=0)
    assert resumed.folder == second.folder
    assert resumed.status["step"] == 2


def test_two_processes_do_not_share_a_folder(finished):
    fcntl = pytest.importorskip("fcntl")
    run, _ = finished
    with (run.folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            training.train(run_dir=run.folder, resume=True, verbose=0)


def test_a_folder_in_which_another_begins_meanwhile(tmp_path, tiny_recipe, tiny_text, monkeypatch):
    """The run of whoever came first stays as it is."""
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    load_data = building.load_data

    def other_first(recipe, *arguments, **changes):
        folder.mkdir()
        (folder / "recipe.json").write_text(tiny_recipe.replace(seed=7).to_json())
        return load_data(recipe, *arguments, **changes)

    with monkeypatch.context() as patch, pytest.raises(FileExistsError, match="a run already"):
        patch.setattr(building, "load_data", other_first)
        training.train(tiny_recipe, tiny_text, folder, max_steps=5, verbose=0)
    assert training.load_run(folder).recipe.seed == 7
    assert not (folder / "status.json").exists() and not (folder / "vocabulary.txt").exists()
    # The other has only just begun.
    empty = tmp_path / "empty"
    empty.mkdir()
    with (empty / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            training.train(tiny_recipe, tiny_text, empty, max_steps=1, verbose=0)
    assert {path.name for path in empty.iterdir()} == {".lock", "backup"}


def test_other_data_are_refused_when_a_run_goes_on(finished, tmp_path, tiny_text):
    run, _ = finished
    other = tmp_path / "other"
    other.mkdir()
    swap = bytes.maketrans(b"a", b"z")  # as many tokens
    for file in tiny_text.iterdir():
        (other / file.name).write_bytes(file.read_bytes().translate(swap))
    before = run.vocabulary_file.read_bytes()
    with pytest.raises(ValueError, match="must have the tokens of .*vocabulary.txt"):
        training.train(run_dir=run.folder, data_dir=other, resume=True, verbose=0)
    assert run.vocabulary_file.read_bytes() == before


@pytest.mark.slow
def test_plain_progress(tmp_path, tiny_recipe, tiny_text):
    console = Console(record=True, width=60, file=(tmp_path / "log").open("w"))
    recipe = tiny_recipe.replace(epochs=1)
    training.train(recipe, tiny_text, tmp_path / "run", console=console)
    lines = console.export_text().splitlines()
    line = next(line for line in lines if line.startswith("epoch 1/1"))
    for word in ("loss", "perplexity", "bits/char", "validation:", "steps/s", "tokens/s", "best"):
        assert word in line
    bar = Console(record=True, force_terminal=True, file=(tmp_path / "bar").open("w"))
    training.train(recipe, tiny_text, tmp_path / "run2", console=bar, verbose=1)
    assert "epoch 1/1" in bar.export_text()


def test_status_is_strict_json(finished):
    json.loads(finished[0].status_file.read_text(), parse_constant=pytest.fail)


def test_order_of_operations_respects_the_user(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "4")
    order_operations()  # neither changes nor raises
