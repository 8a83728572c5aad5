"""A recurrent layer of Keras with explicit state."""

from typing import Any

import keras

from keras_seq._backend import wants_portable_operations
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.layers.local_rnn import check_exact
from keras_seq.ops.scan import scan


@export("keras_seq.layers.KerasRecurrent")
class KerasRecurrent(CausalLayer):
    """A recurrent layer of Keras, such as `keras.layers.GRU`, in the state contract of the library.

    It can stand in a `RecurrentStack` and be the core of a model. Dropout belongs to the stack.

    Args:
        layer: a `keras.layers.GRU`, `SimpleRNN`, `LSTM` or `RNN`, which may have a list of cells.
            It is copied, with `return_sequences=True` and `return_state=True`, and without
            `unroll`, since the number of steps is free.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a list of the cell's states, as from `get_initial_state` or an earlier call,
            nested where there are several cells; `None` for zeros.
        return_state: also return the state after the last step.
        training: handed to the layer.
        masks: accepted as every layer does; there are none.

    Output shape:
        (b, t, u).

    Raises:
        TypeError: if `layer` is no recurrent layer.
        ValueError: if it or a cell has dropout, it runs backwards or keeps its state itself.

    Example:

    >>> layer = keras_seq.layers.KerasRecurrent(keras.layers.GRU(8))
    >>> y, state = layer(np.ones((2, 5, 6), "float32"), return_state=True)
    >>> tuple(y.shape), [tuple(part.shape) for part in state]
    ((2, 5, 8), [(2, 8)])
    """

    given_parts = ("layer",)

    def __init__(self, layer: Any, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(layer, keras.layers.RNN):
            raise TypeError(
                f"`layer` must be a recurrent layer of Keras, such as keras.layers.GRU. Received: "
                f"layer={layer!r}."
            )
        config = layer.get_config()
        _refuse(config)
        config |= {"return_sequences": True, "return_state": True, "unroll": False}
        config["dtype"] = keras.saving.serialize_keras_object(self.dtype_policy)
        self.layer: Any = type(layer).from_config(config)

    @property
    def output_units(self) -> int:
        """Width of the output."""
        return self.layer.cell.output_size

    def build(self, input_shape):
        super().build(input_shape)
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: a list of zeros.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        return list(self.layer.get_initial_state(batch_size))

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None):
        if initial_state is not None:
            initial_state = keras.tree.map_structure(
                lambda part: keras.ops.cast(part, x.dtype), initial_state
            )
        if wants_portable_operations():
            outputs, *state = self._cell_by_cell(x, initial_state)
        else:
            outputs, *state = self.layer(x, initial_state=initial_state, training=training)
        return (outputs, state) if return_state else outputs

    def _cell_by_cell(self, x, state) -> list:
        """What the layer answers, without the arrays of tensors that it loops with."""
        batch, time, _ = keras.ops.shape(x)
        cell, state = self.layer.cell, state or self.get_initial_state(batch)

        def step(carry, turn):
            output, after = cell(keras.ops.take(x, turn, axis=1), carry[1:], training=False)
            carry = [output, *after]
            return carry, carry

        start = [keras.ops.zeros((batch, self.output_units), x.dtype), *state]
        (_, *state), (outputs, *_) = scan(step, start, keras.ops.arange(time))
        return [keras.ops.swapaxes(outputs, 0, 1), *state]

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["layer"] = keras.saving.deserialize_keras_object(
            config["layer"], custom_objects=custom_objects
        )
        return super().from_config(config)


_REFUSED = ("dropout", "recurrent_dropout", "go_backwards", "stateful")


def _refuse(config) -> None:
    """Refuses what a layer, or a cell in it, must not have, by their configurations."""
    if isinstance(config, list | tuple):
        for part in config:
            _refuse(part)
    elif isinstance(config, dict):
        for name, value in config.items():
            if name in _REFUSED and value:
                raise ValueError(
                    f"`layer` must have no `{name}`, nor its cells. Received: {name}={value!r}. "
                    "Dropout belongs to the `RecurrentStack`, and state goes in and out of a call."
                )
            _refuse(value)
