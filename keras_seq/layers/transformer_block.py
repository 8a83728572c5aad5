"""One block of a Transformer encoder."""

import keras

from keras_seq._arguments import NORM_ORDERS, check_choice, check_integer, check_rate
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer
from keras_seq.layers.feed_forward import FeedForward
from keras_seq.layers.outline import sublayer
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.layers.self_attention import SelfAttention
from keras_seq.ops.seeded_dropout import seed_of_place, seeded_dropout


@export("keras_seq.layers.TransformerBlock")
class TransformerBlock(SeededLayer, CausalLayer):
    """Causal self-attention and a feed-forward network, each with a residual connection.

    Vaswani et al., *Attention Is All You Need* (2017), section 3.1. With f either of them and
    Keras' layer normalisation the block is norm(x + dropout(f(x))) for `norm_order="post"`, the
    paper's, and x + dropout(f(norm(x))) for `"pre"`, which trains without a warm-up.

    Args:
        heads: attention heads; they must divide the width u of the input.
        inner_units: inner width of the feed-forward network; `None` for 4 u.
        dropout: rate after each sublayer, on the attention probabilities and inside the
            feed-forward network.
        norm_order: `"pre"` or `"post"`.
        span: steps that attention sees; `None` for all.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, u).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state.
        training: whether to draw dropout masks.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        mask: (b, t), true at valid steps; masked steps are left out.
        dropout_seed: a seed tensor (2,), short for `masks={"seed": dropout_seed}`.

    Output shape:
        (b, t, u). The state is that of `SelfAttention`.

    Raises:
        ValueError: on sizes or names that do not exist.

    Example:

    >>> block = keras_seq.layers.TransformerBlock(heads=2)
    >>> block(np.ones((2, 7, 8), "float32")).shape
    TensorShape([2, 7, 8])
    """

    facts = ("span",)

    def __init__(
        self,
        heads: int,
        inner_units: int | None = None,
        dropout: float = 0.0,
        norm_order: str = "pre",
        span: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = check_integer("heads", heads)
        self.inner_units = inner_units
        self.dropout = check_rate(dropout, "dropout")
        self.norm_order = check_choice("norm_order", norm_order, NORM_ORDERS)
        self.span = span
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy = self.dtype_policy
        self.attention = SelfAttention(
            heads, span=span, dropout=dropout, dtype=policy, name="attention"
        )
        self.feed_forward = FeedForward(
            inner_units, dropout=dropout, dtype=policy, name="feed_forward"
        )
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=f"norm_{index}")
            for index in (1, 2)
        ]

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        return self.span

    @property
    def output_units(self) -> int:
        """Width of the output of a built layer, that of the input."""
        return self.attention.output_units

    def build(self, input_shape):
        super().build(input_shape)
        for layer in (self.attention, self.feed_forward, *self.norms):
            if not layer.built:
                layer.build(input_shape)
        self.built = True

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        return self.attention.get_initial_state(batch_size, kind=kind)

    def outline(self):
        """The parts in order, with their residual connections, for diagrams."""
        pre = self.norm_order == "pre"
        return (
            *sublayer(self.norms[0], self.attention, pre),
            *sublayer(self.norms[1], self.feed_forward, pre),
        )

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        dropout_seed=None,
        mask=None,
    ):
        seed = self.seed_of(training, masks, dropout_seed)
        pre = self.norm_order == "pre"
        inner = self.norms[0](x) if pre else x
        inner = self.attention(
            inner,
            initial_state=initial_state,
            return_state=return_state,
            training=training,
            masks=masks_at(seed, 1),
            mask=mask,
        )
        state = None
        if return_state:
            inner, state = inner
        x = x + seeded_dropout(inner, self.dropout, seed_of_place(seed, 2))
        x = x if pre else self.norms[0](x)
        inner = self.norms[1](x) if pre else x
        inner = self.feed_forward(inner, training=training, masks=masks_at(seed, 3))
        x = x + seeded_dropout(inner, self.dropout, seed_of_place(seed, 4))
        x = x if pre else self.norms[1](x)
        return (x, state) if return_state else x

    def compute_output_shape(self, input_shape):
        return self.handed_out(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "inner_units": self.inner_units,
            "dropout": self.dropout,
            "norm_order": self.norm_order,
            "span": self.span,
            "seed": self.seed,
        }
