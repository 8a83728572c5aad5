"""The recurrent non-linearities of a trellis network."""

from typing import Any

import keras
from keras import ops

from keras_seq._export import export


class TrellisGates:
    """What happens after the convolution of a trellis level: `f` of equation 12.

    A gates object turns the pre-activations of one level into its hidden and cell sequence. It is
    called with whole sequences; nothing in it may mix time steps.

    Attributes:
        blocks: pre-activations a unit. The layer makes `blocks * width` channels, in blocks of
            `width`, in the order that the class states.
        recurrent_blocks: which of the blocks the unit's own past reaches in a mixed-group kernel.
        input_blocks: which of the blocks the input of a group reaches in a mixed-group kernel.
    """

    blocks: int = 1
    recurrent_blocks: tuple[int, ...] = (0,)
    input_blocks: tuple[int, ...] = (0,)

    def __init__(self, activation: Any = "tanh"):
        self.activation = keras.activations.get(activation)

    def __call__(self, pre, previous_hidden, previous_cell):
        """Applies the gates.

        Args:
            pre: pre-activations, `(b, t, blocks * width)`.
            previous_hidden: the hidden sequence of the level below, one step (of the level's
                dilation) in the past, `(b, t, width)`, or `None` if the kernel has one tap.
            previous_cell: the cell sequence of the level below, one step in the past.

        Returns:
            The hidden and the cell sequence of the level, `(b, t, width)` each.
        """
        raise NotImplementedError

    @property
    def has_gradient(self) -> bool:
        """Whether `gradient` is available for these activations."""
        return False

    def get_config(self):
        return {"activation": keras.activations.serialize(self.activation)}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@export("keras_seq.layers.LSTMGates")
class LSTMGates(TrellisGates):
    """LSTM gates (section 4.3, equations 11 and 12): c = f c' + i g and h = o tanh(c).

    The blocks are, in order, input, output, candidate, forget.

    Args:
        activation: of candidate and cell.
        recurrent_activation: of the three gates.
    """

    blocks = 4
    recurrent_blocks = (0, 1, 2, 3)
    input_blocks = (0, 1, 2, 3)

    def __init__(self, activation: Any = "tanh", recurrent_activation: Any = "sigmoid"):
        super().__init__(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)

    def __call__(self, pre, previous_hidden, previous_cell):
        i, o, g, f = ops.split(pre, 4, axis=-1)
        i, o, f = (self.recurrent_activation(x) for x in (i, o, f))
        cell = f * previous_cell + i * self.activation(g)
        return o * self.activation(cell), cell

    @property
    def has_gradient(self) -> bool:
        return (
            self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
        )

    def get_config(self):
        return {
            **super().get_config(),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
        }


@export("keras_seq.layers.GRUGates")
class GRUGates(TrellisGates):
    """GRU gates in the form that resets after the product.

    With h' the hidden value one step in the past: h = z h' + (1 - z) tanh(n + r m). The blocks are,
    in order, update z, reset r, candidate n from below, candidate m from the past; a dense kernel
    fills n and m alike. A GRU has no cell: its cell sequence is a copy of the hidden one, which is
    how h' reaches the next level.

    Args:
        activation: of the candidate.
        recurrent_activation: of the two gates.
    """

    blocks = 4
    recurrent_blocks = (0, 1, 3)
    input_blocks = (0, 1, 2)

    def __init__(self, activation: Any = "tanh", recurrent_activation: Any = "sigmoid"):
        super().__init__(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)

    def __call__(self, pre, previous_hidden, previous_cell):
        z, r, n, m = ops.split(pre, 4, axis=-1)
        z, r = self.recurrent_activation(z), self.recurrent_activation(r)
        hidden = z * previous_cell + (1 - z) * self.activation(n + r * m)
        return hidden, hidden

    def get_config(self):
        return {
            **super().get_config(),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
        }


@export("keras_seq.layers.RNNGates")
class RNNGates(TrellisGates):
    """A plain recurrence, h = tanh(pre-activation). The cell sequence is a copy of the hidden one.

    Args:
        activation: any activation of Keras.
    """

    def __call__(self, pre, previous_hidden, previous_cell):
        hidden = self.activation(pre)
        return hidden, hidden


class FunctionGates(TrellisGates):
    """Gates made of a function `f(pre, previous_hidden, previous_cell)`.

    The function returns `(hidden, cell)`, or the hidden sequence alone, which then serves as cell
    too. An integer attribute `blocks` of the function gives the blocks of pre-activations a unit
    (default 1).
    """

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.blocks = int(getattr(function, "blocks", 1))
        self.recurrent_blocks = self.input_blocks = tuple(range(self.blocks))

    def __call__(self, pre, previous_hidden, previous_cell):
        result = self.function(pre, previous_hidden, previous_cell)
        return result if isinstance(result, list | tuple) else (result, result)


_NAMES = {"lstm": LSTMGates, "gru": GRUGates, "rnn": RNNGates}


def get_gates(identifier) -> TrellisGates:
    """The gates object of a name, a config, a function, or a gates object.

    Args:
        identifier: `"lstm"`, `"gru"`, `"rnn"`, a `TrellisGates`, or a function
            `f(pre, previous_hidden, previous_cell)` (see `FunctionGates`).

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(identifier, TrellisGates):
        return identifier
    if isinstance(identifier, str) and identifier.lower() in _NAMES:
        return _NAMES[identifier.lower()]()
    if callable(identifier):
        return FunctionGates(identifier)
    raise ValueError(
        f"`activation` must be one of {sorted(_NAMES)}, a gates object such as `LSTMGates()`, or a "
        f"function f(pre, previous_hidden, previous_cell). Received: activation={identifier!r}."
    )
