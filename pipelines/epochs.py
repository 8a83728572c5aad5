"""Training datasets whose epochs depend on (seed, epoch number) alone."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Plan = Callable[[tf.Tensor], Any]
Fetch = Callable[..., Any]


def epoch_options(copy_constants: bool = True) -> tf.data.Options:
    """Options of our datasets.

    Args:
        copy_constants: `False` switches off tf.data's graph rewrites, which copy every captured
            tensor once: with a token file of some hundred megabytes they double the memory.
    """
    options = tf.data.Options()
    options.deterministic = True
    if not copy_constants:
        options.experimental_optimization.apply_default_optimizations = False
    return options


class EpochSource:
    """Batches of an epoch, planned first and fetched after.

    Args:
        plan: maps an epoch number (int64 scalar tensor) to the structure of tensors that describes
            the batches of the epoch; their first dimension is `steps`.
        fetch: maps one row of the plan to a batch.
        steps: batches an epoch.
        parallel: whether `fetch` is worth running in parallel.
        copy_constants: see `epoch_options`.
    """

    def __init__(
        self,
        plan: Plan,
        fetch: Fetch,
        steps: int,
        *,
        parallel: bool = False,
        copy_constants: bool = True,
    ):
        self.plan = plan
        self.fetch = fetch
        self.steps = steps
        self.calls = tf.data.AUTOTUNE if parallel else None
        self.copy_constants = copy_constants

    def epoch(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
        """Dataset of epoch number `epoch` without its first `skip` batches."""
        number = tf.data.Dataset.from_tensors(tf.constant(epoch, "int64"))
        return self._batches(number, skip)

    def repeated(self) -> tf.data.Dataset:
        """Dataset whose n-th iteration is epoch n."""
        with tf.init_scope(), tf.device("CPU:0"):
            counter = tf.Variable(tf.constant(-1, tf.int64), trainable=False, name="epoch")
        number = tf.data.Dataset.range(1).map(lambda _: counter.assign_add(1))
        return self._batches(number, 0)

    def _batches(self, number: tf.data.Dataset, skip: int) -> tf.data.Dataset:
        rows = number.flat_map(lambda e: tf.data.Dataset.from_tensor_slices(self.plan(e)))
        if skip:
            rows = rows.skip(skip)
        return (
            rows.map(self.fetch, num_parallel_calls=self.calls)
            .apply(tf.data.experimental.assert_cardinality(self.steps - skip))
            .with_options(epoch_options(self.copy_constants))
            .prefetch(tf.data.AUTOTUNE)
        )


def shuffled_batches(epoch, seed: int, count: int, batch_size: int) -> tf.Tensor:
    """Rows (int32, `(steps, b)`) of the batches of an epoch, shuffled by `(seed, epoch)`."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    order = tf.random.experimental.stateless_shuffle(tf.range(count), key)
    steps = count // batch_size
    return tf.reshape(order[: steps * batch_size], (steps, batch_size))


def index_dataset(count: int, batch_size: int, fetch: Fetch) -> tf.data.Dataset:
    """Batches of all examples in order; the last one may be smaller.

    Args:
        count: number of examples.
        batch_size: examples a batch.
        fetch: maps rows (int32 `(b,)`) to a batch.
    """
    steps = -(-count // batch_size)

    def rows(step):
        start = tf.cast(step, tf.int32) * batch_size
        return fetch(tf.range(start, tf.minimum(start + batch_size, count)))

    return (
        tf.data.Dataset.range(steps)
        .map(rows, num_parallel_calls=tf.data.AUTOTUNE)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .with_options(epoch_options(copy_constants=False))
        .prefetch(tf.data.AUTOTUNE)
    )
