"""The Transformer-XL: a stack of relative attention with a memory at every level."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer, check_norm_order, check_rate
from keras_seq._export import export
from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.feed_forward import FeedForward
from keras_seq.layers.outline import sublayer
from keras_seq.layers.relative_attention import RelativeAttention
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.ops.packing import last_steps
from keras_seq.ops.seeded_dropout import seed_of_place, seeded_dropout

_PLACES = 4  # where a level drops values: attention, its output, inner and outer of feed-forward


@export("keras_seq.layers.TransformerXL")
class TransformerXL(SeededLayer, CausalLayer):
    """A causal transformer that attends to the hidden states of earlier segments.

    Dai et al., *Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context* (ACL
    2019), section 3. At each of its n levels

        a = LN(x + attention([memory, x])),    x' = LN(a + W₂ relu(W₁ a + b₁) + b₂)

    and the memory of a level holds the inputs x which that level had at earlier steps, without
    gradient in training. With `norm_order="pre"`: a = x + attention(LN([memory, x])),
    x' = a + W₂ relu(W₁ LN(a) + b₁) + b₂.

    **State.** `hidden` (b, n, m, d), the memory of every level, and `valid` (b, m), zero for steps
    before the first one; m is the longer of the two memory lengths, and each phase looks at the
    newest steps that it may. Chunks equal the whole sequence while nothing that a step would see
    has left the memory: for sequences no longer than it, and for all sequences if it holds
    `span - 1` steps.

    Args:
        levels: n.
        heads: number of heads.
        inner_units: width of the feed-forward parts.
        head_units: width of a head; d / heads if not given.
        memory_length: steps of the memory in training.
        inference_memory_length: steps of the memory outside of training; as in training if `None`.
        span: how many steps a step sees at each level, itself included; `None` for all.
        clamp_length: distances beyond it count as it; `None` for none.
        norm_order: `"pre"` or `"post"`.
        share_vectors: one pair of content and position vectors for all levels.
        dropout: rate of the ordinary dropout of the input, the sinusoids, both halves' outputs, the
            inner feed-forward values and the output.
        attention_dropout: rate of the dropout of the attention probabilities.
        kernel_initializer: of all kernels and vectors; N(0, 0.02²) by default.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state.
        training: whether to draw dropout masks, and which of the two memory lengths counts.
        masks: what dropout masks follow from, as from `get_masks`, whatever `training` is; `{}` for
            no dropout.
        mask: (b, t), true at valid steps; masked steps are left out, and not counted in distances.

    Output shape:
        (b, t, d).

    Raises:
        ValueError: on sizes that do not fit.

    Example:

    >>> layer = keras_seq.layers.TransformerXL(levels=2, heads=2, inner_units=16, memory_length=4)
    >>> y, state = layer(ops.ones((3, 5, 8)), return_state=True)
    >>> tuple(y.shape), tuple(state["hidden"].shape)
    ((3, 5, 8), (3, 2, 4, 8))
    """

    facts = ("head_units", "span", "memory_length")

    def __init__(
        self,
        levels: int,
        heads: int,
        inner_units: int,
        head_units: int | None = None,
        memory_length: int = 0,
        inference_memory_length: int | None = None,
        span: int | None = None,
        clamp_length: int | None = None,
        norm_order: str = "post",
        share_vectors: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        kernel_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        norm_order = check_norm_order(norm_order, kwargs)
        super().__init__(**kwargs)
        self.levels = check_integer("levels", levels)
        self.heads = check_integer("heads", heads)
        self.inner_units = check_integer("inner_units", inner_units)
        self.head_units = head_units
        self.memory_length = check_integer("memory_length", memory_length, 0)
        self.inference_memory_length = inference_memory_length
        if inference_memory_length is not None:
            check_integer("inference_memory_length", inference_memory_length, 0)
        self.span = span
        self.clamp_length = clamp_length
        if clamp_length is not None:
            check_integer("clamp_length", clamp_length)
        self.norm_order = norm_order
        self.share_vectors = share_vectors
        self.dropout = check_rate(dropout, "dropout")
        self.attention_dropout = check_rate(attention_dropout, "attention_dropout")
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        own = {"dtype": self.dtype_policy}
        self.attentions, self.attention_norms = [], []
        self.feed_forwards, self.feed_forward_norms = [], []
        for level in range(levels):
            self.attentions.append(
                RelativeAttention(
                    heads,
                    head_units=head_units,
                    span=span,
                    dropout=attention_dropout,
                    use_bias=False,
                    own_vectors=not share_vectors,
                    kernel_initializer=self.kernel_initializer.clone(),
                    name=f"attention_{level}",
                    **own,
                )
            )
            self.feed_forwards.append(
                FeedForward(
                    inner_units,
                    dropout=dropout,
                    kernel_initializer=self.kernel_initializer.clone(),
                    bias_initializer="zeros",
                    name=f"feed_forward_{level}",
                    **own,
                )
            )
            for norms, half in (
                (self.attention_norms, "attention"),
                (self.feed_forward_norms, "feed_forward"),
            ):
                norms.append(
                    keras.layers.LayerNormalization(
                        epsilon=1e-5, name=f"{half}_norm_{level}", **own
                    )
                )

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        for layers in (
            self.attentions,
            self.attention_norms,
            self.feed_forwards,
            self.feed_forward_norms,
        ):
            for layer in layers:
                if not layer.built:
                    layer.build((None, None, features))
        self.features = int(features)
        self.vectors = []
        if self.share_vectors:
            width = self.attentions[0].width
            self.vectors = [
                self.add_weight(
                    name=f"{name}_vector",
                    shape=(self.heads, width),
                    initializer=self.kernel_initializer.clone(),
                    autocast=False,
                )
                for name in ("content", "position")
            ]

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        return None if self.span is None else 1 + self.levels * (self.span - 1)

    @property
    def output_units(self) -> int:
        """Width of the output of a built layer, d."""
        return self.features

    @property
    def _kept(self) -> int:
        """Steps of the state."""
        return max(self.memory_length, self.inference_memory_length or 0)

    def get_initial_state(self, batch_size, kind=None):
        """An empty memory.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        if not self.built:
            raise ValueError(
                "The state holds hidden values, so the layer must be built first. Call the layer "
                "once, or its `build((b, t, d))`."
            )
        shape = (batch_size, self.levels, self._kept, self.features)
        return {
            "hidden": ops.zeros(shape, self.compute_dtype),
            "valid": ops.zeros((batch_size, self._kept), self.compute_dtype),
        }

    def outline(self):
        """The parts in order, with their residual connections, for diagrams."""
        attentions = zip(self.attention_norms, self.attentions, strict=True)
        feed_forwards = zip(self.feed_forward_norms, self.feed_forwards, strict=True)
        levels = zip(attentions, feed_forwards, strict=True)
        return tuple(
            part
            for level in levels
            for pair in level
            for part in sublayer(*pair, self.norm_order == "pre")
        )

    @property
    def drops(self) -> bool:
        """Whether the layer has dropout."""
        return bool(self.dropout or self.attention_dropout)

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        length = ops.shape(x)[1]
        seed = self.seed_of(training, masks)
        state = initial_state
        if state is None and return_state:
            state = self.get_initial_state(ops.shape(x)[0])
        past = self.memory_length
        if not training and self.inference_memory_length is not None:
            past = self.inference_memory_length
        if initial_state is None:
            past = 0
        options = self._options(length, past, initial_state, seed)
        end = self.levels * _PLACES
        x = seeded_dropout(x, self.dropout, seed_of_place(seed, end))
        inputs = []
        for level in range(self.levels):
            inputs.append(x)
            memory = None
            if past and state is not None:
                memory = ops.cast(state["hidden"][:, level, self._kept - past :], x.dtype)
                memory = ops.stop_gradient(memory) if training else memory
            x = self._level(level, x, memory, options, seed, training)
        outputs = seeded_dropout(x, self.dropout, seed_of_place(seed, end + 1))
        return (outputs, self._next_state(state, inputs, mask)) if return_state else outputs

    def _options(self, length, past, state, seed) -> dict[str, Any]:
        """What all levels tell their attention."""
        options: dict[str, Any] = {}
        distances = ops.arange(past + length - 1, -1, -1)
        if self.clamp_length is not None:
            distances = ops.minimum(distances, self.clamp_length)
        options["distances"] = distances
        if past:
            options["valid"] = state["valid"][:, self._kept - past :]
        if self.share_vectors:
            options["vectors"] = self.vectors
        if seed is not None and self.dropout:
            shape = (past + length, self.features)
            place = DrawnSeed(seed_of_place(seed, self.levels * _PLACES + 2))
            options["position_mask"] = bernoulli_mask(
                shape, self.dropout, place, self.compute_dtype
            )
        return options

    def _level(self, level, x, memory, options, seed, training):
        start = level * _PLACES
        attention, norm = self.attentions[level], self.attention_norms[level]
        query, pre = x, self.norm_order == "pre"
        if pre:
            query, memory = norm(x), None if memory is None else norm(memory)
        attended = attention(query, memory, masks=masks_at(seed, start), **options)
        x = x + seeded_dropout(attended, self.dropout, seed_of_place(seed, start + 1))
        x = x if pre else norm(x)

        norm = self.feed_forward_norms[level]
        inner = norm(x) if pre else x
        masks = masks_at(seed, start + 2)
        outer = self.feed_forwards[level](inner, training=training, masks=masks)
        x = x + seeded_dropout(outer, self.dropout, seed_of_place(seed, start + 3))
        return x if pre else norm(x)

    def _next_state(self, state, inputs, mask):
        """The newest inputs of every level."""

        def newest(old, new, axis):
            both = ops.concatenate([old, ops.cast(new, old.dtype)], axis=axis)
            if mask is not None:
                steps = last_steps(ops.moveaxis(both, axis, 1), mask, self._kept)
                return ops.moveaxis(steps, 1, axis)
            steps = ops.shape(both)[axis] - self._kept
            return both[:, :, steps:] if axis == 2 else both[:, steps:]

        inputs = ops.stack(inputs, axis=1)
        return {
            "hidden": newest(state["hidden"], inputs, 2),
            "valid": newest(state["valid"], ops.ones_like(inputs[:, 0, :, 0]), 1),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "heads": self.heads,
            "inner_units": self.inner_units,
            "head_units": self.head_units,
            "memory_length": self.memory_length,
            "inference_memory_length": self.inference_memory_length,
            "span": self.span,
            "clamp_length": self.clamp_length,
            "norm_order": self.norm_order,
            "share_vectors": self.share_vectors,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
