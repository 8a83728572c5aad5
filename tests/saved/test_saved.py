"""Models saved by an earlier version load and answer as they did."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from saved.make_saved import answers

from keras_seq import training

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*/*.keras"))
# One of each model.
QUICK = ("classifier_trellisnet", "frames", "language_model_pru", "regressor_of_steps")


def test_files_are_there():
    assert len(FILES) == 23
    assert all(file.with_suffix(".npz").is_file() for file in FILES)


@pytest.mark.parametrize(
    "file",
    [pytest.param(x, marks=() if x.stem in QUICK else pytest.mark.slow) for x in FILES],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_loads_and_answers_as_before(file):
    model = keras.models.load_model(file)
    with np.load(file.with_suffix(".npz")) as stored:
        want = dict(stored)
    got = answers(model, want["x"], want["y"])
    rtol, atol = (2e-2, 2e-2) if "bfloat16" in file.stem else (2e-4, 2e-5)
    for name in ("predictions", "gradients"):
        np.testing.assert_allclose(got[name], want[name], rtol, atol, err_msg=name)
    metrics = json.loads(str(got["metrics"]))
    for name, value in json.loads(str(want["metrics"])).items():
        if not name.startswith(("steps", "residual", "solver")):
            np.testing.assert_allclose(metrics[name], value, rtol, atol, err_msg=name)


def test_a_run_is_evaluated_and_goes_on(tmp_path):
    before = FOLDER / "0.1"
    want = json.loads((before / "run.json").read_text())
    run = shutil.copytree(before / "run", tmp_path / "run")
    evaluated = training.evaluate(run, before / "text", "validation")
    training.train(None, before / "text", run, resume=True, max_steps=12, verbose=0, watch=False)
    resumed = training.evaluate(run, before / "text", "validation")
    for got, name in ((evaluated, "evaluated"), (resumed, "resumed")):
        for measure, value in want[name].items():
            np.testing.assert_allclose(got[measure], value, rtol=1e-5, err_msg=f"{name} {measure}")
    weights = training.load_run(run).load_model("last").weights
    squares = [float(np.sum(np.square(weight.numpy()))) for weight in weights]
    np.testing.assert_allclose(squares, want["last_weights"], rtol=1e-4)
