"""State that is carried from batch to batch in truncated back-propagation through time."""

from typing import Any

import keras
import numpy as np

from keras_seq import _backend, _replicas
from keras_seq.models import lanes


class CarriedState:
    """Holds the state of training and of evaluation in variables that are no weights of the model.

    They are not saved with the model, since their shape depends on the batch size: with data of
    another size a phase begins anew, from zero and with a step that is traced again. Under a
    `tf.distribute` strategy each replica holds the state of its own sequences.
    """

    def __init__(self):
        self._variables: dict[str, Any] = {}
        self._batch: dict[str, int] = {}
        self._pending: dict[str, list[np.ndarray]] = {}
        self._strategy: Any = None

    def prepare(self, phase: str, model, x, batch_size: int | None, name: str = "x"):
        """Makes a phase, `"train"` or `"test"`, ready for data.

        Args:
            phase: the phase.
            model: the model, with `get_initial_state`.
            x: the input data, from which the batch size is read.
            batch_size: the batch size, where `x` holds arrays.
            name: what the caller calls `x`.

        Returns:
            The data, to be used in place of `x`.

        Raises:
            ValueError: if the batches have no one size, or one that is no multiple of the replicas.
            TypeError: on data of another kind.
        """
        x, size = lanes.in_lanes(x, batch_size, name)
        self.use(phase, model, size)
        return x

    def use(self, phase: str, model, size: int) -> None:
        """Makes zero variables for a phase and a batch size, unless they are those of the phase.

        Args:
            phase: the phase.
            model: the model.
            size: rows of a batch, those of all replicas together.

        Raises:
            ValueError: if the size is no multiple of the replicas.
        """
        import tensorflow as tf

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
        # A traced step holds on to the variables that it was traced with; Keras makes a new one.
        setattr(model, f"{phase}_function", None)

    def check(self, phase: str, x) -> None:
        """Refuses a batch whose rows are known not to be as many as the state's."""
        there = keras.tree.flatten(x)[0].shape[0]
        state = keras.tree.flatten(self._variables.get(phase, []))
        if there is None or not state:
            return
        replicas = self._strategy.num_replicas_in_sync
        size = self._batch[phase] // replicas
        if there != size:
            raise ValueError(
                "With `carry_state=True` all batches must have one size. Received: a batch of "
                f"{there * replicas} rows after batches of {size * replicas}. Leave it out, or "
                "give its size as `batch_size`."
            )

    def size(self, phase: str) -> int:
        """The batch size that a phase was last made ready for."""
        return self._batch[phase]

    def read(self, phase: str):
        """The state of a phase.

        Raises:
            RuntimeError: if `prepare` was not called, as `fit` and `evaluate` do.
        """
        if phase not in self._variables:
            raise RuntimeError(
                "A model with `carry_state=True` has no state to begin with: train it with `fit` "
                "or `train_on_batch`, evaluate it with `evaluate` or `test_on_batch`, or call "
                "`model.carried_state.prepare` before its steps."
            )
        return keras.tree.map_structure(_backend.read, self._variables[phase])

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
