"""TrellisNet: training steps, first steps, streaming."""

from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Work, alternate, benchmark, measure, train_step

# The language model step: 10,000 words, embedding = output 200, 500 further units, 20 levels.
LM: dict[str, Any] = {
    "vocabulary_size": 10_000,
    "embedding_dim": 200,
    "units": 500,
    "output_units": 200,
    "levels": 20,
}
LM_BATCH, LM_STEPS = 8, 60

# The pixel step of the released scripts: 120 + 10 units, a receptive field of 1025 steps.
PIXEL_UNITS, PIXEL_OUTPUTS, PIXEL_BATCH, PIXEL_STEPS = 120, 10, 16, 784
PIXEL_DILATIONS = (1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

STREAM_WINDOW, STREAM_STEPS = 110, 20


def trellis_flops(rows: int, inputs: int, width: int, levels: int, dilations: int = 1) -> float:
    """Operations of the forward products of an LSTM trellis with two taps and a zero state.

    The first level sees zeros only, so it has no hidden product; the input is projected once a
    dilation, not once a level.
    """
    return 2.0 * rows * 4 * width * (2 * inputs * dilations + 2 * width * (levels - 1))


def lm_flops(batch: int = LM_BATCH) -> float:
    """Three times the forward products of the language model: levels, injection, softmax."""
    rows, width = batch * LM_STEPS, LM["units"] + LM["output_units"]
    softmax = 2.0 * rows * LM["output_units"] * LM["vocabulary_size"]
    return 3 * (trellis_flops(rows, LM["embedding_dim"], width, LM["levels"]) + softmax)


def lm_step(jit_compile: bool, batch: int = LM_BATCH, **changes) -> Callable[[], Any]:
    """The training step of the language model: loss, gradients and the update of SGD."""
    import keras

    import keras_seq
    from keras_seq.zoo.trellisnet import language_model

    keras.utils.set_random_seed(0)
    settings = {**LM, **changes}
    model = language_model(**settings)
    model.compile(keras_seq.optimizers.SGD(0.1), jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    shape = (batch, LM_STEPS)
    ids, targets = (
        rng.integers(0, settings["vocabulary_size"], shape).astype("int32") for _ in range(2)
    )
    return train_step(model, (ids, targets), jit_compile)


@benchmark("lm_step", "language model step as a graph")
def lm_step_graph():
    return measure(lambda: lm_step(jit_compile=False), lm_flops())


@benchmark("lm_step_xla", "the same with XLA")
def lm_step_xla():
    return measure(lambda: lm_step(jit_compile=True), lm_flops())


@benchmark("lm_step_remat", "the same as a graph, rematerialised")
def lm_step_remat():
    return measure(lambda: lm_step(jit_compile=False, rematerialize=True), lm_flops(), rounds=4)


@benchmark("lm_step_bf16", "mixed_bfloat16 in turn with float32, both as a graph")
def lm_step_bf16():
    half = Work(lm_step(jit_compile=False, dtype="mixed_bfloat16"))
    single = Work(lm_step(jit_compile=False))
    for work in (half, single):
        work.function()
    alternate(7, half, single)
    ratios = [b / a for a, b in zip(half.seconds, single.seconds, strict=True)]
    return {
        "seconds": half.median,
        "flops": lm_flops(),
        "float32_seconds": single.median,
        "times_faster_than_float32": float(np.median(ratios)),
    }


def pixel_step(jit_compile: bool) -> Callable[[], Any]:
    import keras

    import keras_seq
    from keras_seq.zoo.trellisnet import sequence_reader

    keras.utils.set_random_seed(0)
    model = sequence_reader(
        features=1,
        classes=10,
        units=PIXEL_UNITS,
        output_units=PIXEL_OUTPUTS,
        levels=len(PIXEL_DILATIONS),
        dilation_rate=PIXEL_DILATIONS,
        weight_normalization=True,
    )
    model.compile(keras_seq.optimizers.SGD(0.1), jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(PIXEL_BATCH, PIXEL_STEPS, 1)).astype("float32")
    y = rng.integers(0, 10, PIXEL_BATCH).astype("int32")
    return train_step(model, (x, y), jit_compile)


def pixel_flops() -> float:
    width, levels = PIXEL_UNITS + PIXEL_OUTPUTS, len(PIXEL_DILATIONS)
    dilations = len(set(PIXEL_DILATIONS))
    return 3 * trellis_flops(PIXEL_BATCH * PIXEL_STEPS, 1, width, levels, dilations)


@benchmark("pixel_step", "pixel classifier step as a graph")
def pixel_step_graph():
    return measure(lambda: pixel_step(jit_compile=False), pixel_flops())


@benchmark("pixel_step_xla", "the same with XLA")
def pixel_step_xla():
    return measure(lambda: pixel_step(jit_compile=True), pixel_flops())


def first_step(jit_compile: bool, **changes) -> dict[str, Any]:
    """Seconds of the first training step, and of a later one."""
    import time

    step = lm_step(jit_compile, **changes)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    steady = min(seconds[1:])
    return {
        "seconds": steady,
        "first_step_seconds": seconds[0],
        "overhead_seconds": seconds[0] - steady,
    }


# The sizes of `trellisnet_ptb_word`, and a narrower model of the deepest configuration.
PTB_WORD = {"embedding_dim": 400, "units": 1000, "output_units": 400, "levels": 55, "batch": 2}
DEEP = {"embedding_dim": 200, "units": 200, "output_units": 200, "levels": 125, "batch": 2}


@benchmark("compile_55", "first step of trellisnet_ptb_word's sizes as a graph, 55 levels unrolled")
def compile_55():
    return first_step(jit_compile=False, **PTB_WORD)


@benchmark("compile_55_xla", "the same with XLA")
def compile_55_xla():
    return first_step(jit_compile=True, **PTB_WORD)


@benchmark("compile_125", "first step of 125 unrolled levels of 400 units as a graph")
def compile_125():
    return first_step(jit_compile=False, **DEEP)


@benchmark("compile_125_xla", "the same with XLA")
def compile_125_xla():
    return first_step(jit_compile=True, **DEEP)


@benchmark("compile_125_loop", "the same with XLA and a loop over the levels")
def compile_125_loop():
    return first_step(jit_compile=True, unroll=False, **DEEP)


def streaming(batch: int) -> dict[str, Any]:
    """A streamed token in turn with recomputing the window that gives its probabilities."""
    import tensorflow as tf

    from keras_seq.zoo.trellisnet import language_model

    model = language_model(**LM)
    ids = tf.constant(np.random.default_rng(0).integers(0, 10_000, (batch, STREAM_WINDOW)), "int32")

    def last(hidden):
        return model.head(hidden[:, -1:], tables=model.tables)

    @tf.function
    def window(ids):
        return last(model.features(ids).outputs)

    @tf.function
    def step(ids, state):
        features = model.features(ids, initial_state=state, return_state=True)
        return last(features.outputs), features.state

    state = model.get_initial_state(batch, kind="exact")

    def stream():
        held = state
        for _ in range(STREAM_STEPS):
            log_probs, held = step(ids[:, :1], held)
        return log_probs.numpy()

    recompute, streamed = Work(lambda: window(ids).numpy()), Work(stream)
    for work in (recompute, streamed):
        work.function()
    alternate(9, recompute, streamed)
    ratios = [
        a / (b / STREAM_STEPS) for a, b in zip(recompute.seconds, streamed.seconds, strict=True)
    ]
    return {
        "batch": batch,
        "seconds": streamed.median / STREAM_STEPS,
        "window_seconds": recompute.median,
        "times_faster_than_window": float(np.median(ratios)),
    }


@benchmark("streaming", "one streamed token of 8 texts against their windows of 110 tokens")
def streaming_8():
    return streaming(8)


@benchmark("streaming_1", "the same for one text")
def streaming_1():
    return streaming(1)
