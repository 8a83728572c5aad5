"""The residual block of a temporal convolutional network."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import (
    activation_config,
    check_integer,
    check_rate,
    fan_in_uniform,
    get_activation,
)
from keras_seq._backend import wants_portable_operations
from keras_seq._export import export
from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.outline import Part, Residual
from keras_seq.layers.seeded_layer import SeededLayer
from keras_seq.ops import time_shift as shift
from keras_seq.ops.seeded_dropout import seed_of_place, seeded_dropout
from keras_seq.ops.weight_norm import direction_norm, weight_normalize


@export("keras_seq.layers.TemporalBlock")
class TemporalBlock(SeededLayer, CausalLayer):
    """Two dilated causal convolutions with a residual connection.

    Bai, Kolter and Koltun, *An Empirical Evaluation of Generic Convolutional and Recurrent Networks
    for Sequence Modeling* (2018), section 3.3 and figure 1b. With F(x) a convolution, the
    activation and dropout, twice, the block is

        activation(x + F(x))

    where x passes a convolution of one tap if it has not `units` features.

    **State.** The last (kernel_size - 1) · dilation_rate inputs of each convolution: chunks, down
    to single steps, give the outputs of the full pass.

    Args:
        units: output channels u of both convolutions.
        kernel_size: taps k.
        dilation_rate: steps between two taps.
        activation: of each convolution and of the sum.
        weight_normalization: give each output channel of both kernels a gain of its own (Salimans
            and Kingma, 2016), which starts at the norm of the channel.
        dropout: rate after each convolution.
        spatial_dropout: drop whole channels, as the paper says, or single values, as its released
            code does.
        kernel_initializer: of both kernels; by default uniform within ± 1 / √fan-in, as the biases.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for zeros.
        return_state: also return the state after the last step.
        training: whether to draw dropout masks.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        dropout_seed: a seed tensor (2,), short for `masks={"seed": dropout_seed}`.

    Output shape:
        (b, t, u). The state is a list of the last inputs of the first convolution
        (b, (k-1) · dilation_rate, d) and of the second (b, (k-1) · dilation_rate, u).

    Raises:
        ValueError: on sizes that are not positive, or a rate that is not in [0, 1).

    Example:

    >>> block = keras_seq.layers.TemporalBlock(8, kernel_size=3, dilation_rate=2)
    >>> x = np.ones((2, 10, 4), "float32")
    >>> y, state = block(x, return_state=True)
    >>> tuple(y.shape), [tuple(part.shape) for part in state]
    ((2, 10, 8), [(2, 4, 4), (2, 4, 8)])
    """

    given_parts = ("activation",)

    def __init__(
        self,
        units: int,
        kernel_size: int,
        dilation_rate: int = 1,
        activation: Any = "relu",
        weight_normalization: bool = True,
        dropout: float = 0.0,
        spatial_dropout: bool = False,
        kernel_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.kernel_size = check_integer("kernel_size", kernel_size)
        self.dilation_rate = check_integer("dilation_rate", dilation_rate)
        self.activation = get_activation(activation)
        self.weight_normalization = bool(weight_normalization)
        self.dropout = check_rate(dropout, "dropout")
        self.spatial_dropout = bool(spatial_dropout)
        self.kernel_initializer = fan_in_uniform(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def past(self) -> int:
        """Steps that a convolution looks back."""
        return (self.kernel_size - 1) * self.dilation_rate

    @property
    def output_units(self) -> int:
        """Width of the output, `units`."""
        return self.units

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included."""
        return 1 + 2 * self.past

    def build(self, input_shape):
        super().build(input_shape)
        self.features = int(input_shape[-1])
        self.first = self._build_convolution("first", self.features)
        self.second = self._build_convolution("second", self.units)
        if isinstance(self.activation, keras.layers.Layer) and not self.activation.built:
            self.activation.build((*input_shape[:-1], self.units))
        self.residual = None
        if self.features != self.units:
            limit = self.features**-0.5
            kernel = self.add_weight(
                name="residual_kernel",
                shape=(self.features, self.units),
                initializer=keras.initializers.RandomNormal(stddev=0.01),
            )
            bias = self.add_weight(
                name="residual_bias",
                shape=(self.units,),
                initializer=keras.initializers.RandomUniform(-limit, limit),
            )
            self.residual = [kernel, bias]

    def _build_convolution(self, name: str, features: int) -> list:
        """Kernel and bias of a convolution, and its gain if weights are normalised."""
        limit = (self.kernel_size * features) ** -0.5
        kernel = self.add_weight(
            name=f"{name}_kernel",
            shape=(self.kernel_size, features, self.units),
            initializer=self.kernel_initializer,
            autocast=False,
        )
        bias = self.add_weight(
            name=f"{name}_bias",
            shape=(self.units,),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        if not self.weight_normalization:
            return [kernel, bias]
        gain = self.add_weight(
            name=f"{name}_gain",
            shape=(self.units,),
            initializer=lambda shape, dtype=None: ops.cast(direction_norm(kernel.value), dtype),
            autocast=False,
        )
        return [kernel, bias, gain]

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: zeros.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        if not self.built:
            raise ValueError("The layer must be built first. Call it, or its `build((b, t, d))`.")
        return [
            ops.zeros((batch_size, self.past, width), self.compute_dtype)
            for width in (self.features, self.units)
        ]

    def outline(self):
        """The parts in order, with their residual connection, for diagrams."""
        facts = (f"kernel size {self.kernel_size}",)
        parts = [Part("Convolution", tuple(kernel), facts) for kernel in (self.first, self.second)]
        return (Residual(tuple(parts), "" if self.residual is None else "1 × 1 convolution"),)

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        dropout_seed=None,
    ):
        seed = self.seed_of(training, masks, dropout_seed)
        state = [None, None] if initial_state is None else initial_state
        inner, state_1 = self._convolve(x, self.first, state[0], return_state)
        inner = self._drop(inner, seed_of_place(seed, 1))
        outputs, state_2 = self._convolve(inner, self.second, state[1], return_state)
        outputs = self._drop(outputs, seed_of_place(seed, 2))
        if self.residual is not None:
            kernel, bias = self.residual
            x = ops.matmul(x, kernel) + bias
        outputs = self.activation(outputs + x)
        return (outputs, [state_1, state_2]) if return_state else outputs

    def _convolve(self, x, weights, past, return_state: bool):
        """The activated convolution of x after its past, and the past of the next chunk."""
        kernel, bias = weights[0], weights[1]
        if self.weight_normalization:
            kernel = weight_normalize(kernel, weights[2])
        batch = ops.shape(x)[0]
        # Of a batch without rows TensorFlow's oneDNN kernel gets the shape wrong: it gets a row.
        # Runtimes for devices have other kernels, and none for a batch that is a sum.
        known = isinstance(batch, int) or wants_portable_operations()
        missing = int(isinstance(batch, int) and batch == 0) if known else ops.maximum(1 - batch, 0)
        if past is None:
            whole = ops.pad(x, [[0, missing], [self.past, 0], [0, 0]])
        else:
            whole = ops.concatenate([ops.cast(past, x.dtype), x], axis=1)
            if not known or missing:
                whole = ops.pad(whole, [[0, missing], [0, 0], [0, 0]])
        # Without padding of its own the convolution gives one output for each step of x.
        outputs = ops.conv(
            whole,
            ops.cast(kernel, x.dtype),
            padding="valid",
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if not known or missing:
            whole, outputs = whole[:batch], outputs[:batch]
        final = shift.last(whole, self.past) if return_state else None
        return self.activation(outputs + bias), final

    def _drop(self, x, seed):
        if seed is None or not self.dropout or not self.spatial_dropout:
            return seeded_dropout(x, self.dropout, seed)
        shape = (ops.shape(x)[0], 1, self.units)
        return x * bernoulli_mask(shape, self.dropout, DrawnSeed(seed), x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "activation": activation_config(self.activation),
            "weight_normalization": self.weight_normalization,
            "dropout": self.dropout,
            "spatial_dropout": self.spatial_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
