"""The Transformer as a causal encoder."""

import math

import keras
from keras import ops

from keras_seq._arguments import (
    NORM_ORDERS,
    check_choice,
    check_integer,
    check_rate,
    fan_in_uniform,
)
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.layers.transformer_block import TransformerBlock
from keras_seq.ops.packing import lengths_of
from keras_seq.ops.seeded_dropout import seeded_dropout


@export("keras_seq.layers.Transformer")
class Transformer(SeededLayer, CausalLayer):
    """A stack of Transformer blocks with sinusoidal positions, as a causal encoder.

    Vaswani et al., *Attention Is All You Need* (2017), sections 3.1 to 3.5, with a mask over later
    steps. The position p adds sin(p / 10000^(2i/u)) and cos of the same to features 2i and 2i + 1.

    **State.** Keys and values of attention, and the number of steps so far. Chunks, down to single
    steps, give the outputs of the full pass. With a `span` the state has a fixed size and a step
    costs the same however long the past is, which generation and serving need; without one it
    grows with each call. Up to `span` steps the outputs are those without one.

    **Dropout.** Single values are dropped. All masks of a call follow from one seed, which
    `get_masks` draws: calls with the same `masks` drop the same values.

    Args:
        units: width u of all blocks.
        levels: number of blocks l.
        heads: attention heads; they must divide `units`.
        inner_units: inner width of the feed-forward networks; `None` for 4 u.
        dropout: rate in the blocks.
        input_dropout: rate of the dropout of single values once the positions are added.
        norm_order: `"pre"`, with a normalisation after the last block, or `"post"` (the paper).
        positions: add the sinusoids.
        scale_input: multiply the input by √u before the positions are added (the paper's scaling
            of embeddings).
        span: steps that attention sees; `None` for all.
        project_input: whether a linear layer d → u stands before the blocks; `None` for where d
            is not u.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state.
        training: whether to draw dropout masks.
        masks: what dropout masks follow from, as from `get_masks`, whatever `training` is; `{}` for
            no dropout.
        mask: (b, t), true at valid steps; masked steps are left out, and not counted as positions.

    Output shape:
        (b, t, u). The state is a dict of `keys` and `values` (b, l, m, u), `valid` (b, m) and
        `position` (b,), with m = `span - 1`, or the number of past steps.

    Raises:
        ValueError: on sizes or names that do not exist.

    Example:

    >>> layer = keras_seq.layers.Transformer(units=8, levels=2, heads=2, span=16)
    >>> x = np.ones((2, 7, 5), "float32")
    >>> y, state = layer(x[:, :4], return_state=True)
    >>> rest = layer(x[:, 4:], initial_state=state)
    """

    facts = ("span",)

    def __init__(
        self,
        units: int,
        levels: int,
        heads: int,
        inner_units: int | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        norm_order: str = "pre",
        positions: bool = True,
        scale_input: bool = False,
        span: int | None = None,
        project_input: bool | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.levels = check_integer("levels", levels)
        self.heads = check_integer("heads", heads)
        if units % heads:
            raise ValueError(
                f"`heads` must divide `units`. Received: units={units}, heads={heads}."
            )
        self.inner_units = inner_units
        self.dropout = check_rate(dropout, "dropout")
        self.input_dropout = check_rate(input_dropout, "input_dropout")
        self.norm_order = check_choice("norm_order", norm_order, NORM_ORDERS)
        self.positions = bool(positions)
        self.scale_input = bool(scale_input)
        self.span = span
        self.project_input = project_input
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy = self.dtype_policy
        self.blocks = [
            TransformerBlock(
                heads,
                inner_units=inner_units,
                dropout=dropout,
                norm_order=norm_order,
                span=span,
                dtype=policy,
                name=f"block_{index + 1}",
            )
            for index in range(levels)
        ]
        self.norm = None
        if norm_order == "pre":
            self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm")
        self.projection: keras.layers.Dense | None = None

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        return None if self.span is None else 1 + self.levels * (self.span - 1)

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
        for layer in (*self.blocks, *([] if self.norm is None else [self.norm])):
            if not layer.built:
                layer.build(inner_shape)
        self.built = True

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
        states = [block.get_initial_state(batch_size) for block in self.blocks]
        return self._join(states, ops.zeros((batch_size,), "int32"))

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        seed = self.seed_of(training, masks)
        if self.projection is not None:
            x = self.projection(x)
        if self.scale_input:
            x = x * self.units**0.5
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        if initial_state is None:
            start = ops.zeros((batch,), "int32")
        else:
            start = ops.cast(initial_state["position"], "int32")
        if self.positions:
            x = x + ops.cast(sinusoids(start, length, self.units), x.dtype)
        x = seeded_dropout(x, self.input_dropout, seed)
        states = []
        for level, block in enumerate(self.blocks):
            x = block(
                x,
                initial_state=None if initial_state is None else self._part(initial_state, level),
                return_state=return_state,
                training=training,
                masks=masks_at(seed, 16 * (level + 1)),
                mask=mask,
            )
            if return_state:
                x, state = x
                states.append(state)
        if self.norm is not None:
            x = self.norm(x)
        if not return_state:
            return x
        steps = length if mask is None else lengths_of(mask)
        return x, self._join(states, start + steps)

    def _part(self, state, level: int):
        """The state of one block."""
        parts = {name: state[name][:, level] for name in ("keys", "values")}
        return {**parts, "valid": state["valid"]}

    def _join(self, states, position):
        """The state of the stack; all blocks have the same valid steps."""
        joined = {
            name: ops.stack([state[name] for state in states], axis=1)
            for name in ("keys", "values")
        }
        return {**joined, "valid": states[0]["valid"], "position": position}

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            "heads": self.heads,
            "inner_units": self.inner_units,
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
            "norm_order": self.norm_order,
            "positions": self.positions,
            "scale_input": self.scale_input,
            "span": self.span,
            "project_input": self.project_input,
            "seed": self.seed,
        }


def sinusoids(start, length, units: int):
    """Sines and cosines (b, t, u) of the positions from `start` (b,) on, in float32."""
    steps = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    places = ops.cast(ops.expand_dims(start, 1) + steps, "float32")
    pairs = (units + 1) // 2
    rates = ops.exp(ops.arange(pairs, dtype="float32") * (-2 * math.log(10_000.0) / units))
    angles = ops.expand_dims(places, -1) * rates
    both = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    shape = (-1, length, 2 * pairs)
    return ops.reshape(both, shape)[..., :units]
