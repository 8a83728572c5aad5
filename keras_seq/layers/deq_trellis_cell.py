"""The cell of a deep equilibrium trellis network."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_choice, check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.equilibrium_cell import EquilibriumCell
from keras_seq.ops.lstm import Gates, lstm_step
from keras_seq.ops.packing import last_steps, last_valid
from keras_seq.ops.trellis.state import STATE_KINDS
from keras_seq.ops.weight_drop import weight_drop, weight_drop_mask
from keras_seq.ops.weight_norm import direction_norm, weight_normalize


@export("keras_seq.layers.DEQTrellisCell")
class DEQTrellisCell(EquilibriumCell):
    """One level of a trellis network, as the cell of a `DeepEquilibrium`.

    Bai, Kolter and Koltun, *Deep Equilibrium Models* (NeurIPS 2019), section 3.2. The value
    z = [h, c] holds the hidden and the cell sequence:

        pre = W_z * h + W_x * x,    c' = f c₋₁ + i g,    h' = o tanh(c')

    with the gates i, o, g, f of `pre`, causal convolutions `*` with a bias each, and c₋₁ the cell
    one step in the past. The injected input W_x * x, the normalised kernels and the dropout masks
    are made once a call.

    **State.** The *exact* state holds the last k-1 steps of h and of x, and the last one of c:
    chunks, down to single steps, then equal the whole sequence to the solver's tolerance. The
    *history* is the paper's: the last h and c, which stand for every earlier step; x is padded with
    zeros at the beginning of every chunk.

    Args:
        units: hidden channels that are not output.
        output_units: output channels, the last ones of h.
        kernel_size: taps k of both convolutions; tap k-1 is the current step.
        weight_normalization: normalise each output channel of both kernels.
        hidden_dropout: rate of one mask (b, 1, units + output_units) a call on h before the
            convolution.
        weight_dropout: rate at which elements of the hidden kernel are dropped, one mask a call,
            before it is normalised.
        temporal_weight_dropout: drop only in the taps of past steps.
        state: the kind of state used where none is given, `"exact"` or `"history"`.
        kernel_initializer: of both kernels; a normal distribution of deviation 0.01 by default.
        bias_initializer: of both biases; the same default.
        seed: of the dropout masks.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        z: (b, t, 2 (units + output_units)).
        x: (b, t, d).
        training: whether to draw masks.
        initial_state: the state before the first step; zeros if not given.

    Output shape:
        The shape of z. `outputs` takes the output channels of an equilibrium.

    Example:

    >>> cell = keras_seq.layers.DEQTrellisCell(4, 3)
    >>> layer = keras_seq.layers.DeepEquilibrium(cell, tolerance=1e-5)
    >>> x = ops.ones((2, 6, 5))
    >>> first, state = layer(x[:, :4], return_state=True)
    >>> rest = layer(x[:, 4:], initial_state=state)
    >>> bool(np.allclose(rest, layer(x)[:, 4:], atol=1e-4))
    True
    """

    facts = ("groups",)
    reach = 1

    def __init__(
        self,
        units: int,
        output_units: int,
        kernel_size: int = 2,
        weight_normalization: bool = False,
        hidden_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        temporal_weight_dropout: bool = True,
        state: str = "exact",
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        seed: int | None = None,
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
        check_choice("state", state, STATE_KINDS)
        check_rate(hidden_dropout, "hidden_dropout")
        check_rate(weight_dropout, "weight_dropout")
        self.units = units
        self.output_units = output_units
        self.kernel_size = kernel_size
        self.weight_normalization = weight_normalization
        self.hidden_dropout = hidden_dropout
        self.weight_dropout = weight_dropout
        self.temporal_weight_dropout = temporal_weight_dropout
        self.state = state
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
        super().build(x_shape)
        self.kernel_hidden, self.bias_hidden, self.gain_hidden = self._weights("hidden", self.width)
        self.kernel_input, self.bias_input, self.gain_input = self._weights("input", x_shape[-1])

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

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: zeros.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"`, `"history"`, or `None` for the cell's `state`.

        Returns:
            A dict of `hidden` (b, k-1, w), `cell` (b, w) and `input` (b, k-1, d), or a list of the
            last hidden and cell vector, (b, w) each, with w the width.
        """
        kind = check_choice("kind", self.state if kind is None else kind, STATE_KINDS)
        if kind == "history":
            return [self._zeros(batch_size, self.width) for _ in range(2)]
        if not self.built:
            raise ValueError(
                "The exact state holds past inputs, so the cell must be built first. "
                "Call or build the layer before `get_initial_state`."
            )
        past = self.kernel_size - 1
        return {
            "hidden": self._zeros(batch_size, past, self.width),
            "cell": self._zeros(batch_size, self.width),
            "input": self._zeros(batch_size, past, int(self.kernel_input.shape[1])),
        }

    def _zeros(self, *shape):
        return ops.zeros(shape, self.compute_dtype)

    def next_state(self, z, x, initial_state, mask=None):
        """The state after a chunk, of the kind of `initial_state`.

        Args:
            z: (b, t, 2 w) equilibrium.
            x: (b, t, d) input.
            initial_state: the state before the chunk.
            mask: (b, t), true at the first steps of each row, which count; `None` where all do.
        """
        h, c = ops.split(z, 2, axis=-1)

        def newest(before, now):
            return now[:, -1] if mask is None else last_valid(now, mask, before)

        if not isinstance(initial_state, dict):
            return [newest(*pair) for pair in zip(initial_state, (h, c), strict=True)]
        past = self.kernel_size - 1

        def last(before, now):
            joined = ops.concatenate([before, ops.cast(now, before.dtype)], axis=1)
            if mask is not None:
                return last_steps(joined, mask, past)
            return joined[:, ops.shape(joined)[1] - past :]

        return {
            "hidden": last(initial_state["hidden"], h),
            "cell": newest(initial_state["cell"], c),
            "input": last(initial_state["input"], x),
        }

    def get_masks(self, batch_size) -> dict:
        """Draws the dropout masks of one call.

        Args:
            batch_size: b, an integer or a scalar tensor.

        Returns:
            A dict of `hidden` (b, 1, w) and `weight` (m, w, 4 w), where their rates are not zero.
        """
        masks = {}
        if self.hidden_dropout:
            masks["hidden"] = bernoulli_mask(
                (batch_size, 1, self.width),
                self.hidden_dropout,
                draw_seed(self.seed_generator),
                self.compute_dtype,
            )
        if self.weight_dropout:
            masks["weight"] = weight_drop_mask(
                self.kernel_hidden.shape,
                self.weight_dropout,
                draw_seed(self.seed_generator),
                self.temporal_weight_dropout,
            )
        return masks

    def prepare(self, x, training=None, initial_state=None, masks=None):
        """What stays the same in all steps of a solve: injected input, kernel, masks, past.

        Args:
            x: (b, t, d).
            training: whether to draw masks where none are given.
            initial_state: the state before the first step; zeros if not given.
            masks: of `get_masks`.
        """
        batch = ops.shape(x)[0]
        if masks is None:
            masks = self.get_masks(batch) if training else {}
        past = self.kernel_size - 1
        inputs = self._zeros(batch, past, x.shape[-1])
        if initial_state is None:
            hidden, cell = self._zeros(batch, past, self.width), self._zeros(batch, self.width)
        elif isinstance(initial_state, dict):
            hidden, cell, inputs = (initial_state[name] for name in ("hidden", "cell", "input"))
        else:
            hidden, cell = initial_state
            hidden = ops.repeat(hidden[:, None], past, axis=1)
        x = ops.concatenate([ops.cast(inputs, x.dtype), x], axis=1)
        injected = self._convolve(x, self._kernel("input"))
        bias = ops.convert_to_tensor(self.bias_input) + ops.convert_to_tensor(self.bias_hidden)
        context = {
            "injected": injected + ops.cast(bias, self.compute_dtype),
            "kernel": self._kernel("hidden", masks.get("weight")),
            "hidden": ops.cast(hidden, self.compute_dtype),
            "cell": ops.cast(cell, self.compute_dtype)[:, None],
        }
        if "hidden" in masks:
            context["mask"] = ops.cast(masks["hidden"], self.compute_dtype)
        return context

    def _kernel(self, name, mask=None):
        """A kernel as one matrix (k d, 4 width)."""
        kernel = ops.convert_to_tensor(getattr(self, f"kernel_{name}"))
        if mask is not None:
            kernel = weight_drop(kernel, mask)
        if self.weight_normalization:
            gain = ops.convert_to_tensor(getattr(self, f"gain_{name}"))
            kernel = weight_normalize(kernel, gain)
        kernel = ops.reshape(kernel, (-1, 4 * self.width))
        return ops.cast(kernel, self.compute_dtype)

    def _convolve(self, padded, kernel):
        """(b, k-1 + t, d) to (b, t, 4 width), as one product over all taps."""
        steps = ops.shape(padded)[1] - (self.kernel_size - 1)
        taps = [padded[:, tap : tap + steps] for tap in range(self.kernel_size)]
        rows = ops.reshape(ops.concatenate(taps, axis=-1), (-1, kernel.shape[0]))
        return ops.reshape(ops.matmul(rows, kernel), (-1, steps, kernel.shape[1]))

    def iterate(self, z, context):
        """One application of f."""
        h, c = ops.split(z, 2, axis=-1)
        hidden = ops.concatenate([context["hidden"], h], axis=1)
        if "mask" in context:
            hidden = hidden * context["mask"]
        pre = self._convolve(hidden, context["kernel"]) + context["injected"]
        i, o, g, f = ops.split(pre, 4, axis=-1)
        past = ops.concatenate([context["cell"], c[:, :-1]], axis=1)
        h, c, _ = lstm_step(Gates(i, f, g, o), past)
        return ops.concatenate([h, c], axis=-1)

    def outputs(self, z):
        """The output channels of a state, (b, t, output_units)."""
        return z[..., self.units : self.width]

    def compute_output_shape(self, z_shape, x_shape=None):
        return z_shape

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "output_units": self.output_units,
            "kernel_size": self.kernel_size,
            "weight_normalization": self.weight_normalization,
            "hidden_dropout": self.hidden_dropout,
            "weight_dropout": self.weight_dropout,
            "temporal_weight_dropout": self.temporal_weight_dropout,
            "state": self.state,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "seed": self.seed,
        }
