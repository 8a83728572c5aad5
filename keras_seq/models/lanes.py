"""Data in lanes: row i of each batch continues row i of the batch before."""

import itertools
import types
from collections.abc import Iterator
from typing import Any

import keras

_WHY = "With `carry_state=True` row i of each batch continues row i of the batch before"


def in_lanes(x, batch_size: int | None, name: str = "x") -> tuple[Any, int]:
    """Data for `fit` or `evaluate` whose batches all have one size, and this size.

    What can be known beforehand is checked here; batches that Python makes are checked one by one.

    Args:
        x: arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator.
        batch_size: the batch size, where `x` holds arrays.
        name: what the caller calls `x`.

    Returns:
        The data, to be used in place of `x`, and the rows of a batch.

    Raises:
        ValueError: if the batches have no one size.
        TypeError: on data of another kind.
    """
    spec = getattr(x, "element_spec", None)
    if spec is not None:
        size = keras.tree.flatten(spec)[0].shape[0]
        if size is None:
            raise ValueError(
                f"`{name}` must have batches of one known size. {_WHY}. Received: a data set whose "
                "batch size is None. Batch it with `drop_remainder=True`."
            )
        return x, size
    if isinstance(x, keras.utils.PyDataset):
        size = rows(x[0], name)
        return _EqualBatches(x, size), size
    if isinstance(x, types.GeneratorType):
        first = next(x, None)
        if first is None:
            raise ValueError(f"`{name}` must yield a batch. Received: an empty generator.")
        size = rows(first, name)
        return _equal_batches(itertools.chain([first], x), size), size
    if batch_size is None:
        raise ValueError(
            f"`batch_size` must be given where `{name}` holds arrays. {_WHY}, so it is the number "
            "of sequences that are read side by side. Received: batch_size=None."
        )
    count = rows(x, name)
    if count % batch_size:
        raise ValueError(
            f"`{name}` must have a multiple of `batch_size` rows. {_WHY}. Received: {count} rows, "
            f"batch_size={batch_size}. Leave the last {count % batch_size} rows out."
        )
    return x, batch_size


def rows(batch, name: str = "x") -> int:
    """The rows of a batch of arrays.

    Raises:
        TypeError: if it holds no arrays.
    """
    leaves = keras.tree.flatten(batch)
    shape = getattr(leaves[0], "shape", ()) if leaves else ()
    if not shape or shape[0] is None:
        raise TypeError(
            f"`{name}` must be arrays, a tf.data.Dataset, a keras.utils.PyDataset or a generator "
            f"of batches of arrays. Received: {name} of type {type(batch).__name__}. "
            "Turn it into one of these."
        )
    return int(shape[0])


def shuffled_by_default(x) -> bool:
    """Whether Keras shuffles such data if it is not told otherwise; of others it warns."""
    if isinstance(x, keras.utils.PyDataset):
        return getattr(x, "num_batches", None) is not None
    return not hasattr(x, "element_spec") and not isinstance(x, types.GeneratorType)


def _checked(batch, size: int):
    count = rows(batch)
    if count != size:
        raise ValueError(
            f"`x` must have batches of one size. {_WHY}. Received: a batch of {count} rows after "
            f"batches of {size}. Leave it out."
        )
    return batch


def _equal_batches(batches, size: int) -> Iterator:
    """A generator, which is what Keras takes, that checks each batch."""
    for batch in batches:
        yield _checked(batch, size)


class _EqualBatches(keras.utils.PyDataset):
    """A `PyDataset` that checks each batch of another one."""

    def __init__(self, data: keras.utils.PyDataset, size: int):
        super().__init__(
            workers=data.workers,
            use_multiprocessing=data.use_multiprocessing,
            max_queue_size=data.max_queue_size,
        )
        self.data = data
        self.size = size

    @property
    def num_batches(self):
        return self.data.num_batches

    def __getitem__(self, index):
        return _checked(self.data[index], self.size)

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()
