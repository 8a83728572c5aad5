"""Dropout with one mask for all steps of a sequence."""

import keras
from keras import ops

from keras_seq._arguments import check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CheckedLayer


@export("keras_seq.layers.VariationalDropout")
class VariationalDropout(CheckedLayer):
    """Drops whole features of a sequence: one mask for all time steps.

    Gal and Ghahramani, *A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks* (2016), section 4; also known as locked dropout. TrellisNet uses it on the input, the
    output and the hidden units. The kept values are scaled by `1 / (1 - rate)`.

    The mask is a value: it may be drawn with `get_mask` and passed to several calls. Under a
    `tf.distribute` strategy every replica draws its own. A Keras mask passes through unchanged.

    Args:
        rate: float in [0, 1). The share of features that are dropped.
        seed: optional integer, the seed of the layer's own random generator.

    Call arguments:
        x: float tensor of shape `(b, ..., t, d)`; the mask has size one along `t`.
        training: boolean; without it, or when false, the layer returns `x`.
        dropout_mask: optional tensor that broadcasts to `x`, used as it is (with its scaling) in
            place of a drawn mask, whatever `training` says.

    Output shape:
        The shape of `x`.

    Raises:
        ValueError: if `rate` is not in [0, 1), or `x` has fewer than two axes.

    Example:

    >>> dropout = keras_seq.layers.VariationalDropout(0.5, seed=1)
    >>> y = dropout(np.ones((2, 5, 8)), training=True)
    >>> bool(np.all(y[:, 0] == y[:, 4]))  # one mask for all steps
    True
    """

    axes = ("...", "t", "d")

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(rate)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, x_shape):
        self.check_shape(x_shape)

    def get_mask(self, batch_size, features: int, dtype=None):
        """Draws a mask of shape `(batch_size, 1, features)`, for the argument `dropout_mask`."""
        shape = (batch_size, 1, features)
        return bernoulli_mask(
            shape, self.rate, draw_seed(self.seed_generator), dtype or self.compute_dtype
        )

    def call(self, x, training=None, dropout_mask=None):
        if dropout_mask is not None:
            return x * ops.cast(dropout_mask, x.dtype)
        if not training or self.rate == 0:
            return x
        shape = ops.shape(x)
        mask_shape = (*shape[:-2], 1, shape[-1])
        return x * bernoulli_mask(mask_shape, self.rate, draw_seed(self.seed_generator), x.dtype)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
