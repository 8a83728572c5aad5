"""The trellis network layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.ops import time_shift as shift
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.fused import folded_input, folds_input, run_fused_levels
from keras_seq.ops.trellis.gates import TrellisGates, get_gates
from keras_seq.ops.trellis.groups import GroupProduct, spread_blocks
from keras_seq.ops.trellis.levels import DenseProduct, run_levels, stretch_count
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.trellis.step import run_step
from keras_seq.ops.weight_drop import weight_drop, weight_drop_mask
from keras_seq.ops.weight_norm import direction_norm, weight_normalize

STATE_KINDS = ("exact", "history")


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
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: `(b, t, d)`.
        initial_state: `None` for zeros; a dict from `get_initial_state(kind="exact")` or a pair
            `[h, c]` of `(b, width)` tensors. The structure tells the kind.
        return_state: also return the state, of the kind given, as the last element.
        training: whether to draw dropout masks.
        return_auxiliary: also return the auxiliary outputs, right after the outputs.
        masks: dropout masks to use whatever `training` is, as from `get_masks`; `{}` for none.

    Output shape:
        `(b, t, output_units)`; the auxiliary outputs are `(b, m, t, output_units)` for m auxiliary
        levels. The exact state is a dict of `hidden` (b, sum of (k-1) d_l, width), `cell`
        (b, sum of d_l, width) and `input` (b, (k-1) max d_l, d), with d_l the dilation of level l.

    Masking: not supported; a causal network gives the outputs before padding at the end unchanged.

    Raises:
        ValueError: on sizes or rates out of range, groups that do not sum to the width, or an
            auxiliary frequency that no level is a multiple of.

    Example:

    >>> import numpy as np
    >>> layer = TrellisNet(units=6, output_units=4, levels=5)
    >>> x = np.ones((2, 7, 3), "float32")
    >>> layer(x).shape.as_list() if hasattr(layer(x).shape, "as_list") else list(layer(x).shape)
    [2, 7, 4]
    >>> y, state = layer(x[:, :4], return_state=True)
    >>> rest = layer(x[:, 4:], initial_state=state)
    """

    facts = ("groups",)

    def __init__(
        self,
        units,
        output_units,
        levels,
        kernel_size=2,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = "lstm",
        groups=None,
        injection_frequency=1,
        auxiliary_frequency=None,
        weight_normalization=False,
        hidden_dropout=0.0,
        weight_dropout=0.0,
        temporal_weight_dropout=True,
        state="exact",
        unroll=True,
        rematerialize=False,
        kernel_initializer=None,
        bias_initializer=None,
        kernel_regularizer=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_integer("units", units, 0)
        for name, value in (
            ("output_units", output_units),
            ("levels", levels),
            ("kernel_size", kernel_size),
            ("injection_frequency", injection_frequency),
        ):
            check_integer(name, value, 1)
        for name, rate in (("hidden_dropout", hidden_dropout), ("weight_dropout", weight_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={rate}")
        if state not in STATE_KINDS:
            raise ValueError(f"`state` must be one of {STATE_KINDS}. Received: state={state!r}")
        self.units = units
        self._output_units = output_units
        self.levels = levels
        self.kernel_size = kernel_size
        several = isinstance(dilation_rate, Sequence)
        cycle = tuple(dilation_rate) if several else (dilation_rate,)
        for dilation in cycle or (0,):
            check_integer("dilation_rate", dilation, 1)
        self.dilation_rate = cycle if several else cycle[0]
        self.activation = activation
        self.gates: TrellisGates = get_gates(activation)
        self.groups = None if groups is None else tuple(groups)
        self.injection_frequency = injection_frequency
        self.auxiliary_frequency = auxiliary_frequency
        self.weight_normalization = weight_normalization
        self.hidden_dropout = hidden_dropout
        self.weight_dropout = weight_dropout
        self.temporal_weight_dropout = temporal_weight_dropout
        self.state = state
        self.unroll = unroll
        self.rematerialize = rematerialize
        self.kernel_initializer = _initializer(kernel_initializer)
        self.bias_initializer = _initializer(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._check_groups()
        if auxiliary_frequency is not None:
            check_integer("auxiliary_frequency", auxiliary_frequency, 1)
            if auxiliary_frequency > levels:
                raise ValueError(
                    "`auxiliary_frequency` must be at most `levels`, or no level has an auxiliary "
                    f"output. Received: auxiliary_frequency={auxiliary_frequency}, levels={levels}"
                )
        self._plan = TrellisPlan(
            kernel_size=kernel_size,
            dilations=tuple(cycle[level % len(cycle)] for level in range(levels)),
            injected=tuple(level % injection_frequency == 0 for level in range(levels)),
            collected=tuple(level - 1 for level in self.auxiliary_levels),
            width=self.width,
            output_units=output_units,
        )

    def _check_groups(self):
        groups = self.groups
        if groups is None:
            return
        for width in groups or (0,):
            check_integer("groups", width, 1)
        if sum(groups) != self.width:
            raise ValueError(
                "`groups` must sum to `units + output_units`. Received: "
                f"groups={groups}, units={self.units}, output_units={self.output_units}"
            )
        if len(groups) > self.levels:
            raise ValueError(
                "`levels` must be at least the number of groups, or the last group stays zero. "
                f"Received: levels={self.levels}, groups={groups}"
            )
        if self.kernel_size != 2 or self.weight_normalization or self.weight_dropout:
            raise ValueError(
                "A mixed-group kernel has two taps, no weight normalisation and no weight dropout. "
                f"Received: kernel_size={self.kernel_size}, weight_normalization="
                f"{self.weight_normalization}, weight_dropout={self.weight_dropout}"
            )

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
        dilations = self._plan.dilations
        if self.groups is not None:  # one level a group is spent on the way to the next group
            upper = sorted(dilations[1:])
            return 1 + sum(upper[len(self.groups) - 1 :])
        reach = max(self.kernel_size - 1, 1)  # of the cell where there is one tap only
        return 1 + (self.kernel_size - 1) * dilations[0] + reach * sum(dilations[1:])

    def build(self, input_shape):
        super().build(input_shape)
        if self.groups is None:
            self._build_dense()
        else:
            self._build_groups()

    def _build_dense(self):
        channels = self.gates.blocks * self.width
        whole = (self.kernel_size, self.input_features + self.width, channels)

        def part(start, stop):
            def draw(shape, dtype=None):
                return self.kernel_initializer(whole, dtype=dtype)[:, start:stop]

            return draw

        options = {"regularizer": self.kernel_regularizer, "autocast": False}
        self.kernel_input = self.add_weight(
            name="kernel_input",
            shape=(self.kernel_size, self.input_features, channels),
            initializer=part(0, self.input_features),
            **options,
        )
        self.kernel_hidden = self.add_weight(
            name="kernel_hidden",
            shape=(self.kernel_size, self.width, channels),
            initializer=part(self.input_features, None),
            **options,
        )
        if self.weight_normalization:  # gains start at the norms, so the kernel at its direction

            def norm_of(direction):
                return lambda shape, dtype=None: ops.cast(direction_norm(direction.value), dtype)

            self.gain_input = self.add_weight(
                name="gain_input",
                shape=(channels,),
                initializer=norm_of(self.kernel_input),
                autocast=False,
            )
            self.gain_hidden = self.add_weight(
                name="gain_hidden",
                shape=(channels,),
                initializer=norm_of(self.kernel_hidden),
                autocast=False,
            )
        self.bias = self.add_weight(
            name="bias", shape=(channels,), initializer=self.bias_initializer, autocast=False
        )

    def _build_groups(self):
        gates, groups = self.gates, self.groups or ()
        self.kernels_recurrent, self.kernels_below, self.biases = [], [], []
        below = self.input_features
        for index, width in enumerate(groups):
            for name, rows, blocks, place in (
                ("recurrent", width, gates.recurrent_blocks, self.kernels_recurrent),
                ("below", below, gates.input_blocks, self.kernels_below),
            ):
                kernel = self.add_weight(
                    name=f"kernel_{name}_{index + 1}",
                    shape=(rows, len(blocks) * width),
                    initializer=self.kernel_initializer,
                    regularizer=self.kernel_regularizer,
                    autocast=False,
                )
                place.append(kernel)
            self.biases.append(
                self.add_weight(
                    name=f"bias_{index + 1}",
                    shape=(gates.blocks * width,),
                    initializer=self.bias_initializer,
                    autocast=False,
                )
            )
            below = width

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
        kind = self.state if kind is None else kind
        plan, dtype = self._plan, self.compute_dtype
        if kind == "history":
            return [ops.zeros((batch_size, self.width), dtype) for _ in range(2)]
        if kind != "exact":
            raise ValueError(f"`kind` must be one of {STATE_KINDS}. Received: kind={kind!r}")
        if not self.built:
            raise ValueError(
                "The exact state holds past inputs, so the layer must be built first. "
                "Call the layer once, or its `build((b, t, d))`."
            )
        return {
            "hidden": ops.zeros((batch_size, plan.hidden_steps, self.width), dtype),
            "cell": ops.zeros((batch_size, plan.cell_steps, self.width), dtype),
            "input": ops.zeros((batch_size, plan.input_steps, self.input_features), dtype),
        }

    def kind_of(self, state) -> str:
        """The kind of a state, by its structure."""
        return _kind_of(state)

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        return_auxiliary=False,
        masks=None,
    ):
        plan = self._plan
        kind = self.state if initial_state is None else _kind_of(initial_state)
        if return_auxiliary and not plan.collected:
            raise ValueError(
                "There are no auxiliary outputs to return: set `auxiliary_frequency` when making "
                "the layer."
            )
        if masks is None:
            masks = self.get_masks(ops.shape(x)[0]) if training else {}
        product, weights, input_kernel, bias = self._prepare(masks)
        mask = masks.get("hidden")
        mask = None if mask is None else ops.cast(mask, self.compute_dtype)

        input_past, hidden_past, cell_past = self._unpack(initial_state)
        options = {
            "hidden_past": hidden_past,
            "cell_past": cell_past,
            "mask": mask,
            "stretches": stretch_count(self.levels) if self.rematerialize and training else 1,
            "return_past": return_state and kind == "exact",
        }
        given, count = x, None
        if x.shape[1] != 1:
            finite = finite_steps(x)
            x = only(finite, x)
            count = seen_lost(finite, 0, ops.shape(x)[1], self.receptive_field)

        def seen(part, count):
            return part if count is None else marked(part, count)

        exact = isinstance(initial_state, dict)
        dense = self.groups is None
        step = exact and x.shape[1] == 1 and dense and self.kernel_size > 1
        fused = bool(training and self.unroll and dense and self.gates.has_gradient and not step)
        folded = fused and folds_input(plan, x.shape[2])
        if folded:
            weights[0], injections = folded_input(
                plan, x, input_past, weights[0], input_kernel, bias
            )
        else:
            injections = self._inject(x, input_past, input_kernel, bias)
        if step:
            run = run_step(plan, self.gates, weights[0], injections, bias, initial_state, mask)
        elif fused:
            run = run_fused_levels(plan, weights[0], injections, bias, folded=folded, **options)
        else:
            loop = not self.unroll and not options["return_past"] and input_past is None
            run = run_levels(plan, product, weights, injections, bias, unroll=not loop, **options)
        z, c, collected, next_hidden, next_cell = run
        results = [seen(z[..., -self.output_units :], count)]
        after = None if count is None else count[:, -1:]  # what the state saw
        if return_auxiliary:
            each = None if count is None else count[:, None]
            results.append(seen(ops.stack(collected, axis=1), each))
        if return_state and kind == "exact":
            results.append(
                {
                    "hidden": seen(_packed(next_hidden), after),
                    "cell": seen(_packed(next_cell), after),
                    "input": shift.last(given, plan.input_steps, input_past),
                }
            )
        elif return_state:
            results.append([seen(part[:, -1:], after)[:, 0] for part in (z, c)])
        return results[0] if len(results) == 1 else tuple(results)

    def _prepare(self, masks):
        """The kernels of this call: dropped, normalised, in matrix form and compute dtype."""
        dtype = self.compute_dtype
        if self.groups is not None:
            return self._prepare_groups()

        def kernel_of(name):
            kernel = ops.convert_to_tensor(getattr(self, f"kernel_{name}"))
            mask = masks.get(f"weight_{name}")
            if mask is not None:
                kernel = weight_drop(kernel, mask)
            if self.weight_normalization:
                kernel = weight_normalize(kernel, getattr(self, f"gain_{name}"))
            rows = self.kernel_size * int(kernel.shape[1])
            return ops.cast(ops.reshape(kernel, (rows, int(kernel.shape[2]))), dtype)

        product = DenseProduct(self._plan, self.gates)
        return product, [kernel_of("hidden")], kernel_of("input"), ops.cast(self.bias, dtype)

    def _prepare_groups(self):
        gates, dtype = self.gates, self.compute_dtype
        weights, input_kernel = [], None
        for index in range(len(self.groups or ())):
            recurrent, below = (
                spread_blocks(ops.cast(kernels[index], dtype), used, gates.blocks)
                for kernels, used in (
                    (self.kernels_recurrent, gates.recurrent_blocks),
                    (self.kernels_below, gates.input_blocks),
                )
            )
            if index == 0:
                input_kernel, matrix = below, recurrent
            else:
                matrix = ops.concatenate([recurrent, below], axis=0)
            weights += [matrix, ops.cast(self.biases[index], dtype)]
        return GroupProduct(self._plan, gates, self.groups or ()), weights, input_kernel, weights[1]

    def _unpack(self, state):
        """The past of the input, and of the hidden and cell sequence of each level."""
        plan = self._plan
        if state is None:
            return None, None, None
        if isinstance(state, dict):
            hidden, cell = plan.unpack_hidden(state["hidden"]), plan.unpack_cell(state["cell"])
            return state["input"], hidden, cell
        h, c = (vector[:, None] for vector in state)
        hidden = {d: ops.repeat(h, (self.kernel_size - 1) * d, axis=1) for d in {*plan.dilations}}
        cell = {d: ops.repeat(c, d, axis=1) for d in {*plan.dilations}}
        return None, [hidden[d] for d in plan.dilations], [cell[d] for d in plan.dilations]

    def _inject(self, x, past, kernel, bias):
        """The injected input of each dilation, computed once a call."""
        injections = {}
        for dilation in self._plan.injected_dilations:
            if self.groups is None:
                seen = shift.windows(x, self.kernel_size, dilation, past)
            else:  # the current step alone
                seen = x
            injections[dilation] = matrix_product(seen, kernel) + bias
        return injections

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


def _packed(parts):
    """The levels' parts of a state side by side; a single step has packed them already."""
    return ops.concatenate(parts, axis=1) if isinstance(parts, list) else parts


def _initializer(identifier):
    if identifier is None:
        return keras.initializers.RandomNormal(stddev=0.01)
    return keras.initializers.get(identifier)


def _kind_of(state) -> str:
    if isinstance(state, dict):
        return "exact"
    if isinstance(state, list | tuple) and len(state) == 2:
        return "history"
    raise ValueError(
        "`initial_state` must be a dict (exact) or a pair [h, c] (history), as from "
        f"`get_initial_state`. Received: {type(state).__name__}"
    )
