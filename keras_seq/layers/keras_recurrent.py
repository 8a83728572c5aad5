"""A recurrent layer of Keras with explicit state."""

from typing import Any

import keras
from keras import ops

from keras_seq._backend import wants_portable_operations
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.packing import choose_rows
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
        mask: (b, t), true at valid steps, see `CausalLayer`.

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
        refuse_dropout("layer", config, ("go_backwards", "stateful"))
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

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        if initial_state is not None:
            initial_state = keras.tree.map_structure(
                lambda part: ops.cast(part, x.dtype), initial_state
            )
        count = None
        if x.shape[1] != 1:
            finite = finite_steps(x)
            count = seen_lost(finite, 0, ops.shape(x)[1], None)
            x = only(count == 0, x)
        # Outputs of valid steps have seen no masked one; the state has.
        held = mask if return_state else None
        if wants_portable_operations():
            outputs, *state = self._cell_by_cell(x, initial_state, held)
        else:
            outputs, *state = self.layer(
                x, initial_state=initial_state, training=training, mask=held
            )
        if count is not None:  # what follows a step that is not finite is not, nor its gradient
            outputs = marked(outputs, count)
            state = keras.tree.map_structure(lambda part: _marked(part, count[:, -1]), state)
        return (outputs, state) if return_state else outputs

    def _cell_by_cell(self, x, state, mask) -> list:
        """What the layer answers, without the arrays of tensors that it loops with."""
        batch, time, _ = ops.shape(x)
        cell, state = self.layer.cell, state or self.get_initial_state(batch)

        def step(carry, turn):
            output, after = cell(ops.take(x, turn, axis=1), carry[1:], training=False)
            if mask is not None:
                valid = ops.take(mask, turn, axis=1)
                after = keras.tree.map_structure(
                    lambda new, old: choose_rows(valid, new, old), list(after), carry[1:]
                )
            carry = [output, *after]
            return carry, carry

        start = [ops.zeros((batch, self.output_units), x.dtype), *state]
        (_, *state), (outputs, *_) = scan(step, start, ops.arange(time))
        return [ops.swapaxes(outputs, 0, 1), *state]

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


def _marked(state, count):
    """A state (b, ...) with NaN in the rows where a step was lost."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(state.dtype)):
        return state
    return marked(state, ops.reshape(count, (-1, *(1 for _ in state.shape[2:]))))


def refuse_dropout(name: str, config, more: tuple[str, ...] = ()) -> None:
    """Refuses what a recurrent layer of Keras, or a cell in it, must not have.

    Args:
        name: of the argument that it came as.
        config: its configuration.
        more: what is refused besides dropout.

    Raises:
        ValueError: if it has any of this.
    """
    if isinstance(config, list | tuple):
        for part in config:
            refuse_dropout(name, part, more)
    elif isinstance(config, dict):
        for key, value in config.items():
            if value and key in ("dropout", "recurrent_dropout", *more):
                raise ValueError(
                    f"`{name}` must have no `{key}`, nor its cells. Received: {key}={value!r}. "
                    "Dropout belongs to the layer or stack around it, and state goes in and out "
                    "of a call."
                )
            refuse_dropout(name, value, more)
