"""Trains a recipe's model on zeros for three steps and prints how much the process grew, in bytes.

`keras_seq.analysis.measure_step` starts it, with the recipe on standard input.
"""

import sys
from pathlib import Path

import tensorflow as tf

from keras_seq.analysis.cost import steps_of, targets_of
from keras_seq.training import building
from keras_seq.zoo import Recipe

STEPS = 3


def memory(entry: str) -> int:
    """Bytes that this process has now (`VmRSS`) or had at most (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("This system does not say how much memory a process has.")


def main() -> None:
    recipe = Recipe.from_json(sys.stdin.read())
    before = memory("VmRSS")
    model = building.build_model(recipe)
    building.compile_model(model, recipe)
    spec = model.input_spec_for_export()
    x = tf.zeros((recipe.data.batch_size, steps_of(recipe), *spec.shape[2:]), spec.dtype)
    dataset = tf.data.Dataset.from_tensors((x, targets_of(model, x, recipe))).repeat(STEPS)
    model.fit(dataset, verbose=0)
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main()
