"""One step of the pyramidal recurrent unit, as a Keras cell."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_choice, check_integer
from keras_seq._export import export
from keras_seq.layers.causal_layer import CheckedLayer
from keras_seq.layers.grouped_linear import GroupedLinear
from keras_seq.layers.pyramidal_transform import PyramidalTransform
from keras_seq.ops.gated_recurrence import gates_of

TRANSFORMS = ("pyramidal", "grouped", "linear")
GATES = 4


@export("keras_seq.layers.PRUCell")
class PRUCell(CheckedLayer):
    """One step of the pyramidal recurrent unit (PRU).

    Mehta et al., *Pyramidal Recurrent Unit for Language Modeling* (EMNLP 2018), section 3.3: an
    LSTM whose input goes through a pyramidal transform P and whose previous hidden state, the
    context, through a grouped linear transform G:

        [f g i o] = P(x) + G(h)
        c ← σ(f) c + σ(i) tanh(g),    h ← σ(o) tanh(c)

    The gates are kept in the order f, g, i, o of the authors' code; `keras.layers.LSTM` has
    i, f, g, o. Both transforms have a bias. The cell keeps Keras' contract, so it works in
    `keras.layers.RNN`, `Bidirectional` and `StackedRNNCells`, with masks, `go_backwards`,
    `stateful` and `return_state`. `PRU` is the same computation, faster.

    Args:
        units: width u of hidden and cell state.
        levels: levels K of pyramidal transforms.
        groups: groups g of grouped transforms.
        input_transform: `"pyramidal"`, `"linear"` or `"grouped"` (Table 3).
        context_transform: `"grouped"`, `"linear"` or `"pyramidal"` (Table 3).
        subsampling, split: of pyramidal transforms, see `PyramidalTransform`.
        residual: add the input to all four gates, where it has u features and its transform is
            pyramidal.
        kernel_initializer: of the input transform; orthogonal by default.
        recurrent_initializer: of the context transform; by default that of `GroupedLinear`, or
            orthogonal where the transform is pyramidal.
        bias_initializer: of both biases.
        kernel_regularizer: of the input transform's kernels.
        recurrent_regularizer: of the context transform's kernels.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: (b, d), one time step.
        states: `[h, c]`, each (b, u).

    Output shape:
        (b, u), and the new states `[h, c]`.

    Raises:
        ValueError: on an unknown transform, or sizes that groups or levels do not divide.

    Example:

    >>> cell = keras_seq.layers.PRUCell(8, levels=2, groups=4)
    >>> layer = keras.layers.Bidirectional(keras.layers.RNN(cell, return_sequences=True))
    >>> tuple(layer(np.ones((2, 5, 6))).shape)
    (2, 5, 16)
    """

    facts = ("groups", "subsampling")
    axes = ("b", "d")

    def __init__(
        self,
        units: int,
        levels: int = 2,
        groups: int = 1,
        input_transform: str = "pyramidal",
        context_transform: str = "grouped",
        subsampling: str = "average",
        split: str = "released",
        residual: bool = True,
        kernel_initializer: Any = "orthogonal",
        recurrent_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.levels = check_integer("levels", levels)
        self.groups = check_integer("groups", groups)
        self.input_transform_kind = check_choice("input_transform", input_transform, TRANSFORMS)
        self.context_transform_kind = check_choice(
            "context_transform", context_transform, TRANSFORMS
        )
        self.subsampling = subsampling
        self.split = split
        self.residual = bool(residual)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = (
            None if recurrent_initializer is None else keras.initializers.get(recurrent_initializer)
        )
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.input_transform = self._transform(
            "input_transform",
            input_transform,
            self.residual,
            self.kernel_initializer,
            self.kernel_regularizer,
        )
        self.context_transform = self._transform(
            "context_transform",
            context_transform,
            False,
            self.recurrent_initializer,
            self.recurrent_regularizer,
        )

    def _transform(self, name, kind, residual, initializer, regularizer):
        """One of the two transforms, which makes the pre-activations of all gates."""
        options = {
            "blocks": GATES,
            "bias_initializer": _copy(self.bias_initializer),
            "kernel_regularizer": regularizer,
            "dtype": self.dtype_policy,
            "name": name,
        }
        if kind == "pyramidal":
            return PyramidalTransform(
                self.units,
                levels=self.levels,
                subsampling=self.subsampling,
                residual=residual,
                split=self.split,
                kernel_initializer=_copy(initializer) or "orthogonal",
                **options,
            )
        groups = self.groups if kind == "grouped" else 1
        return GroupedLinear(
            self.units, groups=groups, kernel_initializer=_copy(initializer), **options
        )

    @property
    def state_size(self) -> list[int]:
        """Widths of the two states."""
        return [self.units, self.units]

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.units

    def build(self, input_shape):
        super().build(input_shape)
        if not self.input_transform.built:
            self.input_transform.build(input_shape)
        if not self.context_transform.built:
            self.context_transform.build((input_shape[0], self.units))
        self.built = True

    def get_initial_state(self, batch_size=None):
        """The states before the first step: zeros."""
        return [ops.zeros((batch_size, self.units), self.compute_dtype) for _ in range(2)]

    def call(self, inputs, states, training=None):
        hidden, cell = states[0], states[1]
        pre = self.input_transform(inputs) + self.context_transform(hidden)
        hidden, cell, _ = gates_of(pre, cell)
        return hidden, [hidden, cell]

    def compute_output_shape(self, input_shape, states_shape=None):
        state = (input_shape[0], self.units)
        return state, [state, state]

    def get_config(self):
        recurrent = self.recurrent_initializer
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            "groups": self.groups,
            "input_transform": self.input_transform_kind,
            "context_transform": self.context_transform_kind,
            "subsampling": self.subsampling,
            "split": self.split,
            "residual": self.residual,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": None
            if recurrent is None
            else keras.initializers.serialize(recurrent),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
        }


def _copy(initializer):
    """An initializer of its own: one that is shared would draw the same values twice."""
    if isinstance(initializer, keras.initializers.Initializer):
        return initializer.clone()
    return initializer
