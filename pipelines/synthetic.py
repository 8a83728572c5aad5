"""`copy_memory`, `adding`: the synthetic tasks of Bai, Kolter, Koltun (2018).

Examples are computed in the graph from their number. Training examples follow from `seed`;
validation and test examples are the same whatever the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from keras_seq.pipelines.counter_random import integers, stream_key, uniform
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.epochs import EpochSource, index_dataset, shuffled_batches
from keras_seq.pipelines.registry import Request, register

SYMBOLS = 10  # to remember
DIGITS = 8  # 1 to 8
MARKER = 9


@dataclass(frozen=True)
class CopyMemoryOptions:
    """Options of `copy_memory`.

    Attributes:
        delay: blank steps between the symbols and the first marker, plus one: T of the paper.
            A sequence has `delay + 20` steps.
        encoding: `"ids"`: x is int32 (b, t); `"float"`: x is float32 (b, t, 1), the same numbers,
            as in the released script.
        n_train, n_validation, n_test: examples a split.
    """

    delay: int = 1000
    encoding: str = "ids"
    n_train: int = 10_000
    n_validation: int = 1_000
    n_test: int = 1_000


@dataclass(frozen=True)
class AddingOptions:
    """Options of `adding`.

    Attributes:
        n_train, n_validation, n_test: examples a split.
    """

    n_train: int = 50_000
    n_validation: int = 1_000
    n_test: int = 1_000


@register("copy_memory", CopyMemoryOptions())
def copy_memory(request: Request, options: CopyMemoryOptions) -> Data:
    """Ten symbols are to be repeated after a delay.

    x is 10 digits from 1 to 8, `delay - 1` zeros, eleven 9s; y is `delay + 10` zeros, then
    the 10 digits: int32 (b, delay + 20), a class of 10 at each step.
    """
    if options.delay < 1:
        raise ValueError(f"`delay` must be positive. Received: delay={options.delay}.")
    if options.encoding not in ("ids", "float"):
        raise ValueError(
            f"`encoding` must be 'ids' or 'float'. Received: encoding={options.encoding!r}."
        )
    steps = options.delay + 2 * SYMBOLS
    _check_length(request, steps, "Set `delay` instead: a sequence has delay + 20 steps.")

    def fetcher(key: int) -> Callable:
        def fetch(rows):
            count = tf.shape(rows)[0]
            places = tf.cast(rows, tf.int64)[:, None] * SYMBOLS + tf.range(SYMBOLS, dtype=tf.int64)
            digits = 1 + integers(key, places, DIGITS)
            blank = tf.zeros((count, options.delay - 1), tf.int32)
            marks = tf.fill((count, SYMBOLS + 1), MARKER)
            x = tf.concat([digits, blank, marks], axis=1)
            y = tf.concat([tf.zeros((count, options.delay + SYMBOLS), tf.int32), digits], axis=1)
            x = tf.ensure_shape(x, (None, steps))
            if options.encoding == "float":
                x = tf.cast(x, tf.float32)[..., None]
            return x, tf.ensure_shape(y, (None, steps))

        return fetch

    return _synthetic(request, options, fetcher, {"length": steps, "classes": DIGITS + 2})


@register("adding", AddingOptions())
def adding(request: Request, options: AddingOptions) -> Data:
    """The sum of two marked numbers.

    x is float32 (b, length, 2): numbers uniform in [0, 1), and a mask with two ones at
    different places; y is float32 (b, 1), the sum of the two numbers. `length` defaults to 600.
    Always answering 1 has a mean squared error of 1/6.
    """
    steps = 600 if request.length is None else request.length
    if steps < 2:
        raise ValueError(f"`length` must be at least 2. Received: length={steps}.")
    _check_length(request, steps, "")

    def fetcher(key: int) -> Callable:
        first, second, numbers = (stream_key(key, part) for part in range(3))

        def fetch(rows):
            rows = tf.cast(rows, tf.int64)
            counter = rows[:, None] * steps + tf.range(steps, dtype=tf.int64)
            values = uniform(numbers, counter)
            one = integers(first, rows, steps)
            other = tf.math.floormod(one + 1 + integers(second, rows, steps - 1), steps)
            mask = tf.one_hot(one, steps) + tf.one_hot(other, steps)
            total = tf.reduce_sum(values * mask, axis=1, keepdims=True)
            return tf.stack([values, mask], axis=-1), total

        return fetch

    return _synthetic(request, options, fetcher, {"length": steps})


def _check_length(request: Request, steps: int, remedy: str) -> None:
    if request.length not in (None, steps):
        raise ValueError(
            f"A sequence of {request.name!r} has {steps} steps. "
            f"Received: length={request.length}. {remedy}"
        )
    if request.history:
        raise ValueError(f"{request.name!r} has no history. Received: history={request.history}.")


def _synthetic(
    request: Request,
    options: CopyMemoryOptions | AddingOptions,
    fetcher: Callable[[int], Callable],
    info: dict,
) -> Data:
    counts = {
        "train": options.n_train,
        "validation": options.n_validation,
        "test": options.n_test,
    }
    for split, count in counts.items():
        least = request.batch_size if split == "train" else 1
        if count < least:
            raise ValueError(f"`n_{split}` must be at least {least}. Received: n_{split}={count}.")
    train_fetch = fetcher(stream_key(0, request.seed))
    train = EpochSource(
        lambda e: shuffled_batches(e, request.seed, counts["train"], request.batch_size),
        lambda rows: train_fetch(tf.ensure_shape(rows, (request.batch_size,))),
        counts["train"] // request.batch_size,
        parallel=True,
    )
    held_out = {
        split: index_dataset(counts[split], request.eval_batch_size, fetcher(stream_key(number)))
        for number, split in enumerate(("validation", "test"), 1)
    }
    return Data(
        name=request.name,
        train=train.repeated(),
        validation=held_out["validation"],
        test=held_out["test"],
        info={"examples": counts, "source": dict.fromkeys(counts, "computed"), **info},
        epoch_fn=train.epoch,
    )
