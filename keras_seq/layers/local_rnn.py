"""The windowed recurrence of the R-Transformer."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer, fan_in_uniform
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.keras_recurrent import refuse_dropout
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.packing import last_steps
from keras_seq.ops.products import matrix_product
from keras_seq.ops.time_parts import time_parts
from keras_seq.ops.windowed_cells import BLOCKS, projection_bias
from keras_seq.ops.windowed_recurrence import windowed_recurrence


@export("keras_seq.layers.LocalRNN")
class LocalRNN(CausalLayer):
    """A recurrent network over a short window that ends at each position.

    Wang, Ma, Liu and Tang, *R-Transformer: Recurrent Neural Network Enhanced Transformer* (2019),
    section 3.1: the output at step t is the last hidden state of one shared recurrent network that
    runs from a zero state over the `window` inputs up to and with t. As in the release, the inputs
    before the first are zero vectors, which the network reads like any others.

    All windows advance together. Step j of every window reads a view of the sequence shifted by j,
    so no window is copied: the input is projected once for all positions, the first step needs no
    recurrent product, and the loop over the `window` steps works on (b, t, u) tensors.

    **State.** The last `window - 1` inputs (b, window - 1, d): chunks, down to single steps, give
    the outputs of the full pass.

    Args:
        units: width u of the hidden state.
        window: steps of a window, the current one included.
        cell: `"gru"`, `"lstm"` or `"rnn"` (tanh), each with an input bias and a recurrent bias, or
            any cell of the Keras contract such as `keras.layers.GRUCell(units)`. A cell object is
            called as it is, at each step of the window on all positions at once, so that its input
            product is computed `window` times.
        kernel_initializer: of the input kernel.
        recurrent_initializer: of the recurrent kernel.
        bias_initializer: of both biases. The default of all three is uniform within ± 1 / √fan-in
            (biases: ± 1 / √u), as in the release.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for zeros.
        return_state: also return the state after the last step.
        training: handed to a cell object. A named cell in training uses a gradient written by hand,
            which cannot be differentiated again.
        masks: accepted as every layer does; there are none.
        mask: (b, t), true at valid steps, see `CausalLayer`.

    Output shape:
        (b, t, u).

    Raises:
        ValueError: on sizes that are not positive, an unknown cell, a cell of another width, or one
            of Keras' cells with dropout, which they draw once for all calls.

    Example:

    >>> layer = keras_seq.layers.LocalRNN(8, window=4)
    >>> x = np.ones((2, 10, 3), "float32")
    >>> y, state = layer(x[:, :6], return_state=True)
    >>> rest = layer(x[:, 6:], initial_state=state)
    """

    facts = ("window", "cell")
    given_parts = ("cell",)

    def __init__(
        self,
        units: int,
        window: int,
        cell: Any = "gru",
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        bias_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.window = check_integer("window", window)
        self.cell: Any = _get_cell(cell, units)
        self.kernel_initializer = fan_in_uniform(kernel_initializer)
        self.recurrent_initializer = fan_in_uniform(recurrent_initializer)
        if bias_initializer is None:
            limit = units**-0.5
            bias_initializer = keras.initializers.RandomUniform(-limit, limit)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def output_units(self) -> int:
        """Width of the output, `units`."""
        return self.units

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included: `window`."""
        return self.window

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        if not isinstance(self.cell, str):
            if not self.cell.built:
                self.cell.build((None, self.input_features))
                self.cell.built = True
            return
        width = BLOCKS[self.cell] * self.units
        self.kernel = self.add_weight(
            name="kernel", shape=(features, width), initializer=self.kernel_initializer
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=self.recurrent_initializer,
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.bias_initializer)
        self.recurrent_bias = self.add_weight(
            name="recurrent_bias", shape=(width,), initializer=self.bias_initializer
        )

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: zeros (b, window - 1, d).

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        if not self.built:
            raise ValueError(
                "The state holds past inputs, so the layer must be built first. Call the layer "
                "once, or its `build((b, t, d))`."
            )
        return ops.zeros((batch_size, self.window - 1, self.input_features), self.compute_dtype)

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        past = self.window - 1
        length = ops.shape(x)[1]
        if initial_state is None:
            padded = ops.pad(x, [[0, 0], [past, 0], [0, 0]])
        else:
            padded = ops.concatenate([ops.cast(initial_state, x.dtype), x], axis=1)
        run = self._run if isinstance(self.cell, str) else self._run_cell
        finite = finite_steps(padded)
        outputs = run(only(finite, padded), length, training)
        outputs = marked(outputs, seen_lost(finite, past, length, self.window))
        if not return_state:
            return outputs
        return outputs, padded[:, length:] if mask is None else last_steps(padded, mask, past)

    def _run(self, padded, length, training):
        """All windows at once; step j reads the projected inputs shifted by j."""
        kernel, recurrent_kernel, bias, recurrent_bias = (
            ops.convert_to_tensor(weight)
            for weight in (self.kernel, self.recurrent_kernel, self.bias, self.recurrent_bias)
        )
        inner_bias = recurrent_bias[2 * self.units :] if self.cell == "gru" else None
        added = projection_bias(self.cell, bias, recurrent_bias)

        def run(seen, length):
            projected = matrix_product(seen, kernel) + added
            return windowed_recurrence(
                self.cell,
                projected,
                recurrent_kernel,
                inner_bias,
                self.window,
                length,
                bool(training),
            )

        batch = ops.shape(padded)[0]
        parts = time_parts(batch, length, self.units) if training else []
        if len(parts) < 2:
            return run(padded, length)
        past = self.window - 1
        outputs = [run(padded[:, first : end + past], end - first) for first, end in parts]
        return ops.concatenate(outputs, axis=1)

    def _run_cell(self, padded, length, training):
        """The same with a cell object, which sees every position as a row of its batch."""
        rows = ops.shape(padded)[0] * length
        options = {"training": training} if _takes_training(self.cell) else {}
        states = self.cell.get_initial_state(batch_size=rows)
        states = list(states) if isinstance(states, list | tuple) else [states]
        output = None
        for j in range(self.window):
            inputs = ops.reshape(padded[:, j : j + length], (-1, self.input_features))
            output, states = self.cell(inputs, states, **options)
            states = list(states) if isinstance(states, list | tuple) else [states]
        return ops.reshape(output, (-1, length, self.units))

    def get_config(self):
        cell = self.cell
        return {
            **super().get_config(),
            "units": self.units,
            "window": self.window,
            "cell": cell if isinstance(cell, str) else keras.saving.serialize_keras_object(cell),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config.get("cell"), dict):
            config["cell"] = keras.saving.deserialize_keras_object(config["cell"])
        return super().from_config(config)


_CELLS = (
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
    keras.layers.SimpleRNNCell,
    keras.layers.StackedRNNCells,
)


def _get_cell(cell, units):
    if isinstance(cell, str):
        if cell not in BLOCKS:
            raise ValueError(
                f"`cell` must be one of {sorted(BLOCKS)} or a Keras cell. Received: cell={cell!r}."
            )
        return cell
    if not (callable(cell) and hasattr(cell, "state_size")):
        raise ValueError(
            f"`cell` must be one of {sorted(BLOCKS)} or a layer with `state_size`, as the cells of "
            f"Keras have. Received: cell={cell!r}."
        )
    if isinstance(cell, _CELLS):
        refuse_dropout("cell", cell.get_config())
    sizes = cell.state_size
    first = sizes[0] if isinstance(sizes, list | tuple) else sizes
    width = getattr(cell, "output_size", None) or first
    if width != units:
        raise ValueError(
            f"`cell` must have `units` outputs. Received: units={units} and a cell of {width}."
        )
    return cell


def _takes_training(cell) -> bool:
    return "training" in inspect.signature(cell.call).parameters
