"""The R-Transformer: a stack of blocks."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer, check_rate, fan_in_uniform
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.r_transformer_block import RTransformerBlock, cell_config
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.layers.self_attention import check_has_state
from keras_seq.ops.seeded_dropout import seeded_dropout


@export("keras_seq.layers.RTransformer")
class RTransformer(SeededLayer, CausalLayer):
    """A stack of R-Transformer blocks, the core of a language model, classifier or frame model.

    Wang, Ma, Liu and Tang, *R-Transformer: Recurrent Neural Network Enhanced Transformer* (2019):
    `levels` blocks, each of n windowed recurrences, multi-head attention and a feed-forward network
    (see `RTransformerBlock`). As in the release there is no normalisation after the last block.

    **State.** The last inputs of every window, and keys and values of attention. Chunks, down to
    single steps, give the outputs of the full pass. With a `span` the state has a fixed size and
    a step costs the same however long the past is, which generation and serving need; without one
    it grows with each call. Up to `span` steps the outputs are those without one.

    **Dropout.** Single values are dropped, as in the release. All masks of a call follow from one
    seed, which `get_masks` draws: calls with the same `masks` drop the same values.

    Args:
        units: width u of all blocks.
        levels: number of blocks l.
        window: steps of a window of the recurrence.
        heads: attention heads; they must divide `units`.
        local_layers: recurrent sublayers n of a block.
        cell: of `LocalRNN`: `"gru"`, `"lstm"`, `"rnn"`, or a Keras cell, of which each sublayer
            gets a copy.
        inner_units: inner width of the feed-forward networks; `None` for 4 u.
        dropout: rate of the dropout in the blocks.
        input_dropout: rate of the dropout of single values of the input (embedding).
        norm_order: `"pre"` (released) or `"post"` (the paper's equations).
        normalization: `"unbiased"` (released) or `"layer"` (Keras' own).
        causal: whether attention looks only back. Without it there is no state.
        span: steps that attention sees; `None` for all.
        project_input: whether a linear layer d → u stands before the blocks; `None` for where d
            is not u.
        unused_weights: also hold the weights that the released code makes and never uses: a linear
            layer in each recurrent sublayer, a normalisation and a feed-forward network after the
            stack. They are not trained and do not change the output; released checkpoints fill
            them.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state.
        training: whether to draw dropout masks.
        masks: what dropout masks follow from, as from `get_masks`, whatever `training` is; `{}` for
            no dropout.
        mask: (b, t), true at valid steps; masked steps are left out.

    Output shape:
        (b, t, u). The state is a dict of `windows` (b, l, n, window - 1, u), `keys` and `values`
        (b, l, m, u) and `valid` (b, m), with m = `span - 1`, or the number of past steps.

    Raises:
        ValueError: on sizes or names that do not exist.

    Example:

    >>> layer = keras_seq.layers.RTransformer(units=8, levels=2, window=3, heads=2, span=16)
    >>> x = np.ones((2, 7, 5), "float32")
    >>> y, state = layer(x[:, :4], return_state=True)
    >>> rest = layer(x[:, 4:], initial_state=state)
    """

    facts = ("window", "span", "local_layers", "cell")

    def __init__(
        self,
        units: int,
        levels: int,
        window: int,
        heads: int,
        local_layers: int = 1,
        cell: Any = "gru",
        inner_units: int | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        norm_order: str = "pre",
        normalization: str = "unbiased",
        causal: bool = True,
        span: int | None = None,
        project_input: bool | None = None,
        unused_weights: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.levels = check_integer("levels", levels)
        if units % heads:
            raise ValueError(
                f"`heads` must divide `units`. Received: units={units}, heads={heads}."
            )
        self.input_dropout = check_rate(input_dropout, "input_dropout")
        self.project_input = project_input
        self.unused_weights = unused_weights
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._settings = {
            "window": window,
            "heads": heads,
            "local_layers": local_layers,
            "cell": cell_config(cell),
            "inner_units": inner_units,
            "dropout": dropout,
            "norm_order": norm_order,
            "normalization": normalization,
            "causal": causal,
            "span": span,
        }
        self.blocks = [
            RTransformerBlock(**self._settings, dtype=self.dtype_policy, name=f"block_{index + 1}")
            for index in range(levels)
        ]
        self.dropout = self.blocks[0].dropout
        self.projection: keras.layers.Dense | None = None

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        reach = self.blocks[0].reach
        return None if reach is None else 1 + self.levels * (reach - 1)

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.blocks[0].is_causal and super().is_causal

    @property
    def output_units(self) -> int:
        """Width of the output, `units`."""
        return self.units

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        project = features != self.units if self.project_input is None else self.project_input
        if not project and features != self.units:
            raise ValueError(
                "Without `project_input` the input must have `units` features. "
                f"Received: units={self.units}, input_shape={tuple(input_shape)}."
            )
        if project and self.projection is None:
            limit = features**-0.5
            self.projection = keras.layers.Dense(
                self.units,
                kernel_initializer=fan_in_uniform(),
                bias_initializer=keras.initializers.RandomUniform(-limit, limit),
                dtype=self.dtype_policy,
                name="projection",
            )
            self.projection.build(input_shape)
        inner_shape = (*input_shape[:-1], self.units)
        for block in self.blocks:
            if not block.built:
                block.build(inner_shape)
        if self.unused_weights:
            self._build_unused()

    def _build_unused(self):
        units = self.units
        inner = self._settings["inner_units"] or 4 * units
        self.unused: dict[str, Any] = {}

        def add(name, shape):
            self.unused[name] = self.add_weight(
                name=f"unused_{name}", shape=shape, initializer="zeros", trainable=False
            )

        for level, block in enumerate(self.blocks):
            for index in range(block.local_layers):
                add(f"local_{level}_{index}_kernel", (units, units))
                add(f"local_{level}_{index}_bias", (units,))
        add("norm_gain", (units,))
        add("norm_bias", (units,))
        add("inner_kernel", (units, inner))
        add("inner_bias", (inner,))
        add("output_kernel", (inner, units))
        add("output_bias", (units,))

    @property
    def drops(self) -> bool:
        """Whether the layer has dropout."""
        return bool(self.dropout or self.input_dropout)

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        if not self.built:
            raise ValueError("The layer must be built first. Call it, or its `build((b, t, d))`.")
        return _join([block.get_initial_state(batch_size) for block in self.blocks])

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        mask=None,
    ):
        if initial_state is not None or return_state:
            check_has_state(self._settings["causal"])
        seed = self.seed_of(training, masks)
        x = seeded_dropout(x, self.input_dropout, seed)
        if self.projection is not None:
            x = self.projection(x)
        states = []
        for level, block in enumerate(self.blocks):
            x = block(
                x,
                initial_state=None if initial_state is None else _part(initial_state, level),
                return_state=return_state,
                training=training,
                masks=masks_at(seed, 64 * (level + 1)),
                mask=mask,
            )
            if return_state:
                x, state = x
                states.append(state)
        return (x, _join(states)) if return_state else x

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            **self._settings,
            "input_dropout": self.input_dropout,
            "project_input": self.project_input,
            "unused_weights": self.unused_weights,
            "seed": self.seed,
        }


def _part(state, level):
    """The state of one block."""
    parts = {name: state[name][:, level] for name in ("windows", "keys", "values")}
    return {**parts, "valid": state["valid"]}


def _join(states):
    """The state of the stack; all blocks have the same valid steps."""
    joined = {
        name: ops.stack([state[name] for state in states], axis=1)
        for name in ("windows", "keys", "values")
    }
    return {**joined, "valid": states[0]["valid"]}
