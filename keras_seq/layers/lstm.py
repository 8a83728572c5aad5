"""The LSTM, with the loop of the pyramidal recurrent unit."""

from typing import Any

import keras

from keras_seq._arguments import check_integer
from keras_seq._export import export
from keras_seq.layers.over_rows import Order
from keras_seq.layers.pru import PRU

_OWN = ("units", "weight_dropout", "seed", "name", "dtype", "trainable")
_SHARED = (
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
)


@export("keras_seq.layers.LSTM")
class LSTM(PRU):
    """A long short-term memory layer with explicit state: the twin that PRU is compared with.

    Hochreiter and Schmidhuber, *Long Short-Term Memory* (1997), in PyTorch's form: `PRU` with
    linear transforms of input and context and a bias in each. Gates are in the order f, g, i, o.
    Loop, state and weight dropout are those of `PRU`.

    Args:
        units: width u of hidden and cell state, and of the output.
        weight_dropout: rate of the dropout on the elements of the recurrent kernel, one draw a call
            for all steps (Merity et al., 2018, section 2).
        kernel_initializer: of the input's kernel; by default uniform in ±1/√u, as in PyTorch.
        recurrent_initializer: of the recurrent kernel; the same default.
        bias_initializer: of both biases; the same default.
        kernel_regularizer: of the input's kernel.
        recurrent_regularizer: of the recurrent kernel.
        seed: of the dropout masks.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d), with at least one step.
        initial_state: `[h, c]`, each (b, u), or `None` for zeros.
        return_state: also return the final state, as the last element.
        training: whether to draw dropout masks.
        masks: dropout masks to use whatever `training` is, as from `get_masks`; `{}` for none.
        mask: (b, t), true at valid steps, see `CausalLayer`.

    Output shape:
        (b, t, u).

    Raises:
        ValueError: if `units` is not positive or the rate not in [0, 1).

    Example:

    >>> layer = keras_seq.layers.LSTM(8)
    >>> tuple(layer(np.ones((2, 5, 6), "float32")).shape)
    (2, 5, 8)
    """

    def __init__(
        self,
        units: int,
        weight_dropout: float = 0.0,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        bias_initializer: Any = None,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        def uniform():
            bound = check_integer("units", units) ** -0.5
            return keras.initializers.RandomUniform(-bound, bound)

        super().__init__(
            units,
            levels=1,
            groups=1,
            input_transform="linear",
            context_transform="linear",
            residual=False,
            weight_dropout=weight_dropout,
            kernel_initializer=kernel_initializer or uniform(),
            recurrent_initializer=recurrent_initializer or uniform(),
            bias_initializer=bias_initializer or uniform(),
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            seed=seed,
            **kwargs,
        )

    def get_config(self):
        config = super().get_config()
        known = (*_OWN, *_SHARED, *Order._fields, "frozen")
        return {name: config[name] for name in known if name in config}
