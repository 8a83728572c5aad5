"""Layer normalisation by the unbiased deviation."""

from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq._export import export
from keras_seq.layers.causal_layer import CheckedLayer


@export("keras_seq.layers.UnbiasedLayerNormalization")
class UnbiasedLayerNormalization(CheckedLayer):
    """Layer normalisation as the R-Transformer release computes it.

        y = gain ∘ (x - mean) / (s + ε) + bias

    where s is the unbiased standard deviation of the d features (divisor d - 1) and ε is added to
    the deviation itself. `keras.layers.LayerNormalization` divides by √(variance + ε) with divisor
    d instead. Statistics are computed in float32 at least. A vector of equal features gives `bias`,
    with a gradient that is finite.

    Args:
        epsilon: ε.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (..., d) with d > 1.

    Output shape:
        The shape of `x`.

    Raises:
        ValueError: if there are fewer than two features.

    Example:

    >>> layer = keras_seq.layers.UnbiasedLayerNormalization()
    >>> layer(np.ones((2, 3, 4), "float32")).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        if features < 2:
            raise ValueError(
                "The input must have at least two features, since the unbiased deviation divides "
                f"by d - 1. Received: input_shape={tuple(input_shape)}."
            )
        self.gain = self.add_weight(name="gain", shape=(features,), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(features,), initializer="zeros")

    def call(self, x):
        wide = float32_at_least(self.compute_dtype)
        values = ops.cast(x, wide)
        centred = values - ops.mean(values, axis=-1, keepdims=True)
        squares = ops.sum(ops.square(centred), axis=-1, keepdims=True)
        variance = squares / (int(x.shape[-1]) - 1)
        some = variance > 0  # the root has no finite slope at zero
        deviation = ops.where(some, ops.sqrt(ops.where(some, variance, 1.0)), 0.0)
        normal = ops.cast(centred / (deviation + self.epsilon), self.compute_dtype)
        return normal * self.gain + self.bias

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
