"""The replicas of a `tf.distribute` strategy, seen from within its steps and from outside."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seq._backend import tf

# Within a step


def replica_count() -> int:
    """How many replicas run this code together; 1 outside of a `tf.distribute` strategy."""
    context = None if tf is None else tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_id():
    """The number of the current replica, or `None` where there is only one."""
    if tf is None or replica_count() == 1:
        return None
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def sum_over_replicas(tensors: list) -> list:
    """The sums of dense tensors over all replicas, on every replica."""
    if tf is None or replica_count() == 1 or not tensors:
        return tensors
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


# Outside of it


def values_of(variable) -> tuple[Any, ...]:
    """The TensorFlow variables of this process's replicas behind a variable."""
    if hasattr(variable, "_direct_assign"):  # a variable of Keras
        variable = variable.value
    return tuple(getattr(variable, "values", (variable,)))


def local_ids(strategy) -> tuple[int, ...]:
    """The numbers, among all replicas, of those that this process runs."""
    if strategy.num_replicas_in_sync == 1:
        return (0,)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: np.int32(context.replica_id_in_sync_group)
    )
    return tuple(int(value) for value in strategy.experimental_local_results(values))


def sum_over_processes(strategy, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The sums of arrays of numbers over the processes of a strategy, in every process.

    All processes must call it with arrays of the same shapes. Floats are added in float64,
    integers but int32 in int64.
    """
    import tensorflow as tf

    ids = local_ids(strategy)
    if len(ids) == strategy.num_replicas_in_sync:
        return list(arrays)
    results: list[Any] = [None] * len(arrays)
    for wide in (np.float64, np.int32, np.int64):
        places = [i for i, array in enumerate(arrays) if _wide(array.dtype) is wide]
        if not places:
            continue
        flat = np.concatenate([np.ravel(arrays[i]).astype(wide) for i in places])
        nothing = np.zeros_like(flat)
        values = strategy.experimental_distribute_values_from_function(
            lambda context, flat=flat, nothing=nothing: tf.constant(
                flat if context.replica_id_in_sync_group == ids[0] else nothing
            )
        )
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()
        start = 0
        for i in places:
            array = arrays[i]
            part = total[start : start + array.size]
            results[i] = part.reshape(array.shape).astype(array.dtype)
            start += array.size
    return results


def _wide(dtype: np.dtype) -> type:
    if dtype.kind in "iub":
        return np.int32 if dtype == np.int32 else np.int64
    return np.float64


def stacked(strategy, variables: Sequence[Any]) -> list[np.ndarray]:
    """The values of variables on all replicas, (replicas, ...) each, in every process."""
    ids, count = local_ids(strategy), strategy.num_replicas_in_sync
    arrays = []
    for variable in variables:
        values = [value.numpy() for value in values_of(variable)]
        array = np.zeros((count, *values[0].shape), values[0].dtype)
        for place, number in enumerate(ids):
            array[number] = values[place % len(values)]  # one value may serve all
        arrays.append(array)
    return sum_over_processes(strategy, arrays)


def assign_stacked(strategy, variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    """Gives each replica its value of `stacked`."""
    ids = local_ids(strategy)
    for variable, array in zip(variables, arrays, strict=True):
        for value, number in zip(values_of(variable), ids, strict=False):
            value.assign(array[number])


def whole_batch(strategy, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """This process's rows of batches, joined with those of the others in the order of replicas."""
    ids, count = local_ids(strategy), strategy.num_replicas_in_sync
    if len(ids) == count:
        return list(arrays)
    padded = []
    for array in arrays:
        rows = array.shape[0] // len(ids)
        whole = np.zeros((rows * count, *array.shape[1:]), array.dtype)
        whole[ids[0] * rows : ids[0] * rows + array.shape[0]] = array
        padded.append(whole)
    return sum_over_processes(strategy, padded)
