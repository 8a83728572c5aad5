"""The cell of a deep equilibrium trellis network."""

import keras
from keras import ops

from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.weight_norm import direction_norm, weight_normalize


@export("keras_seq.layers.DEQTrellisCell")
class DEQTrellisCell(keras.layers.Layer):
    """One level of a trellis network, as the cell of a `DeepEquilibrium`.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), section 3.2. The state
    z = [h, c] holds the hidden and the cell sequence:

        pre = W_z * h + W_x * x,    c' = f c₋₁ + i g,    h' = o tanh(c')

    with the gates i, o, g, f of `pre`, causal convolutions `*` with a bias each, and c₋₁ the cell
    one step in the past. The injected input W_x * x, the normalised kernels and the dropout mask
    are made once a call. The state before the first step pads h and c.

    Args:
        units: hidden channels that are not output.
        output_units: output channels, the last ones of h.
        kernel_size: taps k of both convolutions; tap k-1 is the current step.
        weight_normalization: normalise each output channel of both kernels.
        hidden_dropout: rate of one mask (b, 1, units + output_units) a call on h before the
            convolution.
        kernel_initializer: of both kernels; a normal distribution of deviation 0.01 by default.
        bias_initializer: of both biases; the same default.
        seed: of the dropout mask.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        z: (b, t, 2 (units + output_units)).
        x: (b, t, d), or a list of that and the state before the first step,
            (b, 2 (units + output_units)).
        training: whether to draw the mask.

    Output shape:
        The shape of z. `outputs` takes the output channels of an equilibrium, `get_state` the state
        for the next segment.

    Example:

    >>> cell = keras_seq.layers.DEQTrellisCell(4, 3)
    >>> layer = keras_seq.layers.DeepEquilibrium(cell)
    >>> z = layer(ops.ones((2, 6, 5)))
    >>> tuple(z.shape), tuple(cell.outputs(z).shape), tuple(cell.get_state(z).shape)
    ((2, 6, 14), (2, 6, 3), (2, 14))
    """

    def __init__(
        self,
        units,
        output_units,
        kernel_size=2,
        weight_normalization=False,
        hidden_dropout=0.0,
        kernel_initializer=None,
        bias_initializer=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value, least in (
            ("units", units, 0),
            ("output_units", output_units, 1),
            ("kernel_size", kernel_size, 1),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
        if not 0 <= hidden_dropout < 1:
            raise ValueError(
                f"`hidden_dropout` must be in [0, 1). Received: hidden_dropout={hidden_dropout}."
            )
        self.units = units
        self.output_units = output_units
        self.kernel_size = kernel_size
        self.weight_normalization = weight_normalization
        self.hidden_dropout = hidden_dropout
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or small)
        self.bias_initializer = keras.initializers.get(bias_initializer or small.clone())
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def width(self) -> int:
        """Channels of the hidden sequence, `units + output_units`."""
        return self.units + self.output_units

    @property
    def state_units(self) -> int:
        """Channels of z, twice the width."""
        return 2 * self.width

    def build(self, z_shape, x_shape):
        features = x_shape[-1] if isinstance(x_shape[-1], int) else x_shape[0][-1]
        self.kernel_hidden, self.bias_hidden, self.gain_hidden = self._weights("hidden", self.width)
        self.kernel_input, self.bias_input, self.gain_input = self._weights("input", features)

    def _weights(self, name, features):
        channels = 4 * self.width
        kernel = self.add_weight(
            name=f"kernel_{name}",
            shape=(self.kernel_size, features, channels),
            initializer=self.kernel_initializer.clone(),
            autocast=False,
        )
        bias = self.add_weight(
            name=f"bias_{name}",
            shape=(channels,),
            initializer=self.bias_initializer.clone(),
            autocast=False,
        )
        gain = None
        if self.weight_normalization:
            gain = self.add_weight(
                name=f"gain_{name}",
                shape=(channels,),
                initializer=lambda shape, dtype=None: ops.cast(direction_norm(kernel.value), dtype),
                autocast=False,
            )
        return kernel, bias, gain

    def prepare(self, x, training=None):
        """What stays the same in all steps of a solve: injected input, kernel, masks, padding."""
        x, state = x if isinstance(x, list | tuple) else (x, None)
        batch = ops.shape(x)[0]
        if state is None:
            state = ops.zeros((batch, self.state_units), self.compute_dtype)
        padding = ops.zeros((batch, self.kernel_size - 1, x.shape[-1]), x.dtype)
        injected = self._convolve(
            ops.concatenate([padding, x], axis=1), self._kernel("input"), ops.shape(x)[1]
        )
        bias = ops.convert_to_tensor(self.bias_input) + ops.convert_to_tensor(self.bias_hidden)
        context = {
            "injected": injected + ops.cast(bias, self.compute_dtype),
            "kernel": self._kernel("hidden"),
            "state": ops.cast(state, self.compute_dtype),
        }
        if training and self.hidden_dropout:
            context["mask"] = bernoulli_mask(
                (batch, 1, self.width),
                self.hidden_dropout,
                draw_seed(self.seed_generator),
                self.compute_dtype,
            )
        return context

    def _kernel(self, name):
        """A kernel as one matrix (k d, 4 width)."""
        kernel = ops.convert_to_tensor(getattr(self, f"kernel_{name}"))
        if self.weight_normalization:
            gain = ops.convert_to_tensor(getattr(self, f"gain_{name}"))
            kernel = weight_normalize(kernel, gain)
        kernel = ops.reshape(kernel, (-1, 4 * self.width))
        return ops.cast(kernel, self.compute_dtype)

    def _convolve(self, padded, kernel, steps):
        taps = [padded[:, tap : tap + steps] for tap in range(self.kernel_size)]
        return ops.matmul(ops.concatenate(taps, axis=-1), kernel)

    def iterate(self, z, context):
        """One application of f."""
        h, c = ops.split(z, 2, axis=-1)
        h0, c0 = ops.split(context["state"][:, None], 2, axis=-1)
        hidden = ops.concatenate([h0] * (self.kernel_size - 1) + [h], axis=1)
        if "mask" in context:
            hidden = hidden * context["mask"]
        pre = self._convolve(hidden, context["kernel"], ops.shape(z)[1]) + context["injected"]
        i, o, g, f = ops.split(pre, 4, axis=-1)
        past = ops.concatenate([c0, c[:, :-1]], axis=1)
        c = ops.sigmoid(f) * past + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return ops.concatenate([h, c], axis=-1)

    def call(self, z, x, training=None):
        return self.iterate(z, self.prepare(x, training))

    def outputs(self, z):
        """The output channels of a state, (b, t, output_units)."""
        return z[..., self.units : self.width]

    def get_state(self, z):
        """The state after the last step, (b, 2 (units + output_units))."""
        return z[:, -1]

    def compute_output_shape(self, z_shape, x_shape):
        return z_shape

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "output_units": self.output_units,
            "kernel_size": self.kernel_size,
            "weight_normalization": self.weight_normalization,
            "hidden_dropout": self.hidden_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "seed": self.seed,
        }
