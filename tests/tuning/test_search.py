"""Searches: all tuners, trials that fail, resuming, tables and pictures, several processes."""

import csv
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from keras_seq import _files, layers, models, training, tuning, zoo
from keras_seq.cli.app import app
from keras_seq.tuning import tuners
from keras_seq.tuning.trial import TrialFailed, Trials

HERE = Path(__file__).parent
DRAW = tuning.Results.draw
SPACE = {
    "model.units": tuning.Choice((8, 16)),
    "optimizer.learning_rate": tuning.Float(1e-4, 0.5, sampling="log", default=1e-3),
    "switch.stack": tuning.Choice((False, True), sets={"False": {"model.layers": 1}}),
    "model.layers": tuning.Int(2, 3, when={"switch.stack": (True,)}),
}


@pytest.fixture
def no_training(monkeypatch):
    """Trials that take no time: the closer the learning rate is to 0.01 the better."""
    calls = []

    def run(self, values, folder, former=None, epochs=None, callbacks=()):
        recipe = self.recipe_of(values)
        calls.append((folder.parent.name, former and former.parent.name, epochs))
        if recipe.model["units"] == 16 and recipe.model["layers"] == 3:
            raise TrialFailed("the loss is nan at step 2")
        folder.mkdir(exist_ok=True)
        (folder / "recipe.json").write_text(recipe.to_json())
        rate = recipe.optimizer.learning_rate
        value = abs(rate - 0.01) if self.objective.direction == "min" else -abs(rate - 0.01)
        return {"value": value, "best_epoch": 1, "epochs": epochs or 3, "seconds": 1.0,
                "parameters": 100, "metrics": {}}  # fmt: skip

    monkeypatch.setattr(Trials, "run", run)
    monkeypatch.setattr(tuning.Results, "draw", lambda self: None)
    return calls


@pytest.mark.parametrize(
    ("tuner", "goal", "trials"), [("random", "bits", 8), ("bayesian", "accuracy", 3)]
)
def test_tuners(tuner, goal, trials, tiny_recipe, tmp_path, no_training):
    options = {"objective": goal, "space": SPACE, "run_dir": tmp_path / "s", "seed": 1}
    results = tuning.search(tiny_recipe, tuner, trials, verbose=0, **options)
    assert len(results.rows) == len(no_training) == trials
    (first,) = (row for row in results.rows if row["trial"] == "0")
    assert first["values"] == {
        "model.units": 8, "optimizer.learning_rate": 1e-3, "switch.stack": False
    }  # fmt: skip
    rates = [row["values"]["optimizer.learning_rate"] for row in results.rows]
    completed = rates[: results.count("completed")]
    assert completed == sorted(completed, key=lambda rate: abs(rate - 0.01))
    assert results.best_recipe.optimizer.learning_rate == pytest.approx(rates[0], rel=1e-4)
    assert results.best_recipe.monitor == f"val_{goal}"


def test_one_seed_gives_one_search(tiny_recipe, tmp_path, no_training):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        results = tuning.search(
            tiny_recipe, trials=3, space=SPACE, run_dir=tmp_path / name, seed=seed, verbose=0
        )
        found.append([row["values"] for row in results.rows])
    assert found[0] == found[1] != found[2]


def test_hyperband(tiny_recipe, tmp_path, no_training):
    """Brackets: three trials of one epoch, the best of them goes on to three; then whole ones."""
    results = tuning.search(
        tiny_recipe, "hyperband", epochs=3, space=SPACE, run_dir=tmp_path / "s", seed=1, verbose=0
    )
    short = {name for name, _, epochs in no_training if epochs == 1}
    promoted = [(name, former) for name, former, _ in no_training if former]
    assert len(promoted) == 1
    assert promoted[0][1] in short
    values = {f"trial_{row['trial']}": row["values"] for row in results.rows}
    assert values[promoted[0][0]] == values[promoted[0][1]]
    assert {epochs for _, _, epochs in no_training} == {1, 3}


@pytest.mark.slow
def test_a_promoted_trial_goes_on(tiny_recipe, tiny_text, tmp_path):
    """It has the epochs of the former one and repeats none; the schedule spans all of them."""
    trials = Trials(tiny_recipe, SPACE, tuning.objective("bits"), tiny_text)
    first, second, whole = (tmp_path / name / "run" for name in ("1", "2", "3"))
    values = {"model.units": 8}
    for folder in (first, second, whole):
        folder.parent.mkdir()
    one = trials.run(values, first, epochs=1)
    assert one["epochs"] == 1
    assert trials.run(values, first, epochs=1) == one  # there is nothing left to do
    three = trials.run(values, second, former=first, epochs=3)
    expected = trials.run(values, whole, epochs=3)
    assert three["value"] == pytest.approx(expected["value"], rel=1e-6)
    rates = [
        [row["learning_rate"] for row in training.load_run(f).history] for f in (second, whole)
    ]
    assert rates[0] == rates[1]
    assert len(rates[0]) == 3


def training_graphs() -> set[int]:
    """The graphs of Keras' training steps that are alive."""
    gc.collect()
    graphs = (found for found in gc.get_objects() if isinstance(found, FuncGraph))
    return {id(graph) for graph in graphs if "one_step_on_data" in graph.name}


def test_failed_trials_and_the_best_recipe(tiny_recipe, tiny_text, tmp_path):
    """A model that is too large and one that diverges fail; the best one trains again."""
    space = {
        "model.embedding_dim": tuning.Choice((8, 64), default=64),
        "optimizer.learning_rate": tuning.Choice((1e-3, 3e38), default=1e-3),
    }
    options = {"space": space, "data_dir": tiny_text, "max_parameters": 5000, "verbose": 0}
    folder = tmp_path / "search"
    before = training_graphs()
    results = tuning.search(
        tiny_recipe.replace(**{"optimizer.global_clipnorm": None, "optimizer.name": "SGD"}),
        trials=4, epochs=1, run_dir=folder, seed=0, **options,
    )  # fmt: skip
    assert training_graphs() <= before
    reasons = {row["trial"]: row["reason"] for row in results.rows if row["status"] == "failed"}
    assert "are more than the 5,000 allowed" in reasons["0"]
    assert any("loss is" in reason or "not a finite" in reason for reason in reasons.values()), (
        results.rows
    )
    assert results.best is not None
    assert results.best["values"] == {"model.embedding_dim": 8, "optimizer.learning_rate": 1e-3}
    recipe = zoo.Recipe.from_json((folder / "best_recipe.json").read_text())
    run = training.train(recipe, tiny_text, tmp_path / "again", verbose=0)
    assert run.history[-1]["val_nll"] == pytest.approx(results.best["value"], rel=1e-6)
    assert sum(w.shape.num_elements() for w in run.load_model().trainable_weights) == (
        recipe.parameters
    )
    with (folder / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == [row["trial"] for row in results.rows]
    assert json.loads((folder / "results.json").read_text())["objective"] == "val_nll"
    _check_hparams(folder, results)


def _check_hparams(folder, results):
    """TensorBoard finds the experiment, a session a trial, and the metric of the good ones."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    def content(path):
        events = EventAccumulator(str(path)).Reload()
        tags = events.PluginTagToContent(metadata.PLUGIN_NAME)
        return {tag: metadata.parse_session_start_info_plugin_data(data) if "start" in tag
                else data for tag, data in tags.items()}  # fmt: skip

    assert metadata.EXPERIMENT_TAG in content(folder)
    for row in results.rows:
        own = folder / f"trial_{row['trial']}"
        found = content(own)
        values = found[metadata.SESSION_START_INFO_TAG].hparams
        assert values["model.embedding_dim"].number_value == row["values"]["model.embedding_dim"]
        assert metadata.SESSION_END_INFO_TAG in found
    best = folder / f"trial_{results.best['trial']}" / "run" / "logs" / "validation"
    assert "nll" in EventAccumulator(str(best)).Reload().Tags()["scalars"]


def test_pictures(tiny_recipe, tmp_path, no_training, monkeypatch):
    monkeypatch.setattr(tuning.Results, "draw", DRAW)
    results = tuning.search(
        tiny_recipe, trials=6, space=SPACE, run_dir=tmp_path / "s", seed=4, verbose=0
    )
    assert (results.folder / "results.png").read_bytes().startswith(b"\x89PNG")
    assert tuning.load_results(results.folder) == results
    assert results.table().row_count >= 7


def test_a_search_without_a_good_trial(tiny_recipe, tmp_path, monkeypatch):
    def fail(self, *arguments, **options):
        raise TrialFailed("the loss is nan at step 1")

    monkeypatch.setattr(Trials, "run", fail)
    with pytest.raises(tuning.TuningError, match="loss is nan at step 1"):
        tuning.search(tiny_recipe, trials=4, space=SPACE, run_dir=tmp_path / "s", verbose=0)
    assert len(tuning.load_results(tmp_path / "s").rows) == 4


def test_missing_data_ends_the_search(tiny_recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        tuning.search(
            tiny_recipe, data_dir=tmp_path / "none", space=SPACE, run_dir=tmp_path / "s", verbose=0
        )


def test_what_is_refused(tiny_recipe, tmp_path, no_training, monkeypatch):
    folder = tmp_path / "s"
    tuning.search(tiny_recipe, trials=1, space=SPACE, run_dir=folder, verbose=0)
    with pytest.raises(FileExistsError, match="--resume"):
        tuning.search(tiny_recipe, run_dir=folder)
    with pytest.raises(ValueError, match="over pru_python_docs"):
        tuning.search("trellisnet_python_docs", run_dir=folder, resume=True)
    with pytest.raises(ValueError, match="begun, with tuner='random'. Received: tuner='bayesian'"):
        tuning.search(tuner="bayesian", run_dir=folder, resume=True)
    with pytest.raises(ValueError, match="with seed=None. Received: seed=3"):
        tuning.search(seed=3, run_dir=folder, resume=True)
    (folder / "trial_0" / "run").mkdir(parents=True, exist_ok=True)
    (folder / "trial_0" / "run" / "recipe.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="holds a run"):
            tuning.search(tiny_recipe, run_dir=folder / "trial_0" / "run", resume=resume)
        with pytest.raises(FileExistsError, match="holds a search, and a run has a folder of its"):
            training.train(tiny_recipe, run_dir=folder, resume=resume)
    with pytest.raises(ValueError, match="`tuner` must be one of"):
        tuning.search(tiny_recipe, "grid", space=SPACE, run_dir=tmp_path / "t")
    with pytest.raises(ValueError, match="`trials` must be positive"):
        tuning.search(tiny_recipe, trials=0, run_dir=tmp_path / "t")
    with pytest.raises(ValueError, match="must be 'mirrored'"):
        tuning.search(tiny_recipe, strategy="parameters", run_dir=tmp_path / "t")
    with pytest.raises(FileNotFoundError, match="no search to resume"):
        tuning.search(run_dir=tmp_path / "none", resume=True)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(ValueError, match="Missing: KERASTUNER_ORACLE_PORT, KERASTUNER_TUNER_ID"):
        tuning.search(tiny_recipe, run_dir=tmp_path / "t")


def test_a_changed_number_is_noticed(tiny_recipe, tmp_path, no_training):
    folder = tmp_path / "s"
    options = {"run_dir": folder, "verbose": 0}
    tuning.search(tiny_recipe, trials=2, space=SPACE, seed=2, **options)
    names = ("search.json", "trial_0/trial.json", "trial_0/result.json", "oracle.json")
    for name in names:
        path = folder / name
        text = path.read_text()
        place = next(i for i, letter in enumerate(text) if letter in "123456789")
        path.write_text(f"{text[:place]}{int(text[place]) % 9 + 1}{text[place + 1 :]}")
        with pytest.raises(ValueError, match=rf"{name}: its values have changed.*Restore it"):
            tuning.load_results(folder)
            tuning.search(trials=3, resume=True, **options)
        path.write_text(text)
    for name in names:  # as an earlier version wrote them
        document = json.loads((folder / name).read_text())
        assert document.pop("checksum")
        (folder / name).write_text(json.dumps(document))
    assert len(tuning.search(trials=3, resume=True, **options).rows) == 3


def test_more_trials_by_resuming(tiny_recipe, tmp_path, no_training):
    options = {"run_dir": tmp_path / "s", "verbose": 0}
    tuning.search(tiny_recipe, trials=2, space=SPACE, seed=2, **options)
    results = tuning.search(trials=5, resume=True, **options)
    assert len(results.rows) == 5
    assert [name for name, _, _ in no_training] == [f"trial_{n}" for n in range(5)]


def test_an_interrupted_trial_goes_on(tiny_recipe, tmp_path, no_training, monkeypatch):
    """Ctrl-C ends the search; the trial keeps its number and values, and is run again."""
    run, seen = Trials.run, []

    def interrupted(self, values, folder, **options):
        seen.append(dict(values))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return run(self, values, folder, **options)

    monkeypatch.setattr(Trials, "run", interrupted)
    options = {"run_dir": tmp_path / "s", "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        tuning.search(tiny_recipe, trials=3, space=SPACE, seed=2, **options)
    assert tuning.load_results(tmp_path / "s").count("running") == 1
    results = tuning.search(resume=True, **options)
    assert results.count("completed") + results.count("failed") == 3
    assert seen[1] == seen[2]
    assert len(seen) == 4


IN_A_TRIAL = ["epoch", 1, 1]  # its second epoch
IN_FILES = (["write", "oracle.json", 2], ["written", "trial.json", 2])


@pytest.mark.slow
@pytest.mark.parametrize("plan", [[IN_A_TRIAL], [IN_FILES[0], IN_A_TRIAL, IN_FILES[1]]])
def test_a_search_that_is_killed_goes_on(plan, tiny_text, tmp_path):
    """SIGKILL within a trial, while the oracle's file is written, and just after."""
    folder = tmp_path / "search"
    program = [sys.executable, str(HERE / "killed_searches.py"), folder, tiny_text]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [*map(str, program), json.dumps(plan)],
        capture_output=True, text=True, timeout=500, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    results = tuning.load_results(folder)
    assert [row["status"] for row in results.rows] == ["completed"] * 2
    assert len({json.dumps(row["values"]) for row in results.rows}) == 2
    assert all(row["epochs"] == 2 for row in results.rows)
    assert (folder / "best_recipe.json").is_file()


@pytest.mark.slow
def test_hypermodel_with_a_tuner_of_ones_own(tiny_recipe, tiny_text, tmp_path):
    import keras_tuner

    space = {"data.length": tuning.Choice((8,)), "model.embedding_dim": tuning.Choice((8, 64))}
    model = tuning.hypermodel(
        tiny_recipe, space, "bits", tiny_text, max_steps=3, max_parameters=5000
    )
    tuner = keras_tuner.GridSearch(
        model, keras_tuner.Objective("val_bits", "min"), max_trials=2, directory=tmp_path
    )
    tuner.search(epochs=1, verbose=0)
    trials = tuner.oracle.trials.values()
    assert sorted(trial.status for trial in trials) == ["COMPLETED", "FAILED"]
    best = tuner.get_best_models()[0]
    assert best.count_params() < 5000


@pytest.mark.slow
def test_a_tuner_of_ones_own_over_a_model_of_ours(tmp_path):
    """KerasTuner asks for the direction of `val_perplexity` in words; `objective` knows it."""
    import keras_tuner

    ids = np.random.default_rng(0).integers(0, 7, (4, 5))

    def build(hp):
        core = layers.LSTM(4)
        model = models.LanguageModel(7, 4, core, seed=1)
        model.compile(keras.optimizers.SGD(hp.Choice("rate", [1e-3, 1.0])))
        return model

    with pytest.raises(ValueError, match="Could not infer optimization direction"):
        keras_tuner.GridSearch(build, "val_perplexity", directory=tmp_path)
    goal = tuning.objective("perplexity")
    tuner = keras_tuner.GridSearch(
        build, keras_tuner.Objective(goal.name, goal.direction), directory=tmp_path
    )
    tuner.search(ids, ids, validation_data=(ids, ids), epochs=2, verbose=0)
    scores = [float(trial.score or 0) for trial in tuner.oracle.get_best_trials(2)]
    assert len(scores) == 2 and scores == sorted(scores)
    assert tuner.get_best_hyperparameters()[0].values["rate"] == 1.0


@pytest.mark.slow
def test_mirrored_strategy(tiny_text, tmp_path):
    """A trial on two devices gives what one device gives."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = [sys.executable, str(HERE / "on_two_devices.py"), str(tmp_path), str(tiny_text)]
    result = subprocess.run(
        program, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    one, two, replicas = json.loads(result.stdout.splitlines()[-1])
    assert replicas == 2
    assert one == pytest.approx(two, rel=1e-5)


def test_the_command(tiny_text, tmp_path):
    """tune, then train --recipe with what it found."""
    from typer.testing import CliRunner

    settings = {"embedding_dim": 8, "units": 8, "layers": 1, "unit": "lstm", "data.name": "text",
                "batch_size": 4, "eval_batch_size": 2, "length": 8}  # fmt: skip
    changes = [f"{key}={value}" for key, value in settings.items()]
    changes.append('data.options={"cache_dir": false}')
    words = ["tune", "pru_python_docs", "--trials", "1", "--epochs", "1", "--max-steps", "2"]
    words += [word for change in changes for word in ("--set", change)]
    file = tmp_path / "space.json"
    tuning.save_space({"model.units": tuning.Choice((8, 16))}, file)
    words += ["--space", file, "--objective", "perplexity", "--seed", "1", "--json"]
    words += ["--data-dir", tiny_text, "--run-dir", tmp_path / "s"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["objective"], document["completed"]) == ("val_perplexity", 1)
    words = ["train", "--recipe", document["best_recipe"], "--data-dir", str(tiny_text)]
    words += ["--run-dir", str(tmp_path / "run"), "--max-steps", "2", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "finished"


def test_the_command_refuses(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    def call(*words):
        return CliRunner().invoke(app, ["tune", *words])

    assert call("--tuner", "grid").exit_code == 2
    assert call("--objective", "beauty").exit_code == 2
    assert call("no_such_model").exit_code == 2
    assert call("--resume", "--set", "units=3").exit_code == 2
    shown = call("pru_python_docs", "--show-space")
    assert json.loads(shown.stdout)["model.unit"]["values"] == ["pru", "lstm"]
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    result = call("--run-dir", str(tmp_path / "s"))
    assert result.exit_code == 1
    assert 'pip install "keras-seq[tuning]"' in result.stderr
    assert not (tmp_path / "s").exists()


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def _starter(folder, data):
    """Starts processes of one search by name."""
    port = str(_free_port())
    command = [sys.executable, str(HERE / "one_of_many.py"), str(folder), str(data)]

    def start(name, *more):
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": port,
        }
        return subprocess.Popen(
            [*command, *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return start


def _ends(processes, seconds=400):
    """Exit codes and last words of processes, none of which outlives this."""
    try:
        texts = [process.communicate(timeout=seconds)[0].decode()[-2000:] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts


@pytest.mark.slow
def test_chief_and_workers(tiny_text, tmp_path):
    """Two workers share a search; one is killed within a trial, and the other takes it over."""
    folder = tmp_path / "search"
    start = _starter(folder, tiny_text)
    codes, texts = _ends([start("chief"), start("worker0", "die"), start("worker1")])
    assert codes == [0, -9, 0], texts
    results = tuning.load_results(folder)
    assert [row["status"] for row in results.rows] == ["completed"] * 4
    assert (folder / "best_recipe.json").is_file()


@pytest.mark.slow
def test_a_chief_that_is_killed_goes_on(tiny_text, tmp_path):
    """Its worker waits for it, and what the worker ended meanwhile is not lost."""
    folder = tmp_path / "search"
    start = _starter(folder, tiny_text)
    chief, worker = start("chief"), start("worker0")
    try:
        until = time.monotonic() + 200
        while not list(folder.glob("trial_*/result.json")) and time.monotonic() < until:
            time.sleep(0.1)
        before = {path.parent.name for path in folder.glob("trial_*/result.json")}
        chief.kill()
        chief.wait()
        time.sleep(3)
        again = start("chief", "resume")
    finally:
        if not chief.returncode:
            worker.kill()
    codes, texts = _ends([again, worker])
    assert before
    assert codes == [0, 0], texts
    results = tuning.load_results(folder)
    assert [row["status"] for row in results.rows] == ["completed"] * 4
    assert before <= {f"trial_{row['trial']}" for row in results.rows}
    assert all(row["epochs"] == 2 for row in results.rows)


def test_a_trial_that_is_still_trained_is_waited_for(tmp_path, monkeypatch):
    """The chief may take a worker for dead that is not."""
    monkeypatch.setattr(tuners, "BEAT", 0.05)
    tuners.wait_for(tmp_path / "none")
    held, released = threading.Event(), []

    def hold():
        with _files.lock(tmp_path):
            held.set()
            time.sleep(0.5)
            released.append(True)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    tuners.wait_for(tmp_path)
    assert released
    other.join()
