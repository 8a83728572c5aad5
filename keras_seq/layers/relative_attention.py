"""Multi-head attention with relative positions and a memory."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer, check_rate, fan_in_uniform
from keras_seq._export import export
from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.layers.causal_layer import with_carried_mask
from keras_seq.layers.over_rows import read_rows
from keras_seq.layers.recorded_attention import record_of_now
from keras_seq.layers.seeded_layer import SeededLayer
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.relative_positions import shift, sinusoids, visibility
from keras_seq.ops.weight_norm import direction_norm, weight_normalize


@export("keras_seq.layers.RelativeAttention")
class RelativeAttention(SeededLayer):
    """Causal multi-head attention whose scores depend on distances, not on places.

    Dai et al., *Transformer-XL* (2019), section 3.3. With queries, keys and values q, k, v of the
    m steps of a memory and the t steps of x, and r the projected sinusoid of a distance:

        score(i, j) = ((q_i + c) · k_j + (q_i + p) · r_{i-j}) / √(units of a head)

    with one learned vector c (content) and p (position) a head. Queries come from x alone.

    **Prepare, then iterate.** All that does not depend on x is computed by `prepare`: scaled
    kernels, keys and values of the memory, projected positions, p · r, the mask and the dropout.
    `iterate(x, context)` is the rest. A deep equilibrium model prepares once and iterates many
    times; `call` does both. `keras_seq.layers.recorded_attention` notes the probabilities.

    Args:
        heads: number of heads h.
        head_units: width u of a head; d / h if not given.
        span: how many steps a step sees, itself included; `None` for all.
        dropout: rate of the dropout of the attention probabilities.
        use_bias: whether the output projection has a bias.
        own_vectors: whether the layer owns c and p; else they are given to each call.
        weight_normalization: normalise each output channel of the three kernels.
        kernel_initializer: of the kernels; N(0, 0.02²) by default, or uniform within ± 1 / √fan-in
            with weight normalisation.
        position_initializer: of the kernel of the positions; as the others if not given.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        memory: (b, m, d), the steps before x; `None` for no memory.
        valid: (b, m), zero for steps of the memory that do not exist.
        injected: (b, m + t, 3 h u), added to queries, keys and values; or `None`.
        vectors: c and p, (h, u) each, where the layer does not own them.
        position_mask: (d,), a dropout mask of the sinusoids.
        distances: (m + t,), in place of m + t - 1, ..., 0.
        training: whether to draw a dropout mask.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        mask: (b, t), true at valid steps of x; masked steps are left out, and not counted in
            distances.

    Output shape:
        (b, t, d).

    Raises:
        ValueError: if d is odd, or `heads` does not divide it while `head_units` is not given.

    Example:

    >>> layer = keras_seq.layers.RelativeAttention(heads=2)
    >>> x, memory = ops.ones((3, 5, 8)), ops.ones((3, 4, 8))
    >>> tuple(layer(x, memory=memory).shape)
    (3, 5, 8)
    """

    facts = ("head_units", "span")
    axes = ("b", "t", "d")

    def __init__(
        self,
        heads: int,
        head_units: int | None = None,
        span: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        own_vectors: bool = True,
        weight_normalization: bool = False,
        kernel_initializer: Any = None,
        position_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = check_integer("heads", heads)
        self.head_units = None if head_units is None else check_integer("head_units", head_units)
        self.span = None if span is None else check_integer("span", span)
        self.dropout = check_rate(dropout, "dropout")
        self.use_bias = use_bias
        self.own_vectors = own_vectors
        self.weight_normalization = weight_normalization
        if kernel_initializer is None:
            kernel_initializer = default_initializer(weight_normalization)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if position_initializer is None:
            position_initializer = self.kernel_initializer
        self.position_initializer = keras.initializers.get(position_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **with_carried_mask(self, args, kwargs))

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        if features % 2:
            raise ValueError(
                "The features of the input must be even, for sines and cosines. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        if self.head_units is None and features % self.heads:
            raise ValueError(
                "`heads` must divide the features of the input. Received: "
                f"heads={self.heads}, input_shape={tuple(input_shape)}. Or give `head_units`."
            )
        self.features = int(features)
        self.width = self.head_units or self.features // self.heads
        inner = self.heads * self.width
        usual = self.kernel_initializer
        self.kernel, self.gain = self._kernel("kernel", features, 3 * inner, usual)
        self.position_kernel, self.position_gain = self._kernel(
            "position", features, inner, self.position_initializer
        )
        self.output_kernel, self.output_gain = self._kernel("output", inner, features, usual)
        self.output_bias = self.content = self.position = None
        if self.use_bias:
            self.output_bias = self.add_weight(
                name="output_bias", shape=(features,), initializer="zeros", autocast=False
            )
        if self.own_vectors:
            self.content, self.position = (
                self.add_weight(
                    name=name,
                    shape=(self.heads, self.width),
                    initializer=keras.initializers.RandomNormal(stddev=0.02),
                    autocast=False,
                )
                for name in ("content_vector", "position_vector")
            )

    def _kernel(self, name, rows, columns, initializer):
        """A kernel (rows, columns), and its gain or `None`."""
        return add_kernel(self, name, (rows, columns), initializer, self.weight_normalization)

    def prepare(
        self,
        length,
        memory=None,
        valid=None,
        injected=None,
        vectors=None,
        position_mask=None,
        distances=None,
        dropout_seed=None,
        batch_size=None,
    ):
        """All that does not depend on x.

        Args:
            length: number of steps t of x.
            memory, valid, injected, vectors, position_mask, distances: see the class.
            dropout_seed: a seed tensor (2,) from which the dropout mask is drawn; `None` for none.
            batch_size: b, needed for that mask where there is neither memory nor injection.

        Returns:
            A dict of tensors, for `iterate`.
        """
        dtype, heads, width = self.compute_dtype, self.heads, self.width
        inner, past = heads * width, 0 if memory is None else ops.shape(memory)[1]
        total = past + length
        if memory is not None:
            batch_size = ops.shape(memory)[0]
        elif injected is not None:
            batch_size = ops.shape(injected)[0]
        content, position = vectors or (self.content, self.position)
        content, position = (self._cast(vector) for vector in (content, position))

        # The scale of the scores goes into the queries, and c into what is added to them.
        factors = ops.concatenate(
            [ops.full((inner,), width**-0.5, dtype=dtype), ops.ones((2 * inner,), dtype)]
        )
        kernel = self._cast(normalized(self.kernel, self.gain)) * factors
        zeros = ops.zeros((2 * inner,), dtype)
        offset = ops.concatenate([ops.reshape(content, (inner,)) * width**-0.5, zeros])
        context = {"kernel": kernel, "added": offset[None, None]}
        if injected is not None:
            added = ops.cast(injected[:, past:], dtype)
            context["added"] = added * factors + offset
        if memory is not None:
            if valid is not None:  # what does not exist may hold anything
                real = valid > 0
                memory = only(real, memory)
                if injected is not None:
                    old = only(real, injected[:, :past])
                    injected = ops.concatenate([old, injected[:, past:]], axis=1)
            pairs = ops.matmul(ops.cast(memory, dtype), kernel[:, inner:])
            if injected is not None:
                pairs = pairs + ops.cast(injected[:, :past, inner:], dtype)
            pairs = ops.reshape(pairs, (-1, past, 2, heads, width))
            context["pairs"] = ops.transpose(pairs, (2, 0, 3, 1, 4))

        if distances is None:
            distances = ops.arange(total - 1, -1, -1)
        positions = sinusoids(distances, self.features, dtype)
        if position_mask is not None:
            positions = positions * ops.cast(position_mask, dtype)
        projection = self._cast(normalized(self.position_kernel, self.position_gain))
        positions = ops.reshape(ops.matmul(positions, projection), (-1, heads, width))
        # An empty distance in front, for `shift`.
        positions = ops.pad(ops.transpose(positions, (1, 2, 0)), [[0, 0], [0, 0], [1, 0]])
        context["positions"] = positions  # (h, u, 1 + total)

        # The queries carry c everywhere, so p - c meets the positions here.
        lacking = (position - content)[:, None] * width**-0.5
        bias = ops.matmul(lacking, positions) + ops.zeros((length, 1), dtype)
        if valid is not None:
            present = ops.ones((ops.shape(valid)[0], length), dtype)
            valid = ops.concatenate([ops.cast(valid, dtype), present], axis=1)
        seen = visibility(length, total, self.span, dtype, valid)
        context["bias"] = shift(bias, length, total) + seen

        context["output"] = self._cast(normalized(self.output_kernel, self.output_gain))
        if self.output_bias is not None:
            context["output_bias"] = self._cast(self.output_bias)
        if dropout_seed is not None and self.dropout:
            if batch_size is None:
                raise ValueError("`batch_size` must be given to draw the mask of the attention.")
            shape = (batch_size, heads, length, total)
            context["mask"] = bernoulli_mask(shape, self.dropout, DrawnSeed(dropout_seed), dtype)
        return context

    def iterate(self, x, context):
        """Attention of x, (b, t, d), given a context from `prepare`."""
        heads, width = self.heads, self.width
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        rows = ops.matmul(ops.reshape(x, (-1, self.features)), context["kernel"])
        parts = ops.reshape(rows, (batch, length, 3 * heads * width)) + context["added"]
        parts = ops.reshape(parts, (batch, length, 3, heads, width))
        query, key, value = ops.unstack(ops.transpose(parts, (2, 0, 3, 1, 4)), axis=0)
        if "pairs" in context:
            old_key, old_value = ops.unstack(context["pairs"], axis=0)
            key = ops.concatenate([old_key, key], axis=2)
            value = ops.concatenate([old_value, value], axis=2)
        total = ops.shape(key)[2]
        scores = ops.einsum("bhtu,bhsu->bhts", query, key)
        scores = scores + shift(ops.matmul(query, context["positions"]), length, total)
        probabilities = ops.softmax(scores + context["bias"])
        record = record_of_now()
        if record is not None:
            record[self.path] = probabilities
        if "mask" in context:
            probabilities = probabilities * context["mask"]
        pooled = ops.transpose(ops.matmul(probabilities, value), (0, 2, 1, 3))
        rows = ops.matmul(ops.reshape(pooled, (-1, heads * width)), context["output"])
        if "output_bias" in context:
            rows = rows + context["output_bias"]
        return ops.reshape(rows, (batch, length, self.features))

    def call(
        self,
        x,
        memory=None,
        valid=None,
        injected=None,
        vectors=None,
        position_mask=None,
        distances=None,
        training=None,
        masks=None,
        mask=None,
    ):
        past = 0 if memory is None else ops.shape(memory)[1]
        if mask is not None:  # what belongs to the steps goes with them
            steps = [x] if injected is None else [x, injected[:, past:]]

            def attend(steps, **given):
                if injected is not None:
                    given["injected"] = ops.concatenate([injected[:, :past], steps[1]], axis=1)
                return self.call(steps[0], **given)

            given = {"memory": memory, "valid": valid, "vectors": vectors, "training": training}
            given |= {"position_mask": position_mask, "distances": distances, "masks": masks}
            return read_rows(attend, steps, mask, False, self, given)
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        count = None
        if x.shape[1] != 1:  # a step that is not finite reaches no step before it
            news = None if injected is None else injected[:, past:]
            finite = finite_steps(x) if news is None else finite_steps(x, news)
            x, count = only(finite, x), seen_lost(finite, 0, length, self.span)
            if injected is not None:
                injected = ops.concatenate([injected[:, :past], only(finite, news)], axis=1)
        seed = self.seed_of(training, masks)
        context = self.prepare(
            length, memory, valid, injected, vectors, position_mask, distances, seed, batch
        )
        outputs = self.iterate(x, context)
        return outputs if count is None else marked(outputs, count)

    def _cast(self, weight):
        return ops.cast(ops.convert_to_tensor(weight), self.compute_dtype)

    def compute_output_shape(self, input_shape, *args, **kwargs):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_units": self.head_units,
            "span": self.span,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "own_vectors": self.own_vectors,
            "weight_normalization": self.weight_normalization,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "position_initializer": keras.initializers.serialize(self.position_initializer),
            "seed": self.seed,
        }


def default_initializer(weight_normalization: bool):
    """N(0, 0.02²); under weight normalisation uniform within ± 1 / √fan-in, whose norms are gains.

    Args:
        weight_normalization: whether the kernel is a direction.
    """
    if weight_normalization:
        return fan_in_uniform()
    return keras.initializers.RandomNormal(stddev=0.02)


def add_kernel(layer, name, shape, initializer, weight_normalization):
    """Adds a kernel to a layer and, with weight normalisation, a gain for each output channel.

    Returns:
        The kernel, and the gain or `None`.
    """
    kernel = layer.add_weight(
        name=name, shape=shape, initializer=initializer.clone(), autocast=False
    )
    if not weight_normalization:
        return kernel, None
    gain = layer.add_weight(
        name=f"{name}_gain",
        shape=shape[-1:],
        initializer=lambda shape, dtype=None: ops.cast(direction_norm(kernel.value), dtype),
        autocast=False,
    )
    return kernel, gain


def normalized(kernel, gain):
    """A kernel, with weight normalisation if there is a gain."""
    kernel = ops.convert_to_tensor(kernel)
    return kernel if gain is None else weight_normalize(kernel, ops.convert_to_tensor(gain))
