"""The position-wise feed-forward network of a transformer."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import activation_config, check_rate, fan_in_uniform, get_activation
from keras_seq._export import export
from keras_seq.layers.seeded_layer import SeededLayer
from keras_seq.ops.products import matrix_product
from keras_seq.ops.seeded_dropout import seeded_mask
from keras_seq.ops.time_parts import time_parts


@export("keras_seq.layers.FeedForward")
class FeedForward(SeededLayer):
    """Two linear layers with an activation between them, the same at every step.

    Vaswani et al., *Attention Is All You Need* (2017), section 3.3: W₂ dropout(f(W₁ x + b₁)) + b₂.

    Args:
        inner_units: width of the inner layer; `None` for 4 d.
        activation: f.
        dropout: rate of the dropout after f.
        kernel_initializer: of both kernels; by default uniform within ± 1 / √fan-in.
        bias_initializer: of both biases; by default as the kernels.
        seed: of the dropout.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (..., d).
        training: whether to draw a dropout mask.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        dropout_seed: a seed tensor (2,), short for `masks={"seed": dropout_seed}`.

    Output shape:
        The shape of `x`.

    Raises:
        ValueError: if `inner_units` is not positive.

    Example:

    >>> layer = keras_seq.layers.FeedForward()
    >>> layer(np.ones((2, 3, 8), "float32")).shape
    TensorShape([2, 3, 8])
    """

    given_parts = ("activation",)

    def __init__(
        self,
        inner_units: int | None = None,
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if inner_units is not None and inner_units < 1:
            raise ValueError(
                f"`inner_units` must be positive or None. Received: inner_units={inner_units}."
            )
        self.inner_units = inner_units
        self.activation = get_activation(activation)
        self.dropout = check_rate(dropout, "dropout")
        self.kernel_initializer = fan_in_uniform(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        inner = 4 * features if self.inner_units is None else self.inner_units

        if isinstance(self.activation, keras.layers.Layer) and not self.activation.built:
            self.activation.build((*input_shape[:-1], inner))

        def linear(name, rows, columns):
            kernel = self.add_weight(
                name=f"{name}_kernel", shape=(rows, columns), initializer=self.kernel_initializer
            )
            limit = rows**-0.5
            bias = self.add_weight(
                name=f"{name}_bias",
                shape=(columns,),
                initializer=self.bias_initializer
                or keras.initializers.RandomUniform(-limit, limit),
            )
            return kernel, bias

        self.inner_kernel, self.inner_bias = linear("inner", features, inner)
        self.output_kernel, self.output_bias = linear("output", inner, features)

    def call(self, x, training=None, masks=None, dropout_seed=None):
        seed = self.seed_of(training, masks, dropout_seed)
        shape = (*ops.shape(x)[:-1], self.inner_kernel.shape[-1])
        mask = seeded_mask(shape, self.dropout, seed, x.dtype)
        parts = time_parts(*ops.shape(x)) if training and len(x.shape) == 3 else []
        if len(parts) < 2:
            return self._run(x, mask)
        outputs = [
            self._run(x[:, first:end], None if mask is None else mask[:, first:end])
            for first, end in parts
        ]
        return ops.concatenate(outputs, axis=1)

    def _run(self, x, mask):
        inner = self.activation(matrix_product(x, self.inner_kernel) + self.inner_bias)
        if mask is not None:
            inner = inner * mask
        return matrix_product(inner, self.output_kernel) + self.output_bias

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "inner_units": self.inner_units,
            "activation": activation_config(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "seed": self.seed,
        }
