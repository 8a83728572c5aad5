"""A run that was killed at any moment ends as if it had not been."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_seq import training

SMALL = {
    "model.embedding_dim": 8,
    "model.units": 6,
    "model.output_units": 8,
    "model.levels": 2,
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "epochs": 3,
}
# Everything that has a state: dropout of all kinds, carried state, Adam, a schedule by step.
STATEFUL = {
    **SMALL,
    "model.carry_state": True,
    "model.weight_normalization": True,
    "model.embedding_dropout": 0.1,
    "model.input_dropout": 0.2,
    "model.hidden_dropout": 0.2,
    "model.output_dropout": 0.2,
    "model.weight_dropout": 0.2,
    "schedule.name": "cosine",
    "jit_compile": False,
}
# A schedule by epoch that reads the validation losses, and momentum.
ANNEALED = {
    **SMALL,
    "model.carry_state": False,
    "optimizer.name": "SGD",
    "optimizer.learning_rate": 2.0,
    "optimizer.options": {"momentum": 0.9},
    "schedule.name": "plateau",
    "schedule.patience": 0,
    "schedule.factor": 0.25,
    "schedule.minimum": 0.0,
    "jit_compile": True,
}
# A second stage that begins with the weights of another run.
FINE_TUNED = {
    **STATEFUL,
    "model.hidden_dropout": 0.1,
    "optimizer.name": "NTASGD",
    "optimizer.learning_rate": 1.0,
    "optimizer.options": {"average_from": 0},
    "schedule.name": "constant",
}
KILLS = [
    ["write", "checkpoint.npz", 1],  # before there is any checkpoint
    ["write", "checkpoint.npz", 2],  # while a checkpoint within an epoch is written
    ["step", 5],  # between two checkpoints: steps are repeated
    ["written", "best.weights.h5", 1],  # between best weights and checkpoint
    ["written", "checkpoint.npz", 1],  # between checkpoint and metrics.csv
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders of one recipe, with and without kills."""
    root = tmp_path_factory.mktemp("killed")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 4 * 8 * 6 + 8 + 70)
    text = letters.astype("uint8").tobytes()
    (root / "train.txt").write_bytes(text[:-70])  # six batches
    (root / "valid.txt").write_bytes(text[-70:])
    plan = {
        "stateful": {"changes": STATEFUL, "kills": []},
        "stateful_killed": {"changes": STATEFUL, "kills": KILLS},
    }
    _carry_out(root, plan)
    return root


@pytest.fixture(scope="module")
def more_runs(runs) -> Path:
    """The same of two more recipes, the second of which begins with the weights of the first."""
    plan = {
        "annealed": {"changes": ANNEALED, "kills": []},
        "annealed_killed": {"changes": ANNEALED, "kills": [["step", 9]]},
        "fine_tuned": {"changes": FINE_TUNED, "start": "stateful", "kills": []},
        "fine_tuned_killed": {
            "changes": FINE_TUNED,
            "start": "stateful",
            "kills": [["write", "recipe.json", 1], ["write", "checkpoint.npz", 1], ["step", 5]],
        },
    }
    _carry_out(runs, plan)
    return runs


def _carry_out(root: Path, plan: dict) -> None:
    program = Path(__file__).with_name("killed_runs.py")
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_SEQ_CACHE": str(root / "cache"),
    }
    result = subprocess.run(
        [sys.executable, str(program), str(root), json.dumps(plan)],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment,
        check=False,
    )
    if result.returncode:
        pytest.fail(f"{result.stdout}\n{result.stderr[-3000:]}")


EVERY = [
    pytest.param("stateful", "runs"),
    pytest.param("annealed", "more_runs", marks=pytest.mark.slow),
    pytest.param("fine_tuned", "more_runs", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "fixture"), EVERY)
def test_same_final_state_as_without_kills(name, fixture, request):
    runs = request.getfixturevalue(fixture)
    whole = np.load(runs / name / "backup" / "checkpoint.npz")
    killed = np.load(runs / f"{name}_killed" / "backup" / "checkpoint.npz")
    assert whole.files == killed.files
    for key in whole.files:
        if key != "meta":  # weights, optimizer, seeds, metrics, carried state
            np.testing.assert_array_equal(killed[key], whole[key], err_msg=key)


@pytest.mark.parametrize(("name", "fixture"), EVERY)
def test_same_rows_and_status(name, fixture, request):
    runs = request.getfixturevalue(fixture)
    rows = []
    for folder in (name, f"{name}_killed"):
        with (runs / folder / "metrics.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
        for row in rows[-1]:
            del row["seconds"]
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]
    status = json.loads((runs / f"{name}_killed" / "status.json").read_text())
    assert (status["state"], status["epoch"], status["step"]) == ("finished", 3, 18)


def test_best_weights_are_the_same(runs):
    models = [
        training.load_run(runs / name).load_model() for name in ("stateful", "stateful_killed")
    ]
    for whole, killed in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(killed, whole)


def test_callback_state_is_resumed(runs):
    meta = np.load(runs / "stateful_killed" / "backup" / "checkpoint.npz")["meta"]
    assert json.loads(bytes(meta))["callbacks"] == [18]


def test_nothing_temporary_is_left(runs):
    left = [p.name for p in (runs / "stateful_killed").rglob("*.tmp*")]
    assert left == []
