"""The trellis network layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_choice, check_integer, check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.layers.temporal_block import check_padding, refuse_state
from keras_seq.ops.trellis.gates import TrellisGates, get_gates
from keras_seq.ops.trellis.kernels import Kernels, dense_kernels, group_kernels
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.trellis.run import run_trellis
from keras_seq.ops.trellis.state import STATE_KINDS, kind_of, zero_state
from keras_seq.ops.weight_drop import weight_drop_mask
from keras_seq.ops.weight_norm import direction_norm


@export("keras_seq.layers.TrellisNet")
class TrellisNet(CausalLayer):
    """A trellis network: a deep causal convolution with one kernel for all levels.

    Bai, Kolter and Koltun, *Trellis Networks for Sequence Modeling* (ICLR 2019). Level l maps the
    hidden sequence z and the cell sequence c of the level below, with the input x injected again
    (equations 11 and 12):

        pre = W_x * x + W_z * z + b,    (z, c) = f(pre, c one step in the past)

    where `*` is a causal convolution of `kernel_size` taps. Both z and c are zero below the first
    level. Every level uses the same W_x, W_z and b, so the normalised and dropped kernel, the
    injected input and the dropout masks are computed once a call; the levels then iterate a
    function of (z, c) alone.

    **State.** Two kinds can be carried from one call to the next. The *exact* state holds the last
    steps of each level: chunks, down to single steps, give the outputs of the full pass, and a step
    costs the same however long the past is. The *history* state is the paper's: the final hidden
    and cell vector of the last level, which pad every level of the next call.

    Args:
        units: hidden channels that are not output. The state width is `units + output_units`.
        output_units: output channels, the last ones of the hidden sequence.
        levels: number of levels.
        kernel_size: taps k of the convolution; tap k-1 is the current step.
        dilation_rate: an integer, or a sequence that the levels cycle through.
        activation: `"lstm"`, `"gru"`, `"rnn"`, a gates object such as `LSTMGates()`, or a function
            `f(pre, previous_hidden, previous_cell)` that returns `(hidden, cell)` or the hidden
            sequence alone. `pre` has shape `(b, t, blocks * width)` where `blocks` is an integer
            attribute of the function (default 1). `previous_hidden` is `None` for one tap.
        groups: widths of the groups of a mixed-group kernel (Theorem 1), or `None` for a dense
            kernel. Group g sees its own previous step and the current step of group g-1, the first
            group sees the input; group g is zero in the first g-1 levels.
        injection_frequency: inject the input at levels 1, 1+n, 1+2n, ... (Table 6).
        auxiliary_frequency: collect an auxiliary output after every n-th level, or `None`.
        weight_normalization: normalise each output channel of both kernels.
        hidden_dropout: rate of the variational dropout of the hidden input of the convolution: one
            mask `(b, 1, width)` a call for all steps and levels, padding included.
        weight_dropout: rate of the dropout on the elements of both kernels, drawn once a call. With
            weight normalisation it acts on the direction.
        temporal_weight_dropout: drop only the taps of past steps.
        state: the kind of state returned when none is given, `"exact"` or `"history"`.
        unroll: repeat the levels in the graph (faster steps), or loop over them (faster tracing
            and compiling).
        rematerialize: keep only about the square root of the number of levels for the backward
            pass and compute the others again.
        kernel_initializer: of both kernels, drawn as one kernel over input and hidden channels.
            Defaults to a normal distribution of deviation 0.01.
        bias_initializer: of the bias; the same default.
        kernel_regularizer: of both kernels.
        seed: of the dropout masks.
        padding: `"causal"`, or `"same"` for convolutions centred on their step, with the zeros of
            `keras.layers.Conv1D`: of two taps the last is one dilation ahead. The cells are handed
            on from the past as before: the gates weigh what a step sees on both sides against the
            cell one dilation earlier. Such a network has no state and no groups.
        **kwargs: of `CausalLayer`.

    Call arguments:
        x: `(b, t, d)`.
        initial_state: `None` for zeros; a dict from `get_initial_state(kind="exact")` or a pair
            `[h, c]` of `(b, width)` tensors. The structure tells the kind.
        return_state: also return the state, of the kind given, as the last element.
        training: whether to draw dropout masks.
        return_auxiliary: also return the auxiliary outputs, right after the outputs.
        masks: dropout masks to use whatever `training` is, as from `get_masks`; `{}` for none.
        mask: `(b, t)`, true at valid steps, see `CausalLayer`.

    Output shape:
        `(b, t, output_units)`; the auxiliary outputs are `(b, m, t, output_units)` for m auxiliary
        levels. The exact state is a dict of `hidden` (b, sum of (k-1) d_l, width), `cell`
        (b, sum of d_l, width) and `input` (b, (k-1) max d_l, d), with d_l the dilation of level l.

    Raises:
        ValueError: on sizes or rates out of range, groups that do not sum to the width, an
            auxiliary frequency that no level is a multiple of, or `padding="same"` together with
            groups, with `lookahead` or with a state.

    Example:

    >>> import numpy as np
    >>> layer = TrellisNet(units=6, output_units=4, levels=5)
    >>> x = np.ones((2, 7, 3), "float32")
    >>> tuple(layer(x).shape)
    (2, 7, 4)
    >>> y, state = layer(x[:, :4], return_state=True)
    >>> rest = layer(x[:, 4:], initial_state=state)
    """

    facts = ("groups",)

    def __init__(
        self,
        units: int,
        output_units: int,
        levels: int,
        kernel_size: int = 2,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = "lstm",
        groups: Sequence[int] | None = None,
        injection_frequency: int = 1,
        auxiliary_frequency: int | None = None,
        weight_normalization: bool = False,
        hidden_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        temporal_weight_dropout: bool = True,
        state: str = "exact",
        unroll: bool = True,
        rematerialize: bool = False,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        kernel_regularizer: Any = None,
        seed: int | None = None,
        padding: str = "causal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units, 0)
        self._output_units = check_integer("output_units", output_units)
        self.levels = check_integer("levels", levels)
        self.kernel_size = check_integer("kernel_size", kernel_size)
        several = isinstance(dilation_rate, Sequence)
        cycle = tuple(dilation_rate) if several else (dilation_rate,)
        for dilation in cycle or (0,):
            check_integer("dilation_rate", dilation)
        self.dilation_rate = cycle if several else cycle[0]
        self.activation = activation
        self.gates: TrellisGates = get_gates(activation)
        self.groups = None if groups is None else tuple(groups)
        self.injection_frequency = check_integer("injection_frequency", injection_frequency)
        self.auxiliary_frequency = auxiliary_frequency
        self.weight_normalization = weight_normalization
        self.hidden_dropout = check_rate(hidden_dropout, "hidden_dropout")
        self.weight_dropout = check_rate(weight_dropout, "weight_dropout")
        self.temporal_weight_dropout = temporal_weight_dropout
        self.state = check_choice("state", state, STATE_KINDS)
        self.unroll = unroll
        self.rematerialize = rematerialize
        self.kernel_initializer = _initializer(kernel_initializer)
        self.bias_initializer = _initializer(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.padding = check_padding(padding, self)
        self._check_groups()
        if auxiliary_frequency is not None:
            check_integer("auxiliary_frequency", auxiliary_frequency)
            if auxiliary_frequency > levels:
                raise ValueError(
                    "`auxiliary_frequency` must be at most `levels`, or no level has an auxiliary "
                    f"output. Received: auxiliary_frequency={auxiliary_frequency}, levels={levels}."
                )
        self._plan = TrellisPlan(
            kernel_size=kernel_size,
            dilations=tuple(cycle[level % len(cycle)] for level in range(levels)),
            injected=tuple(level % injection_frequency == 0 for level in range(levels)),
            collected=tuple(level - 1 for level in self.auxiliary_levels),
            width=self.width,
            output_units=output_units,
            gates=self.gates,
            groups=self.groups,
            centred=padding == "same",
        )

    def _check_groups(self):
        groups = self.groups
        if groups is None:
            return
        for width in groups or (0,):
            check_integer("groups", width)
        if sum(groups) != self.width:
            raise ValueError(
                "`groups` must sum to `units + output_units`. Received: "
                f"groups={groups}, units={self.units}, output_units={self.output_units}."
            )
        if len(groups) > self.levels:
            raise ValueError(
                "`levels` must be at least the number of groups, or the last group stays zero. "
                f"Received: levels={self.levels}, groups={groups}."
            )
        if self.padding == "same":
            raise ValueError(
                "`padding` must be 'causal' with a mixed-group kernel, whose taps are a recurrent "
                f"network's past and present. Received: padding='same', groups={groups}. For both "
                "directions use `keras.layers.Bidirectional`."
            )
        if self.kernel_size != 2 or self.weight_normalization or self.weight_dropout:
            raise ValueError(
                "A mixed-group kernel has two taps, no weight normalisation and no weight dropout. "
                f"Received: kernel_size={self.kernel_size}, weight_normalization="
                f"{self.weight_normalization}, weight_dropout={self.weight_dropout}."
            )

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.padding == "causal" and super().is_causal

    @property
    def loop(self) -> str:
        """What is repeated with the same weights."""
        return f"{self.levels} levels, the same weights at each"

    @property
    def output_units(self) -> int:
        """Width of the output."""
        return self._output_units

    @property
    def width(self) -> int:
        """Channels of the hidden sequence, `units + output_units`."""
        return self.units + self.output_units

    @property
    def auxiliary_levels(self) -> tuple[int, ...]:
        """The levels, counted from 1, that give an auxiliary output."""
        if self.auxiliary_frequency is None:
            return ()
        return tuple(range(self.auxiliary_frequency, self.levels + 1, self.auxiliary_frequency))

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included."""
        return self._plan.receptive_field

    def build(self, input_shape):
        super().build(input_shape)
        if self.groups is None:
            self._build_dense()
        else:
            self._build_groups()

    def _build_dense(self):
        features, channels = self.input_features, self.gates.blocks * self.width
        whole = (self.kernel_size, features + self.width, channels)

        def part(start, stop):  # of one draw over input and hidden channels
            def draw(shape, dtype=None):
                return self.kernel_initializer(whole, dtype=dtype)[:, start:stop]

            return draw

        def norm_of(direction):
            return lambda shape, dtype=None: ops.cast(direction_norm(direction.value), dtype)

        self.kernel_input = self._add_kernel(
            "kernel_input", (self.kernel_size, features, channels), part(0, features)
        )
        self.kernel_hidden = self._add_kernel(
            "kernel_hidden", (self.kernel_size, self.width, channels), part(features, None)
        )
        if self.weight_normalization:  # gains start at the norms, so the kernel at its direction
            kernels = (self.kernel_input, self.kernel_hidden)
            self.gain_input, self.gain_hidden = (
                self._add_vector(f"gain_{name}", channels, norm_of(kernel))
                for name, kernel in zip(("input", "hidden"), kernels, strict=True)
            )
        self.bias = self._add_vector("bias", channels, self.bias_initializer)

    def _build_groups(self):
        gates, below = self.gates, self.input_features
        self.kernels_recurrent, self.kernels_below, self.biases = [], [], []
        for place, width in enumerate(self.groups or (), start=1):
            for name, rows, blocks, kernels in (
                ("recurrent", width, gates.recurrent_blocks, self.kernels_recurrent),
                ("below", below, gates.input_blocks, self.kernels_below),
            ):
                shape = (rows, len(blocks) * width)
                kernels.append(
                    self._add_kernel(f"kernel_{name}_{place}", shape, self.kernel_initializer)
                )
            self.biases.append(
                self._add_vector(f"bias_{place}", gates.blocks * width, self.bias_initializer)
            )
            below = width

    def _add_kernel(self, name, shape, initializer):
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            regularizer=self.kernel_regularizer,
            autocast=False,
            name=name,
        )

    def _add_vector(self, name, size, initializer):
        return self.add_weight(shape=(size,), initializer=initializer, autocast=False, name=name)

    def get_masks(self, batch_size):
        """Draws the dropout masks of one call.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.

        Returns:
            A dict of those that have a rate: `hidden` (b, 1, width), `weight_input` and
            `weight_hidden` with the shape of the dropped taps of the kernels. Kept places hold
            `1 / (1 - rate)`.
        """
        masks = {}
        if self.hidden_dropout:
            masks["hidden"] = bernoulli_mask(
                (batch_size, 1, self.width), self.hidden_dropout, draw_seed(self.seed_generator)
            )
        if self.weight_dropout:
            for name, kernel in (("input", self.kernel_input), ("hidden", self.kernel_hidden)):
                masks[f"weight_{name}"] = weight_drop_mask(
                    kernel.shape,
                    self.weight_dropout,
                    draw_seed(self.seed_generator),
                    self.temporal_weight_dropout,
                )
        return masks

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: zeros.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"`, `"history"`, or `None` for the layer's `state`.
        """
        refuse_state(self)
        kind = check_choice("kind", self.state if kind is None else kind, STATE_KINDS)
        if kind == "exact" and not self.built:
            raise ValueError(
                "The exact state holds past inputs, so the layer must be built first. "
                "Call the layer once, or its `build((b, t, d))`."
            )
        return zero_state(self._plan, kind, batch_size, self.input_features, self.compute_dtype)

    def kind_of(self, state) -> str:
        """The kind of a state, by its structure."""
        return kind_of(state)

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        return_auxiliary=False,
        masks=None,
        mask=None,
    ):
        if return_state or initial_state is not None:
            refuse_state(self)
        if return_auxiliary and not self.auxiliary_levels:
            raise ValueError(
                "There are no auxiliary outputs to return: set `auxiliary_frequency` when making "
                "the layer."
            )
        if masks is None:
            masks = self.get_masks(ops.shape(x)[0]) if training else {}
        kind = self.state if initial_state is None else kind_of(initial_state)
        results = run_trellis(
            self._plan,
            self._kernels(masks),
            x,
            initial_state,
            mask=masks.get("hidden"),
            next_kind=kind if return_state else None,
            with_auxiliary=return_auxiliary,
            training=training,
            unroll=self.unroll,
            rematerialize=self.rematerialize,
            valid=mask,
        )
        asked = [part for part in results if part is not None]
        return asked[0] if len(asked) == 1 else tuple(asked)

    def _kernels(self, masks) -> Kernels:
        """The kernels of a call, which all its levels share."""
        if self.groups is not None:
            weights = (self.kernels_recurrent, self.kernels_below, self.biases)
            return group_kernels(self.gates, *weights, dtype=self.compute_dtype)
        return dense_kernels(
            (self.kernel_input, self.kernel_hidden),
            (self.gain_input, self.gain_hidden) if self.weight_normalization else (None, None),
            (masks.get("weight_input"), masks.get("weight_hidden")),
            self.bias,
            dtype=self.compute_dtype,
        )

    def get_config(self):
        activation = self.activation
        if not isinstance(activation, str):
            activation = keras.saving.serialize_keras_object(activation)
        return {
            **super().get_config(),
            "units": self.units,
            "output_units": self.output_units,
            "levels": self.levels,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "activation": activation,
            "groups": self.groups,
            "injection_frequency": self.injection_frequency,
            "auxiliary_frequency": self.auxiliary_frequency,
            "weight_normalization": self.weight_normalization,
            "hidden_dropout": self.hidden_dropout,
            "weight_dropout": self.weight_dropout,
            "temporal_weight_dropout": self.temporal_weight_dropout,
            "state": self.state,
            "unroll": self.unroll,
            "rematerialize": self.rematerialize,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
            "padding": self.padding,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config.get("activation"), dict):
            config["activation"] = keras.saving.deserialize_keras_object(config["activation"])
        return super().from_config(config)

    @classmethod
    def from_rnn(cls, layers, horizon, **kwargs):
        """Theorem 1 made executable: the trellis network that is a given recurrent network.

        The outputs equal those of the stack of `layers` run over the last `horizon` inputs from a
        zero state, at every step (over all inputs while there are fewer). The network has
        `horizon + len(layers) - 1` levels and a mixed-group kernel with one group a layer.

        Args:
            layers: a built `SimpleRNN`, `GRU` (with `reset_after`) or `LSTM` of Keras, or a list of
                such layers of one type, the first one below.
            horizon: inputs that an output depends on.
            **kwargs: further arguments of the constructor.

        Returns:
            A built `TrellisNet` whose output is the hidden sequence of the last layer.
        """
        from keras_seq.layers.rnn_conversion import trellis_from_rnn

        return trellis_from_rnn(cls, layers, horizon, **kwargs)


def _initializer(identifier):
    if identifier is None:
        return keras.initializers.RandomNormal(stddev=0.01)
    return keras.initializers.get(identifier)
