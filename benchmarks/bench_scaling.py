"""Scaling: steps a second on two devices, bytes all-reduced a step, memory a device.

    python benchmarks/run.py scaling_speed
    python benchmarks/run.py scaling_bytes --json   # or benchmarks/bench_scaling.py, for a table
    python benchmarks/run.py scaling_memory

`scaling_speed` trains on one and on two logical devices of the CPU. They share its cores: what it
measures is what dividing a batch costs, and no speed-up is to be expected.

`scaling_bytes` gives for every model of the zoo the gradients that are added up over the devices in
each step: its trainable parameters in float32, dense, clipped or not. The parameters are those of
the recipes, which the zoo's tests hold equal to those of built models; that a step adds them up
once is held by the tests of the optimizers.

`scaling_memory` measures what a training step adds to the memory of the built model, weights and
optimizer included: for a model of many parameters and few tokens, in copies of its gradient; for
one of few parameters and many tokens, in bytes a token.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import benchmark, resident

MODEL = "trellisnet_python_docs"
ROUNDS, STEPS = 5, 10
LARGE, FEW = "trellisnet_wt103", (1, 16)  # lanes and window
SMALL, MANY = "trellisnet_python_docs", ((32, 64), (64, 64), (128, 64))


def random_batches(vocabulary: int, batch_size: int, length: int, steps: int):
    """Random ids of the right shape."""
    import numpy as np
    import tensorflow as tf

    ids = np.random.default_rng(0).integers(0, vocabulary, (steps * batch_size, length + 1))
    ids = ids.astype("int32")
    data = tf.data.Dataset.from_tensor_slices((ids[:, :-1], ids[:, 1:]))
    return data.batch(batch_size, drop_remainder=True)


def compiled(name: str, strategy: Any = None):
    """A recipe's model, compiled without XLA."""
    import contextlib

    from keras_seq import zoo
    from keras_seq.training import building

    recipe = zoo.recipe(name)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = building.build_model(recipe)
        building.compile_model(model, recipe, devices=2)
    return recipe, model


@benchmark("scaling_speed", "training steps a second at one and two logical devices of the CPU")
def scaling_speed() -> dict[str, Any]:
    """Steps a second of `fit` in turns, the same whole batch on one device and on two.

    A step is timed from its beginning to its end. What `fit` takes beside its steps, once an epoch,
    is told apart: under a strategy it makes iterators for all devices, and deletes them.
    """
    import keras

    from keras_seq import training

    class Steps(keras.callbacks.Callback):
        seconds = 0.0

        def on_train_batch_begin(self, batch, logs=None):
            self.begun = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.seconds += time.perf_counter() - self.begun

    two = training.strategy("mirrored", devices=2)
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    beside: dict[str, list[float]] = {"one": [], "two": []}
    works = {}
    for key, strategy in (("one", None), ("two", two)):
        recipe, model = compiled(MODEL, strategy)
        size = recipe.data.batch_size
        data = random_batches(model.vocabulary_size, size, recipe.data.length or 1, STEPS)
        model.fit(data, verbose=0, shuffle=False)
        works[key] = (model, data)
    for _ in range(ROUNDS):
        for key, (model, data) in works.items():
            steps, begun = Steps(), time.perf_counter()
            model.fit(data, verbose=0, shuffle=False, callbacks=[steps])
            seconds[key].append(steps.seconds / STEPS)
            beside[key].append(time.perf_counter() - begun - steps.seconds)
    rates = {f"steps_per_second_{k}": 1 / statistics.median(v) for k, v in seconds.items()}
    rates |= {f"epoch_overhead_{k}": statistics.median(v) for k, v in beside.items()}
    ratio = rates["steps_per_second_two"] / rates["steps_per_second_one"]
    return {"model": MODEL, **rates, "two_over_one": ratio}


def bytes_of(recipe: Any) -> dict[str, int]:
    """What the devices add up in a step of a recipe, in bytes of float32."""
    return {"parameters": recipe.parameters, "bytes": 4 * recipe.parameters}


@benchmark("scaling_bytes", "bytes that are all-reduced a step, for every model of the zoo")
def scaling_bytes() -> dict[str, Any]:
    """Bytes by model; `python benchmarks/bench_scaling.py` prints them as a table."""
    from keras_seq import zoo

    return {"models": {name: bytes_of(zoo.recipe(name)) for name in zoo.names()}}


def step_memory(name: str, lanes: int, length: int) -> dict[str, Any]:
    """Peak memory of training steps with so many lanes, in MiB above that of the built model."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    recipe, model = compiled(name)
    before = resident()
    model.fit(random_batches(model.vocabulary_size, lanes, length, 2), verbose=0, shuffle=False)
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return {"mib": resident() - before, "tokens": lanes * length, "parameters": parameters}


@benchmark("scaling_memory", "what a training step adds: copies of the gradient, bytes a token")
def scaling_memory() -> dict[str, Any]:
    """Copies of the gradient with `LARGE`, and the line through the peaks with `SMALL`."""
    import numpy as np

    large = child(LARGE, *map(str, FEW))
    rows = [child(SMALL, *map(str, sizes)) for sizes in MANY]
    tokens = np.array([row["tokens"] for row in rows], "float64")
    slope, rest = np.polyfit(tokens, np.array([row["mib"] for row in rows]), 1)
    return {
        "large": LARGE,
        "large_mib": large["mib"],
        "gradient_copies": large["mib"] * 2**20 / (4 * large["parameters"]),
        "small": SMALL,
        "small_mib_by_tokens": {str(row["tokens"]): round(row["mib"], 1) for row in rows},
        "bytes_per_token": slope * 2**20,
        "rest_mib": rest,
    }


def child(*arguments: str) -> Any:
    """Runs this file in a process of its own and reads the JSON that it prints."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError((result.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    if len(sys.argv) == 1:
        print("| model | parameters | MB a step |\n| --- | --- | --- |")
        for name, row in scaling_bytes()["models"].items():
            print(f"| `{name}` | {row['parameters']:,} | {row['bytes'] / 1e6:,.2f} |")
        return
    name, lanes, length = sys.argv[1:]
    print(json.dumps(step_memory(name, int(lanes), int(length))))


if __name__ == "__main__":
    main()
