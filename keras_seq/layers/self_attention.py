"""Multi-head self-attention with a cache."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_rate, fan_in_uniform
from keras_seq._export import export
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.recorded_attention import record_of_now
from keras_seq.layers.seeded_layer import SeededLayer
from keras_seq.ops.causal_attention import attend
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.packing import last_steps
from keras_seq.ops.products import matrix_product


@export("keras_seq.layers.SelfAttention")
class SelfAttention(SeededLayer, CausalLayer):
    """Multi-head scaled dot-product self-attention whose keys and values can be carried.

    Vaswani et al., *Attention Is All You Need* (2017), section 3.2; the pooling layer of the
    R-Transformer (Wang et al., 2019, section 3.2). Logits are scaled by 1 / √(d / heads). Long
    causal sequences are worked on in blocks of queries, without the logits of later steps.

    **State.** A dict of the `keys` (b, m, d) and `values` (b, m, d) of past steps and of `valid`
    (b, m), one where there was a step and zero before the first one and at masked steps. With a
    `span`, m is always `span - 1` and a step costs the same however long the past is; without one
    m grows with each call, which a compiled loop (such as that of `generate_ids`) cannot hold.

    Args:
        heads: number of heads; it must divide d.
        causal: whether a step sees only itself and steps before it. Without it there is no state.
        span: how many steps a step sees, itself included; `None` for all.
        dropout: rate of the dropout of the attention probabilities.
        kernel_initializer: of the projections; by default uniform within ± 1 / √d, as in the
            R-Transformer release.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for no past.
        return_state: also return the state.
        training: whether to draw a dropout mask, and to use a gradient written by hand, which
            cannot be differentiated again.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        mask: (b, t), true at valid steps; masked steps are left out.
        dropout_seed: a seed tensor (2,), short for `masks={"seed": dropout_seed}`.
        return_probabilities: also return the attention probabilities (b, heads, t, m + t), right
            after the outputs; with a `mask` in the places of the steps, with zeros for masked keys.
            `keras_seq.layers.recorded_attention` gives those of the attention layers within a
            model.

    Output shape:
        (b, t, d).

    Raises:
        ValueError: if `heads` does not divide d, or a state is asked for where there is none.

    Example:

    >>> layer = keras_seq.layers.SelfAttention(heads=2, span=5)
    >>> x = np.ones((3, 7, 8), "float32")
    >>> y, state = layer(x, return_state=True)
    >>> state["keys"].shape
    TensorShape([3, 4, 8])
    """

    facts = ("span",)

    def __init__(
        self,
        heads: int,
        causal: bool = True,
        span: int | None = None,
        dropout: float = 0.0,
        kernel_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if heads < 1:
            raise ValueError(f"`heads` must be positive. Received: heads={heads}.")
        if span is not None and span < 1:
            raise ValueError(f"`span` must be positive or None. Received: span={span}.")
        if span is not None and not causal:
            raise ValueError(f"`span` needs `causal=True`. Received: span={span}, causal={causal}.")
        self.heads = heads
        self.causal = causal
        self.span = span
        self.dropout = check_rate(dropout, "dropout")
        self.kernel_initializer = fan_in_uniform(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def reach(self) -> int | None:
        """Input steps whose values an output depends on; `None` for all."""
        return self.span

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.causal and super().is_causal

    @property
    def output_units(self) -> int:
        """Width of the output of a built layer, that of the input."""
        return self.features

    def build(self, input_shape):
        super().build(input_shape)
        self.features = features = int(input_shape[-1])
        if features % self.heads:
            raise ValueError(
                "`heads` must divide the features of the input. "
                f"Received: heads={self.heads}, input_shape={tuple(input_shape)}."
            )
        limit = self.features**-0.5
        bias = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(  # queries, keys, values
            name="kernel", shape=(features, 3 * features), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(3 * features,), initializer=bias)
        self.output_kernel = self.add_weight(
            name="output_kernel", shape=(features, features), initializer=self.kernel_initializer
        )
        self.output_bias = self.add_weight(name="output_bias", shape=(features,), initializer=bias)

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        check_has_state(self.causal)
        if not self.built:
            raise ValueError(
                "The state holds past keys, so the layer must be built first. Call the layer once, "
                "or its `build((b, t, d))`."
            )
        past, dtype = self._past, self.compute_dtype
        return {
            "keys": ops.zeros((batch_size, past, self.features), dtype),
            "values": ops.zeros((batch_size, past, self.features), dtype),
            "valid": ops.zeros((batch_size, past), dtype),
        }

    @property
    def _past(self) -> int:
        return 0 if self.span is None else self.span - 1

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        mask=None,
        dropout_seed=None,
        return_probabilities=False,
    ):
        if initial_state is not None or return_state:
            check_has_state(self.causal)
        dropout_seed = self.seed_of(training, masks, dropout_seed)
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        joined, finite = self._kept(matrix_product(x, self.kernel) + self.bias)
        query, key, value = ops.split(joined, 3, axis=-1)
        # Masked steps stand behind the valid ones, where a causal query does not see them.
        valid = None if mask is None or self.causal else ops.cast(mask, self.compute_dtype)
        if initial_state is not None:
            given = {name: ops.cast(part, x.dtype) for name, part in initial_state.items()}
            past = [given["keys"], given["values"]]
            if finite is not None:
                before = finite_steps(*past)
                past = [only(before, part) for part in past]
                finite = ops.concatenate([before, finite], axis=1)
            key = ops.concatenate([past[0], key], axis=1)
            value = ops.concatenate([past[1], value], axis=1)
            now = ops.ones((batch, length), x.dtype)
            valid = ops.concatenate([given["valid"], now], axis=1)

        query = query * (self.features // self.heads) ** -0.5
        record = record_of_now()
        whole = return_probabilities or record is not None
        pooled, probabilities = attend(
            self._split(query),
            self._split(key),
            self._split(value),
            valid,
            causal=self.causal,
            span=self.span,
            rate=self.dropout,
            seed=dropout_seed,
            written_gradient=bool(training) and not whole,
            in_blocks=not whole,
        )
        pooled = ops.reshape(ops.transpose(pooled, (0, 2, 1, 3)), (-1, length, self.features))
        outputs = matrix_product(pooled, self.output_kernel) + self.output_bias
        if finite is not None:
            count = seen_lost(finite, ops.shape(key)[1] - length, length, self.span)
            outputs = marked(outputs, count)
            if whole:
                probabilities = [marked(probabilities[0], count[:, None])]
            if return_state:  # later steps must see what was lost
                key = marked(key, ops.where(finite, 0.0, 1.0))
        if record is not None:
            record[self.path] = probabilities[0]
        results = [outputs]
        if return_probabilities:
            results.append(probabilities[0])
        if return_state:
            results.append(self._state(key, value, valid, mask))
        return results[0] if len(results) == 1 else tuple(results)

    def _kept(self, joined):
        """Queries, keys and values with zeros at steps that are not finite, if not all see them.

        Returns:
            The tensor (b, t, 3 d); and which steps are finite, (b, t), or `None` if each query sees
            all of them.
        """
        if not self.causal or joined.shape[1] == 1:
            return joined, None
        finite = finite_steps(joined)
        return only(finite, joined), finite

    def _split(self, tensor):
        """From (b, t, d) to (b, h, t, d / h)."""
        shape = (-1, ops.shape(tensor)[1], self.heads, self.features // self.heads)
        return ops.transpose(ops.reshape(tensor, shape), (0, 2, 1, 3))

    def _state(self, key, value, valid, mask):
        if valid is None:
            valid = ops.ones_like(key[..., 0])
        if mask is not None:
            before = valid[:, : ops.shape(key)[1] - ops.shape(mask)[1]]
            valid = ops.concatenate([before, ops.cast(mask, valid.dtype)], axis=1)
        if self.span is None:
            return {"keys": key, "values": value, "valid": valid}
        past = self.span - 1

        def last(tensor):
            """The last `span - 1` valid steps, with zeros before them where there are fewer."""
            padding = [[0, 0], [past, 0]] + [[0, 0]] * (len(tensor.shape) - 2)
            padded = ops.pad(tensor, padding)
            if mask is not None:
                return last_steps(padded, mask, past)
            return padded[:, ops.shape(tensor)[1] :]

        return {"keys": last(key), "values": last(value), "valid": last(valid)}

    def compute_output_shape(self, input_shape):
        return self.handed_out(input_shape)

    def compute_output_spec(
        self, x, initial_state=None, return_state=False, *, return_probabilities=False, **options
    ):
        results = super().compute_output_spec(x, initial_state, return_state, **options)
        if not return_probabilities:
            return results
        outputs, *state = results if return_state else (results,)
        batch, length = x.shape[0], x.shape[1]
        total = length if initial_state is None else None
        shape = (batch, self.heads, length, total)
        return outputs, keras.KerasTensor(shape, dtype=self.compute_dtype), *state

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "causal": self.causal,
            "span": self.span,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }


def check_has_state(causal: bool) -> None:
    """Refuses the state of attention over all steps.

    Args:
        causal: whether attention looks only back.
    """
    if not causal:
        raise ValueError(
            f"`causal` must be True for a state. Received: causal={causal}. Attention over all "
            "steps has no state: later steps change earlier outputs."
        )
