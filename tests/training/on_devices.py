"""Trains tiny models on one device and on two; `test_devices.py` starts it.

Usage: python on_devices.py FOLDER CASES, where FOLDER has a text and CASES is a JSON object: case →
{"recipe": name, "changes": changes of the recipe}, and perhaps "resume": step after which the run
on two devices is also ended and gone on with. It prints a JSON object: case → how far apart the
ends are and what was logged; with "extra" among the cases, also checks that need no recipe.
"""

import contextlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq import training, zoo

STEPS = 20
TWO = training.strategy("mirrored", devices=2)  # before anything is computed


class Logged(keras.callbacks.Callback):
    """The figures after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({name: float(value) for name, value in (logs or {}).items()})


def train(folder: Path, name: str, entry: dict, strategy, steps: int = STEPS, resume=False):
    recipe = zoo.recipe(entry["recipe"]).replace(**entry["changes"])
    logged = Logged()
    run = training.train(
        recipe,
        folder,
        folder / name,
        max_steps=steps,
        resume=resume,
        callbacks=[logged],
        verbose=0,
        strategy=strategy,
        watch=False,
    )
    return run, logged.steps


def arrays(run: training.Run) -> dict[str, np.ndarray]:
    with np.load(run.checkpoint_file) as archive:
        return {key: archive[key] for key in archive.files if key != "meta"}


def distance(one: dict, two: dict, group: str) -> float:
    keys = [key for key in one if key.startswith(f"{group}/")]
    gaps = [np.abs(one[k].astype("float64") - two[k]).max() for k in keys if one[k].size]
    return float(max(gaps, default=0.0))


def compare(folder: Path, case: str, entry: dict) -> dict:
    two, steps_of_two = train(folder, f"{case}-two", entry, TWO)
    groups = ("model", "optimizer", "carried")
    result: dict = {"status": two.status["strategy"]}
    if "resume" in entry:
        train(folder, f"{case}-resumed", entry, TWO, entry["resume"])
        resumed, _ = train(folder, f"{case}-resumed", entry, TWO, STEPS, resume=True)
        ends = arrays(two), arrays(resumed)
        groups = (*groups, "metrics", "replicas", "replicas_metrics")
        result["resumed"] = {name: distance(*ends, name) for name in groups}
        result["groups"] = sorted({key.split("/")[0] for key in ends[0]})
        return result
    one, steps = train(folder, f"{case}-one", entry, "one")
    ends = arrays(one), arrays(two)
    result["apart"] = {name: distance(*ends, name) for name in groups}
    result["steps"] = [steps, steps_of_two]
    rows = [{k: v for k, v in run.history[-1].items() if k != "seconds"} for run in (one, two)]
    result["rows"] = rows
    # What was trained on two devices is loaded and evaluated on one.
    result["evaluated"] = [training.evaluate(run, split="validation")["loss"] for run in (one, two)]
    return result


def uneven(strategy) -> list:
    """Batches of 4, 4 and 1: the second device has no row of the last one."""
    x = np.random.default_rng(0).normal(size=(9, 6, 2)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :, :1].sum(axis=1))).batch(4)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        keras.utils.set_random_seed(1)
        model = keras_seq.models.SequenceRegressor(keras_seq.layers.LSTM(5, seed=1))
        model.compile(keras_seq.optimizers.Adam(1e-2, global_clipnorm=0.1))
    history = model.fit(data, epochs=2, verbose=0).history
    return [[w.tolist() for w in model.get_weights()], history["loss"], history["mse"]]


def masks() -> list:
    """Dropout masks by model, call and device; the two models have the same seed."""
    drawn = []
    for _ in range(2):
        with TWO.scope():
            core = keras_seq.layers.TrellisNet(4, 6, 2, hidden_dropout=0.5, seed=5)
            model = keras_seq.models.LanguageModel(11, 6, core, input_dropout=0.5, seed=3)
            model.build((None, None))
        call = tf.function(lambda model=model: TWO.run(lambda: model.get_masks(2)["input"]))
        drawn.append(
            [[v.numpy().tolist() for v in TWO.experimental_local_results(call())] for _ in "ab"]
        )
    return drawn


def main() -> None:
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    results: dict = {}
    if cases.pop("extra", False):
        results = {"uneven": [uneven(None), uneven(TWO)], "masks": masks()}
        try:
            training.strategy("mirrored", devices=5)
        except RuntimeError as error:
            results["late"] = str(error)
        results["same"] = training.strategy("mirrored", "cpu:0,CPU:1") is TWO
    results |= {case: compare(folder, case, entry) for case, entry in cases.items()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
