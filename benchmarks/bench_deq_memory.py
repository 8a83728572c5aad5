"""Peak memory of a training step of a deep equilibrium layer, and of the same levels unrolled.

`python benchmarks/run.py deq_memory deq_memory_transformer` prints the figures. Every number comes
from a process of its own: `python benchmarks/bench_deq_memory.py implicit 40 transformer` is one of
them. Memory is the peak of what the process had resident, with TensorFlow's plain allocator: the
one of oneDNN keeps what is freed, so that its peak is that of its own fragments.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import benchmark, resident

BATCH = {"trellis": 32, "transformer": 16}
LENGTH, FEATURES = 100, 64
UNITS, OUTPUT_UNITS = 192, 64  # of the trellis cell
WIDTH, HEADS, INNER = 256, 4, 1024  # of the transformer cell
CELLS = tuple(BATCH)
MEMORY = 3  # pairs that Broyden's method keeps
STEPS = (10, 40, 160)


def keep_resident() -> None:
    """Asks the system not to page out this process, so that a busy machine measures the same."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlockall(7)  # current and future pages, once they are used


def make_cell(kind: str):
    """A cell of `CELLS`."""
    import keras

    from keras_seq.layers import DEQTransformerCell, DEQTrellisCell

    if kind == "transformer":
        return DEQTransformerCell(WIDTH, HEADS, INNER)
    wide = keras.initializers.RandomNormal(stddev=0.05, seed=1)
    return DEQTrellisCell(UNITS, OUTPUT_UNITS, kernel_initializer=wide)


def step_memory(
    gradient: str, steps: int, cell: str = "trellis", jit_compile: bool = False
) -> dict[str, Any]:
    """Memory of one training step in this process, with all solver steps taken.

    Args:
        gradient: `"implicit"` or `"unrolled"`.
        steps: forward and backward solver steps, or levels.
        cell: one of `CELLS`.
        jit_compile: compile it with XLA, whose compiler's own memory counts too.

    Returns:
        `peak_mib`, of the process, libraries and all; `step_mib`, what the step added to it;
        `steps`, those taken.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_seq.layers import DeepEquilibrium
    from keras_seq.solvers import driver

    keep_resident()
    # One operation at a time: else the peak depends on which ones happen to run together.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    driver.PATIENCE = 10**9  # take all the steps, with or without progress
    keras.utils.set_random_seed(0)
    layer = DeepEquilibrium(
        make_cell(cell),
        solver={"name": "broyden", "memory": MEMORY},
        gradient=gradient,
        max_steps=steps,
        tolerance=0.0,
    )
    x = tf.random.stateless_normal((BATCH[cell], LENGTH, FEATURES), (0, 1))
    layer.build(x.shape)
    weights = [weight.value for weight in layer.trainable_variables]

    @tf.function(jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            outputs, solution = layer(x, training=True, return_solution=True)
            loss = tf.reduce_mean(tf.square(outputs))
        return tape.gradient(loss, weights), solution["steps"]

    run = step.get_concrete_function(x)
    before = resident()
    gradients, taken = run(x)
    finite = all(np.isfinite(gradient).all() for gradient in gradients)
    peak = resident()
    return {
        "peak_mib": peak,
        "step_mib": peak - before,
        "steps": int(np.max(taken)),
        "finite": bool(finite),
    }


def in_own_process(gradient: str, steps: int, cell: str = "trellis") -> dict[str, Any]:
    """`step_memory` in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), gradient, str(steps), cell]
    # What is freed goes back to the system at once, so that the peak is that of what is in use.
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "1",
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


def figures(cell: str) -> dict[str, Any]:
    """Figures at 10, 40 and 160 solver steps, and against 40 unrolled levels."""
    found = {steps: in_own_process("implicit", steps, cell) for steps in STEPS}
    unrolled = in_own_process("unrolled", 40, cell)
    peaks = [figure["peak_mib"] for figure in found.values()]
    own = [figure["step_mib"] for figure in found.values()]
    return {
        **{
            f"implicit_{steps}_{name}": figure[name]
            for steps, figure in found.items()
            for name in ("step_mib", "peak_mib", "steps")
        },
        "unrolled_40_step_mib": unrolled["step_mib"],
        "unrolled_40_peak_mib": unrolled["peak_mib"],
        "spread_of_peaks": max(peaks) / min(peaks) - 1,
        "spread_of_steps": max(own) / min(own) - 1,
        "unrolled_over_implicit": unrolled["step_mib"] / found[40]["step_mib"],
    }


@benchmark("deq_memory", "memory of an equilibrium's training step, and of the unrolled network's")
def deq_memory() -> dict[str, Any]:
    """With the cell of the DEQ-TrellisNet."""
    return figures("trellis")


@benchmark("deq_memory_transformer", "the same with the cell of the DEQ-Transformer")
def deq_memory_transformer() -> dict[str, Any]:
    """With the cell of the DEQ-Transformer."""
    return figures("transformer")


if __name__ == "__main__":
    chosen = sys.argv[3] if len(sys.argv) > 3 else "trellis"
    print(json.dumps(step_memory(sys.argv[1], int(sys.argv[2]), chosen)))
