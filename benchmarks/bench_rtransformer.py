"""R-Transformer: training steps on tunes and on pixels."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from harness import Work, alternate, benchmark, matrix_product, measure, train_step

# The sizes of `rtransformer_nottingham` and of `rtransformer_seq_mnist`, without dropout.
TUNE = {"width": 160, "blocks": 3, "local_layers": 1, "window": 6}
PIXEL = {"width": 32, "blocks": 8, "local_layers": 2, "window": 7}
NOTES, FRAMES, TUNES = 88, 200, 16
PIXEL_BATCH, PIXEL_STEPS = 8, 784


def core_flops(rows: int, steps: int, width: int, blocks: int, local_layers: int, window: int):
    """Operations of the forward products: GRU windows, causal attention, feed-forward.

    A window's first step has no recurrent product, and a step's attention sees on average half of
    the steps.
    """
    windows = 3 * width**2 * window
    attention = 4 * width**2 + 2 * width * (steps + 1) / 2
    return 2.0 * rows * blocks * (local_layers * windows + attention + 8 * width**2)


def tune_flops(batch: int) -> float:
    """Three times the forward products of a batch of tunes."""
    rows = batch * FRAMES
    ends = 2.0 * rows * 2 * NOTES * TUNE["width"]
    return 3 * (core_flops(rows, FRAMES, **TUNE) + ends)


def pixel_flops() -> float:
    return 3 * core_flops(PIXEL_BATCH * PIXEL_STEPS, PIXEL_STEPS, **PIXEL)


def tune_step(batch: int, jit_compile: bool = False) -> Callable[[], Any]:
    import keras

    import keras_seq

    keras.utils.set_random_seed(0)
    model = keras_seq.zoo.rtransformer_nottingham(dropout=0.0)
    optimizer = keras_seq.optimizers.Adam(1e-3, global_clipnorm=1.0)
    model.compile(optimizer, jit_compile=jit_compile)
    return train_step(model, (_frames(batch),) * 2, jit_compile)


def released_step(jit_compile: bool = False) -> Callable[[], Any]:
    """The step of the released protocol: one tune, dropout 0.1, plain SGD."""
    import keras

    import keras_seq

    keras.utils.set_random_seed(0)
    model = keras_seq.zoo.rtransformer_nottingham(variant="released")
    model.compile(keras_seq.optimizers.SGD(5e-5), jit_compile=jit_compile)
    return train_step(model, (_frames(1),) * 2, jit_compile)


def _frames(batch: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((batch, FRAMES, NOTES)) < 0.05).astype("float32")


def pixel_step(jit_compile: bool) -> Callable[[], Any]:
    import keras

    import keras_seq

    keras.utils.set_random_seed(0)
    model = keras_seq.zoo.rtransformer_seq_mnist(dropout=0.0)
    model.compile(keras_seq.optimizers.Adam(1e-3), jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    x = rng.random((PIXEL_BATCH, PIXEL_STEPS, 1)).astype("float32")
    y = rng.integers(0, 10, PIXEL_BATCH).astype("int32")
    return train_step(model, (x, y), jit_compile)


@benchmark("rt_tune_step", "rtransformer_nottingham's step on one tune of 200 frames")
def rt_tune_step():
    return measure(lambda: tune_step(1), tune_flops(1), rounds=15)


@benchmark("rt_tune_step_xla", "the same with XLA")
def rt_tune_step_xla():
    return measure(lambda: tune_step(1, jit_compile=True), tune_flops(1), rounds=15)


@benchmark("rt_tune_batch", "frames a second of 16 tunes a step, in turn with one")
def rt_tune_batch():
    many, one = Work(tune_step(TUNES)), Work(tune_step(1), repeat=4)
    for work in (many, one):
        work.function()
    alternate(9, many, one)
    ratios = [TUNES * b / a for a, b in zip(many.seconds, one.seconds, strict=True)]
    return {
        "seconds": many.median,
        "flops": tune_flops(TUNES),
        "one_seconds": one.median,
        "frames_a_second": TUNES * FRAMES / many.median,
        "times_the_frames_of_one": float(np.median(ratios)),
    }


def _shares(make: Callable[[bool], Callable[[], Any]], without: dict[str, Any]) -> dict[str, Any]:
    """Median of the time of a step over that of one without what it has, as a graph and by XLA.

    Args:
        make: makes a step, from whether XLA compiles it.
        without: what takes the place of functions while the other step is traced, by their names.
    """
    figures = {}
    for name, jit_compile in (("graph", False), ("xla", True)):
        work, other = (Work(make(jit_compile), repeat=3) for _ in range(2))
        work.function()
        with contextlib.ExitStack() as stack:
            for target, substitute in without.items():
                stack.enter_context(mock.patch(target, substitute))
            other.function()
        alternate(30, work, other)
        ratios = [a / b for a, b in zip(work.seconds, other.seconds, strict=True)]
        figures[f"{name}_share"] = float(np.median(ratios))
        figures[f"{name}_seconds"] = work.median
    return figures


@benchmark("rt_tune_halves", "one tune with layers cut in two along time, in turn with whole ones")
def rt_tune_halves() -> dict[str, Any]:
    def whole(batch, length, width):
        return [(0, length)]

    places = ("keras_seq.layers.local_rnn.time_parts", "keras_seq.layers.feed_forward.time_parts")
    return _shares(lambda jit_compile: tune_step(1, jit_compile), dict.fromkeys(places, whole))


@benchmark("rt_masks", "the released protocol's step, in turn with masks from uniform floats")
def rt_masks() -> dict[str, Any]:
    def floats(shape, seed):
        return None

    return _shares(released_step, {"keras_seq._random._random_shorts": floats})


@benchmark("rt_against_original", "the released protocol's step, in turn with one in PyTorch")
def rt_against_original() -> dict[str, Any]:
    """Median seconds of each, and how many times as fast as PyTorch's the steps are.

    Needs PyTorch. TensorFlow's matrix product takes turns with the steps as well.
    """
    import tensorflow as tf
    import torch
    from torch_rtransformer import torch_step

    threads = 2
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    torch.set_num_threads(threads)
    sizes = {name: TUNE[name] for name in ("width", "blocks", "window")}
    original = torch_step(_frames(1), heads=4, dropout=0.1, **sizes)
    works = {
        "original": Work(original, repeat=5),
        "graph": Work(released_step(), repeat=5),
        "xla": Work(released_step(jit_compile=True), repeat=5),
        "product": matrix_product(),
    }
    for work in works.values():
        for _ in range(3):
            work.function()
    alternate(25, *works.values())
    figures: dict[str, Any] = {name: work.median for name, work in works.items()}
    for name in ("graph", "xla"):
        turns = zip(works["original"].seconds, works[name].seconds, strict=True)
        figures[f"{name}_times_as_fast"] = float(np.median([a / b for a, b in turns]))
    return figures


@benchmark("rt_pixel_step", "rtransformer_seq_mnist's step, batch 8, as a graph")
def rt_pixel_step():
    return measure(lambda: pixel_step(jit_compile=False), pixel_flops(), rounds=5)


@benchmark("rt_pixel_step_xla", "the same with XLA")
def rt_pixel_step_xla():
    return measure(lambda: pixel_step(jit_compile=True), pixel_flops(), rounds=5)


@benchmark("scaled_bias_attention", "attention logits with scale and bias, in turn with bias alone")
def scaled_bias_attention():
    """What TensorFlow's fusion of a batch product, a scale and a bias costs on this machine."""
    import tensorflow as tf

    rows = tf.random.stateless_normal((8, 4, FRAMES, 40), (1, 2))
    bias = tf.random.stateless_normal((1, 1, FRAMES, FRAMES), (3, 4))

    def logits(scale):
        def run():
            product = tf.matmul(rows, rows, transpose_b=True)
            return tf.reduce_sum((product if scale is None else product * scale) + bias)

        step = tf.function(run)
        return Work(lambda: step().numpy())

    scaled, plain = logits(0.3), logits(None)
    for work in (scaled, plain):
        work.function()
    alternate(5, scaled, plain)
    return {"seconds": scaled.median, "seconds_without_scale": plain.median}
