"""One block of the R-Transformer."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import NORM_ORDERS, check_choice, check_integer, check_rate
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.feed_forward import FeedForward
from keras_seq.layers.local_rnn import LocalRNN
from keras_seq.layers.outline import sublayer
from keras_seq.layers.seeded_layer import SeededLayer, masks_at
from keras_seq.layers.self_attention import SelfAttention, check_has_state
from keras_seq.layers.unbiased_layer_norm import UnbiasedLayerNormalization
from keras_seq.ops.seeded_dropout import seed_of_place, seeded_dropout

NORMALIZATIONS = ("unbiased", "layer")


@export("keras_seq.layers.RTransformerBlock")
class RTransformerBlock(SeededLayer, CausalLayer):
    """Windowed recurrence, attention and a feed-forward network, each with a residual connection.

    Wang, Ma, Liu and Tang, *R-Transformer: Recurrent Neural Network Enhanced Transformer* (2019),
    section 3: `local_layers` times a `LocalRNN`, then multi-head `SelfAttention`, then a
    `FeedForward` network of width 4 u. The recurrence knows the order of the steps, so there is no
    position embedding. With f any of these sublayers, the release computes (`norm_order="pre"`, the
    published results)

        x + dropout(f(norm(x)))

    while the paper's figure and equations read (`norm_order="post"`)

        norm(x + dropout(f(x)))

    Args:
        window: steps of a window of the recurrence.
        heads: attention heads; they must divide the width u of the input.
        local_layers: number n of recurrent sublayers.
        cell: of `LocalRNN`: `"gru"`, `"lstm"`, `"rnn"`, or a Keras cell, of which each sublayer
            gets a copy.
        inner_units: inner width of the feed-forward network; `None` for 4 u.
        dropout: rate after each sublayer, on the attention probabilities and inside the
            feed-forward network; single values are dropped, as in the release.
        norm_order: `"pre"` or `"post"`.
        normalization: `"unbiased"` for `UnbiasedLayerNormalization`, the release's; `"layer"` for
            `keras.layers.LayerNormalization`.
        causal: whether attention looks only back. Without it there is no state.
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
        (b, t, u). The state is a dict of `windows` (b, n, window - 1, u), the last inputs of each
        recurrent sublayer, and of `keys`, `values` (b, m, u) and `valid` (b, m) as in
        `SelfAttention`.

    Raises:
        ValueError: on sizes or names that do not exist.

    Example:

    >>> block = keras_seq.layers.RTransformerBlock(window=3, heads=2)
    >>> block(np.ones((2, 7, 8), "float32")).shape
    TensorShape([2, 7, 8])
    """

    facts = ("window", "span", "local_layers", "cell")

    def __init__(
        self,
        window: int,
        heads: int,
        local_layers: int = 1,
        cell: Any = "gru",
        inner_units: int | None = None,
        dropout: float = 0.0,
        norm_order: str = "pre",
        normalization: str = "unbiased",
        causal: bool = True,
        span: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.window = check_integer("window", window)
        self.heads = check_integer("heads", heads)
        self.local_layers = check_integer("local_layers", local_layers, 0)
        self.cell = cell_config(cell)
        self.inner_units = inner_units
        self.dropout = check_rate(dropout, "dropout")
        self.norm_order = check_choice("norm_order", norm_order, NORM_ORDERS)
        self.normalization = check_choice("normalization", normalization, NORMALIZATIONS)
        self.causal = causal
        self.span = span
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy = self.dtype_policy
        self.attention = SelfAttention(
            heads, causal=causal, span=span, dropout=dropout, dtype=policy, name="attention"
        )
        self.feed_forward = FeedForward(
            inner_units, dropout=dropout, dtype=policy, name="feed_forward"
        )
        norms = [
            _normalization(normalization, name=f"norm_{index + 1}", dtype=policy)
            for index in range(self.local_layers + 2)
        ]
        self.local_norms, self.attention_norm, self.feed_forward_norm = (
            norms[:-2],
            norms[-2],
            norms[-1],
        )
        self.local_rnns: Any = []

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        local = self.local_layers * (self.window - 1)
        return None if self.span is None else self.span + local

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.causal and super().is_causal

    @property
    def output_units(self) -> int:
        """Width of the output of a built layer, that of the input."""
        return self.units

    def build(self, input_shape):
        super().build(input_shape)
        units = input_shape[-1]
        if not self.local_rnns:
            self.local_rnns = [
                LocalRNN(
                    int(units),
                    self.window,
                    _make_cell(self.cell),
                    dtype=self.dtype_policy,
                    name=f"local_rnn_{index + 1}",
                )
                for index in range(self.local_layers)
            ]
        for layer in (
            *self.local_norms,
            *self.local_rnns,
            self.attention_norm,
            self.attention,
            self.feed_forward_norm,
            self.feed_forward,
        ):
            if not layer.built:
                layer.build(input_shape)
        self.units = int(units)

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        state = self.attention.get_initial_state(batch_size)
        shape = (batch_size, self.local_layers, self.window - 1, self.units)
        return {"windows": ops.zeros(shape, self.compute_dtype), **state}

    def outline(self):
        """The parts in order, with their residual connections, for diagrams."""
        sublayers = [
            *zip(self.local_norms, self.local_rnns, strict=True),
            (self.attention_norm, self.attention),
            (self.feed_forward_norm, self.feed_forward),
        ]
        pre = self.norm_order == "pre"
        return tuple(part for norm, layer in sublayers for part in sublayer(norm, layer, pre))

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        mask=None,
        dropout_seed=None,
    ):
        if initial_state is not None or return_state:
            check_has_state(self.causal)
        seed = self.seed_of(training, masks, dropout_seed)
        state = initial_state or {}
        new_windows: list = []
        new_cache: dict[str, Any] = {}

        def recur(index):
            def run(values):
                past = state["windows"][:, index] if state else None
                outputs, window = self.local_rnns[index](
                    values, initial_state=past, return_state=True, training=training, mask=mask
                )
                new_windows.append(window)
                return outputs

            return run

        def attend(values):
            cache = {name: state[name] for name in ("keys", "values", "valid")} if state else None
            result = self.attention(
                values,
                initial_state=cache,
                return_state=return_state,
                training=training,
                masks=masks_at(seed, 1),
                mask=mask,
            )
            if return_state:
                result, cache = result
                new_cache.update(cache)
            return result

        def feed(values):
            return self.feed_forward(values, training=training, masks=masks_at(seed, 2))

        sublayers = [
            *((self.local_norms[i], recur(i)) for i in range(self.local_layers)),
            (self.attention_norm, attend),
            (self.feed_forward_norm, feed),
        ]
        for place, (norm, function) in enumerate(sublayers, start=3):
            x = self._connect(x, norm, function, seed_of_place(seed, place))
        if not return_state:
            return x
        if new_windows:
            windows = ops.stack(new_windows, axis=1)
        else:
            windows = ops.zeros((ops.shape(x)[0], 0, self.window - 1, self.units), x.dtype)
        return x, {"windows": windows, **new_cache}

    def _connect(self, x, norm, function, seed):
        """A sublayer with its normalisation, dropout and residual connection."""
        if self.norm_order == "pre":
            return x + seeded_dropout(function(norm(x)), self.dropout, seed)
        return norm(x + seeded_dropout(function(x), self.dropout, seed))

    def compute_output_shape(self, input_shape):
        return self.handed_out(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "window": self.window,
            "heads": self.heads,
            "local_layers": self.local_layers,
            "cell": self.cell,
            "inner_units": self.inner_units,
            "dropout": self.dropout,
            "norm_order": self.norm_order,
            "normalization": self.normalization,
            "causal": self.causal,
            "span": self.span,
            "seed": self.seed,
        }


def cell_config(cell):
    """A cell as a name or configuration, from which every sublayer makes a cell of its own."""
    if isinstance(cell, str | dict):
        return cell
    return keras.saving.serialize_keras_object(cell)


def _make_cell(config):
    if isinstance(config, str):
        return config
    return keras.saving.deserialize_keras_object(dict(config))


def _normalization(kind: str, **options) -> keras.layers.Layer:
    if kind == "unbiased":
        return UnbiasedLayerNormalization(**options)
    return keras.layers.LayerNormalization(epsilon=1e-6, **options)
