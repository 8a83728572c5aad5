"""The temporal convolutional network."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq._arguments import check_integer, check_rate, get_activation
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.layers.temporal_block import TemporalBlock, check_padding, refuse_state
from keras_seq.ops.seeded_dropout import seeded_dropout


@export("keras_seq.layers.TCN")
class TCN(SeededLayer, CausalLayer):
    """A temporal convolutional network: residual blocks of dilated causal convolutions.

    Bai, Kolter and Koltun, *An Empirical Evaluation of Generic Convolutional and Recurrent Networks
    for Sequence Modeling* (2018), section 3. The dilation doubles from block to block, so that the
    receptive field grows exponentially with the number of blocks (see `TemporalBlock`).

    **State.** The last inputs of every convolution: chunks, down to single steps, give the outputs
    of the full pass, and a step costs the same however long the past is.

    **Dropout.** All masks of a call follow from one seed, which `get_masks` draws: calls with the
    same `masks` drop the same values.

    Args:
        units: channels of all blocks, or a sequence with those of each block of a stack.
        levels: number of blocks of a stack; `None` for as many as `units` has entries.
        kernel_size: taps k of the convolutions.
        dilation_rates: the dilation of each block of a stack; `None` for 1, 2, 4, ...
        activation: of the convolutions and of the residual sums.
        weight_normalization: give each output channel of the kernels a gain of its own. `None`:
            where there is no other `normalization`.
        dropout: rate after each convolution.
        spatial_dropout: drop whole channels (the paper), or single values (its released code).
        input_dropout: rate of the dropout of single values of the input (embedding).
        kernel_initializer: of the convolutions; by default uniform within ± 1 / √fan-in.
        seed: of the dropout.
        stacks: how often the blocks and their dilations are repeated, with weights of their own.
        skip_connections: the output is the sum of what all blocks add to their inputs, without the
            inputs themselves; the sum of the last block is then not used.
        normalization: of what each convolution gives: `"layer"`, `"batch"` or `None`. In training
            batch normalisation sees all steps of a batch, later ones too.
        branch_activation: apply the activation once more to what a block adds to its input, as
            keras-tcn does.
        padding: `"causal"`, or `"same"` for convolutions that see as far ahead as back. Such a
            network has no state.
        bias_initializer: of all biases; by default uniform within ± 1 / √fan-in.
        residual_initializer: of the kernels of one tap in residual connections; by default normal
            with deviation 0.01.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for zeros.
        return_state: also return the state after the last step.
        training: whether to draw dropout masks.
        masks: what dropout masks follow from, as from `get_masks`, whatever `training` is; `{}` for
            no dropout.
        mask: (b, t), true at valid steps, see `CausalLayer`.

    Output shape:
        (b, t, u) with u the channels of the last block. The state is a list of the states of the
        blocks.

    Raises:
        ValueError: on sizes that are not positive or do not agree; where a state is asked for with
            `padding="same"`.

    Example:

    >>> layer = keras_seq.layers.TCN(units=8, levels=3, kernel_size=3)
    >>> layer.receptive_field
    29
    >>> x = np.ones((2, 9, 4), "float32")
    >>> y, state = layer(x[:, :5], return_state=True)
    >>> rest = layer(x[:, 5:], initial_state=state)
    """

    def __init__(
        self,
        units: int | Sequence[int],
        levels: int | None = None,
        kernel_size: int = 2,
        dilation_rates: Sequence[int] | None = None,
        activation: Any = "relu",
        weight_normalization: bool | None = None,
        dropout: float = 0.0,
        spatial_dropout: bool = False,
        input_dropout: float = 0.0,
        kernel_initializer: Any = None,
        seed: int | None = None,
        stacks: int = 1,
        skip_connections: bool = False,
        normalization: str | None = None,
        branch_activation: bool = False,
        padding: str = "causal",
        bias_initializer: Any = None,
        residual_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units if isinstance(units, int) else tuple(units)
        self.levels = levels
        self.kernel_size = kernel_size
        self.dilation_rates = None if dilation_rates is None else tuple(dilation_rates)
        self.input_dropout = check_rate(input_dropout, "input_dropout")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.stacks = check_integer("stacks", stacks)
        self.skip_connections = bool(skip_connections)
        self.padding = check_padding(padding, self)
        widths = _widths(self.units, levels)
        dilations = self.dilation_rates or tuple(2**level for level in range(len(widths)))
        if len(dilations) != len(widths):
            raise ValueError(
                "`dilation_rates` must have an entry for each block. Received: "
                f"dilation_rates={dilations}, {len(widths)} blocks."
            )
        if self.skip_connections and len(set(widths)) > 1:
            raise ValueError(
                "`units` must be one number with `skip_connections`, which are added up. Received: "
                f"units={self.units}, skip_connections={skip_connections}."
            )
        activation = get_activation(activation)  # a layer with weights is one for all blocks
        self.blocks = [
            TemporalBlock(
                width,
                kernel_size,
                dilation,
                activation=activation,
                weight_normalization=weight_normalization,
                dropout=dropout,
                spatial_dropout=spatial_dropout,
                kernel_initializer=kernel_initializer,
                normalization=normalization,
                branch_activation=branch_activation,
                padding=padding,
                bias_initializer=bias_initializer,
                residual_initializer=residual_initializer,
                dtype=self.dtype_policy,
                name=f"block_{index}",
            )
            for index, (width, dilation) in enumerate(
                list(zip(widths, dilations, strict=True)) * self.stacks, 1
            )
        ]
        self.dropout = self.blocks[0].dropout

    @property
    def output_units(self) -> int:
        """Width of the output."""
        return self.blocks[-1].units

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.padding == "causal" and super().is_causal

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included."""
        return 1 + sum(2 * block.past for block in self.blocks)

    def build(self, input_shape):
        super().build(input_shape)
        for block in self.blocks:
            if not block.built:
                block.build(input_shape)
            input_shape = block.compute_output_shape(input_shape)
        self.built = True

    @property
    def drops(self) -> bool:
        """Whether the layer has dropout."""
        return bool(self.dropout or self.input_dropout)

    def get_initial_state(self, batch_size, kind=None):
        """The states of all blocks before the first step: zeros.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        refuse_state(self)
        return [block.get_initial_state(batch_size) for block in self.blocks]

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        if return_state or initial_state is not None:
            refuse_state(self)
        seed = self.seed_of(training, masks)
        x = seeded_dropout(x, self.input_dropout, seed)
        states, branches = [], []
        for level, block in enumerate(self.blocks):
            results = block(
                x,
                initial_state=None if initial_state is None else initial_state[level],
                return_state=return_state,
                training=training,
                masks=masks_at(seed, 4 * (level + 1)),
                return_branch=self.skip_connections,
                mask=mask,
            )
            x, *rest = results if isinstance(results, tuple) else (results,)
            if self.skip_connections:
                branches.append(rest.pop(0))
            states += rest
        if self.skip_connections:
            x = sum(branches[1:], start=branches[0])
        return (x, states) if return_state else x

    def get_config(self):
        block = self.blocks[0].get_config()
        shared = (
            "activation",
            "weight_normalization",
            "dropout",
            "spatial_dropout",
            "kernel_initializer",
            "normalization",
            "branch_activation",
            "padding",
            "bias_initializer",
            "residual_initializer",
        )
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            "kernel_size": self.kernel_size,
            "dilation_rates": self.dilation_rates,
            **{name: block[name] for name in shared},
            "input_dropout": self.input_dropout,
            "seed": self.seed,
            "stacks": self.stacks,
            "skip_connections": self.skip_connections,
        }


def _widths(units: int | tuple[int, ...], levels: int | None) -> tuple[int, ...]:
    """The channels of each block."""
    if isinstance(units, int):
        if levels is None:
            raise ValueError(
                f"`levels` must be given where `units` is one number. Received: units={units}."
            )
        return (units,) * check_integer("levels", levels)
    if not units or levels not in (None, len(units)):
        raise ValueError(
            "`units` must be a number, or have an entry for each of `levels`. "
            f"Received: units={units}, levels={levels}."
        )
    return units
