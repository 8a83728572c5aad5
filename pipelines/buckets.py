"""Sequences of different lengths in batches of a few widths."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.pipelines.epochs import epoch_options


def bucket_bounds(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """The lengths to pad to so that padding is least.

    Args:
        lengths: lengths of the sequences.
        buckets: how many lengths to pad to; fewer where there are fewer different ones.

    Returns:
        Increasing bounds, the last one the largest length. A sequence belongs to the first bound
        that it does not exceed.
    """
    sizes, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    buckets = min(buckets, len(sizes))
    # cost[j]: least padded total of the sizes before j; a last bucket i..j-1 is padded to size j-1.
    cost = np.full(len(sizes) + 1, np.inf)
    cost[0] = 0
    choices = []
    for _ in range(buckets):
        totals = cost[:-1, None] + (before[None, 1:] - before[:-1, None]) * sizes[None, :]
        totals[np.tril_indices(len(sizes), -1)] = np.inf
        choices.append(np.argmin(totals, axis=0))
        cost = np.concatenate([[np.inf], np.min(totals, axis=0)])
    bounds, end = [], len(sizes)
    for choice in reversed(choices):
        bounds.append(int(sizes[end - 1]))
        end = int(choice[end - 1])
    return np.array(bounds[::-1])


class Buckets:
    """Plans batches of sequences: each one's rows, and the bound that all of them are padded to.

    Every sequence is in exactly one batch of an epoch, and a batch has one of few widths, so that a
    step is traced, or compiled, for no more shapes than there are bounds, and for one more where a
    batch is smaller. It is `tf.data`'s `bucket_by_sequence_length` as a plan: the number of batches
    is known, and an epoch can begin in its middle.

    Args:
        lengths: of the sequences.
        bounds: increasing lengths, the last one not below the largest of `lengths`.
        pass_on: whether what fills no batch of a bucket goes into the next longer one, so that at
            most one batch of an epoch is smaller than the others; else each bucket may have one.
    """

    def __init__(self, lengths: np.ndarray, bounds: Sequence[int] | np.ndarray, pass_on: bool):
        bucket = np.searchsorted(bounds, lengths)
        self.members = [
            (int(bound), np.flatnonzero(bucket == i).astype(np.int32))
            for i, bound in enumerate(bounds)
            if (bucket == i).any()
        ]
        self.pass_on = pass_on

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return sum(batches for batches, _ in self._sizes(batch_size))

    def shuffled(self, key: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The plan of an epoch.

        Args:
            key: int64 (2,), on which alone the order depends.
            batch_size: b.

        Returns:
            Rows, int32 (steps, b), with -1 where a batch is smaller; and bounds, int32 (steps,).
        """
        shuffle = tf.random.experimental.stateless_shuffle
        places = [
            shuffle(tf.constant(rows), key + tf.constant([7919 * (i + 1), 0], tf.int64))
            for i, (_, rows) in enumerate(self.members)
        ]
        rows, bounds = self._batches(places, batch_size)
        order = shuffle(tf.range(self.steps(batch_size)), key)
        return tf.gather(rows, order), tf.gather(bounds, order)

    def in_order(self, batch_size: int, fetch: Callable[[Any, Any], Any]) -> tf.data.Dataset:
        """Every sequence once, the shorter ones first.

        Args:
            batch_size: the most sequences of a batch.
            fetch: maps rows (int32 (b,)) and the bound of a batch to the batch.
        """
        plan = self._batches([tf.constant(rows) for _, rows in self.members], batch_size)

        def there(rows, bound):
            return fetch(tf.boolean_mask(rows, rows >= 0), bound)

        return (
            tf.data.Dataset.from_tensor_slices(plan)
            .map(there, num_parallel_calls=tf.data.AUTOTUNE)
            .with_options(epoch_options(copy_constants=False))
            .prefetch(tf.data.AUTOTUNE)
        )

    def _sizes(self, batch_size: int) -> list[tuple[int, int]]:
        """The batches of each bucket, and the sequences that it passes on."""
        sizes, rest = [], 0
        for number, (_, members) in enumerate(self.members, 1):
            count = rest + len(members)
            whole = self.pass_on and number < len(self.members)
            batches = count // batch_size if whole else -(-count // batch_size)
            rest = max(0, count - batches * batch_size)
            sizes.append((batches, rest))
        return sizes

    def _batches(self, places: list, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        rows, bounds = [], []
        passed = tf.zeros((0,), tf.int32)
        sizes = self._sizes(batch_size)
        for (bound, _), (batches, rest), own in zip(self.members, sizes, places, strict=True):
            indices = tf.concat([passed, own], axis=0)
            count = int(indices.shape[0]) - rest
            passed = indices[count:]
            missing = batches * batch_size - count
            filled = tf.pad(indices[:count], [[0, missing]], constant_values=-1)
            rows.append(tf.reshape(filled, (batches, batch_size)))
            bounds += [bound] * batches
        return tf.concat(rows, axis=0), tf.constant(bounds, tf.int32)
