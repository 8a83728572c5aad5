"""State that is carried from batch to batch in truncated back-propagation through time."""

from typing import Any

import keras
import numpy as np

from keras_seq import _replicas


class CarriedState:
    """Holds the state of training and of evaluation in variables that are no weights of the model.

    They are not saved with the model, since their shape depends on the batch size. Under a
    `tf.distribute` strategy each replica holds the state of its own sequences.
    """

    def __init__(self):
        self._variables: dict[str, Any] = {}
        self._batch: dict[str, int] = {}
        self._pending: dict[str, list[np.ndarray]] = {}
        self._strategy: Any = None

    def prepare(self, phase: str, model, x, batch_size: int | None) -> None:
        """Makes zero variables for a phase, `"train"` or `"test"`, unless they are there.

        Args:
            phase: what they are for.
            model: the model, with `get_initial_state`.
            x: the input data, from which the batch size is read.
            batch_size: the batch size, where `x` holds arrays.

        Raises:
            ValueError: if the batch size is not known, or no multiple of the replicas.
        """
        import tensorflow as tf

        size = _batch_size(x, batch_size)
        strategy = model.distribute_strategy or tf.distribute.get_strategy()
        replicas = strategy.num_replicas_in_sync
        if size % replicas:
            raise ValueError(
                "With `carry_state=True` the batch size must be a multiple of the number of "
                "replicas. "
                f"Received: batch size {size}, {replicas} replicas."
            )
        self._strategy = strategy
        if self._batch.get(phase) == size:
            return
        with strategy.scope():
            state = model.get_initial_state(size // replicas)
            self._variables[phase] = keras.tree.map_structure(
                lambda value: tf.Variable(value, trainable=False), state
            )
        self._batch[phase] = size

    def read(self, phase: str):
        """The state of a phase.

        Raises:
            RuntimeError: if `prepare` was not called, as `fit` and `evaluate` do.
        """
        if phase not in self._variables:
            raise RuntimeError(
                "A model with `carry_state=True` trains through `fit` and `evaluate`."
            )
        return keras.tree.map_structure(
            lambda variable: keras.ops.convert_to_tensor(variable), self._variables[phase]
        )

    def write(self, phase: str, state) -> None:
        """Stores a state; no gradient flows from one batch into the one before."""
        variables = keras.tree.flatten(self._variables[phase])
        for variable, value in zip(variables, keras.tree.flatten(state), strict=True):
            variable.assign(keras.ops.cast(keras.ops.stop_gradient(value), variable.dtype))

    def reset(self, phase: str) -> None:
        """Sets the state of a phase back to zero, or to what `restore` was given."""
        pending = self._pending.pop(phase, None)
        first = 0 if pending is None else _replicas.local_ids(self._strategy)[0]
        for index, variable in enumerate(keras.tree.flatten(self._variables.get(phase, []))):
            for place, replica in enumerate(_replicas.values_of(variable)):
                if pending is None:
                    replica.assign(np.zeros(replica.shape, replica.dtype.as_numpy_dtype))
                else:
                    start = (first + place) * replica.shape[0]
                    replica.assign(pending[index][start : start + replica.shape[0]])

    def get(self, phase: str = "train") -> list[np.ndarray]:
        """The state as arrays with the whole batch, replica after replica.

        Where several processes train together, all must call it.
        """
        local = [
            np.concatenate([replica.numpy() for replica in _replicas.values_of(variable)])
            for variable in keras.tree.flatten(self._variables.get(phase, []))
        ]
        return _replicas.whole_batch(self._strategy, local) if local else []

    def restore(self, arrays: list[np.ndarray], phase: str = "train") -> None:
        """Makes the next epoch start from a state that `get` returned, to resume in its middle."""
        self._pending[phase] = arrays

    def callback(self) -> keras.callbacks.Callback:
        """A callback that resets the state at the start of every epoch and evaluation."""
        return _ResetState(self)


class _ResetState(keras.callbacks.Callback):
    def __init__(self, state: CarriedState):
        super().__init__()
        self._state = state

    def on_epoch_begin(self, epoch, logs=None):
        self._state.reset("train")

    def on_test_begin(self, logs=None):
        self._state.reset("test")


def _batch_size(x, batch_size: int | None) -> int:
    """The static batch size of the data given to `fit` or `evaluate`."""
    spec = getattr(x, "element_spec", None)
    if spec is not None:
        size = keras.tree.flatten(spec)[0].shape[0]
        if size is None:
            raise ValueError(
                "With `carry_state=True` the data set must have a known batch size. "
                "Batch it with `drop_remainder=True`."
            )
        return size
    if batch_size is None:
        raise ValueError("With `carry_state=True` and arrays, `batch_size` must be given.")
    return batch_size
