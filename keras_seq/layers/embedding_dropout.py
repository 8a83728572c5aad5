"""Dropout of whole words of an embedding table."""

import keras
from keras import ops

from keras_seq._arguments import check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CheckedLayer


@export("keras_seq.layers.EmbeddingDropout")
class EmbeddingDropout(CheckedLayer):
    """Drops whole rows of an embedding table: a dropped word is zero wherever it occurs.

    Gal and Ghahramani, *A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks* (2016), section 4.1; Merity et al., *Regularizing and Optimizing LSTM Language Models*
    (2018), section 4.3. There is one draw per call over the rows of the table, the same for the
    whole batch, and kept rows are scaled by `1 / (1 - rate)`. The layer acts on vectors that were
    looked up already, by gathering the mask at the same ids: the table itself is never copied.

    Args:
        rate: float in [0, 1). The share of words that are dropped.
        vocabulary_size: integer, the number of rows of the table.
        seed: optional integer, the seed of the layer's own random generator.

    Call arguments:
        embedded: float tensor of shape `(..., d)`, the looked-up vectors.
        ids: integer tensor of shape `(...)`, the ids that were looked up.
        training: boolean; without it, or when false, the layer returns `embedded`.
        dropout_mask: optional tensor of shape `(vocabulary_size, 1)` or `(vocabulary_size,)`, used
            as it is (with its scaling) in place of a drawn mask, whatever `training` says.

    Output shape:
        The shape of `embedded`.

    Raises:
        ValueError: if `rate` is not in [0, 1) or `vocabulary_size` is not positive.

    Example:

    >>> ids = np.array([[1, 2, 1]])
    >>> vectors = keras.layers.Embedding(10, 4)(ids)
    >>> dropout = keras_seq.layers.EmbeddingDropout(0.5, vocabulary_size=10, seed=1)
    >>> y = dropout(vectors, ids, training=True)
    >>> bool(np.all(y[:, 0] == y[:, 2]))  # both occurrences of word 1 share their fate
    True
    """

    def __init__(self, rate: float, vocabulary_size: int, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if vocabulary_size < 1:
            raise ValueError(
                f"`vocabulary_size` must be positive. Received: vocabulary_size={vocabulary_size}. "
                "It is the number of rows of the embedding table."
            )
        self.rate = check_rate(rate)
        self.vocabulary_size = int(vocabulary_size)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, embedded_shape):
        self.built = True

    def get_mask(self, dtype=None):
        """Draws a mask of shape `(vocabulary_size, 1)`, for the argument `dropout_mask`."""
        shape = (self.vocabulary_size, 1)
        return bernoulli_mask(
            shape, self.rate, draw_seed(self.seed_generator), dtype or self.compute_dtype
        )

    def call(self, embedded, ids, training=None, dropout_mask=None):
        if dropout_mask is None:
            if not training or self.rate == 0:
                return embedded
            dropout_mask = self.get_mask(embedded.dtype)
        dropout_mask = ops.cast(ops.reshape(dropout_mask, (self.vocabulary_size,)), embedded.dtype)
        kept = ops.take(dropout_mask, ops.cast(ids, "int32"), axis=0)
        return embedded * ops.expand_dims(kept, -1)

    def compute_output_shape(self, embedded_shape, ids_shape=None):
        return embedded_shape

    def get_config(self):
        return {
            **super().get_config(),
            "rate": self.rate,
            "vocabulary_size": self.vocabulary_size,
            "seed": self.seed,
        }
