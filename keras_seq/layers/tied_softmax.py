"""Softmax over the words, with the embedding's vectors or its own."""

from typing import Any

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.layers.softmax_head import SoftmaxHead


@export("keras_seq.layers.TiedSoftmax")
class TiedSoftmax(SoftmaxHead):
    """Softmax over the vocabulary whose word vectors are those of the input embedding.

    Press and Wolf, *Using the Output Embedding to Improve Language Models* (2017); Inan et al.,
    *Tying Word Vectors and Word Classifiers* (2017). `log p(w | h) = log_softmax(E h + b)_w`. With
    `tied=False` it is an ordinary softmax layer with a matrix of its own.

    Args:
        vocabulary_size: integer V, the number of words.
        tied: boolean. Whether the word vectors come with each call as `tables=[embeddings]`, for
            instance the `embeddings` of a `keras.layers.ReversibleEmbedding`.
        use_bias: boolean. Whether a bias of one number a word is added; it starts from zero.
        kernel_initializer: initializer of the head's own matrix (V, d), with `tied=False`.
            Defaults to `U(-0.1, 0.1)`.

    Call arguments:
        hidden: float tensor of shape `(..., d)`.
        tables: a list of one matrix of shape `(V, d)`; `None` if not tied.
        training, masks: accepted as every head does; not used.

    Output shape:
        `(..., V)`, log-probabilities in float32 at least.

    Raises:
        ValueError: if `tables` is missing for a tied head, or given to an untied one.

    Example:

    >>> embedding = keras.layers.ReversibleEmbedding(100, 16)
    >>> hidden = embedding(np.array([[3, 1, 4]]))
    >>> head = keras_seq.layers.TiedSoftmax(100)
    >>> head(hidden, tables=[embedding.embeddings]).shape
    TensorShape([1, 3, 100])
    >>> head.nll(hidden, np.array([[1, 4, 1]]), tables=[embedding.embeddings]).shape
    TensorShape([1, 3])
    """

    def __init__(
        self,
        vocabulary_size: int,
        tied: bool = True,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied, **kwargs)
        self.use_bias = bool(use_bias)
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomUniform(-0.1, 0.1)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, hidden_shape):
        super().build(hidden_shape)
        self.kernel = self.bias = None
        if not self.tied:
            self.kernel = self.add_weight(
                shape=(self.vocabulary_size, hidden_shape[-1]),
                initializer=self.kernel_initializer,
                name="kernel",
            )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.vocabulary_size,), initializer="zeros", name="bias"
            )
        self.built = True

    def logits(self, hidden, tables=None):
        """The scores of all words before the softmax, of shape `(..., V)`, in the compute type."""
        hidden = ops.cast(ops.convert_to_tensor(hidden), self.compute_dtype)
        if not self.built:
            self.build(hidden.shape)
        return self._affine(hidden, self._table(tables, self.kernel), self.bias)

    def call(self, hidden, tables=None, training=None, masks=None):
        return ops.log_softmax(ops.cast(self.logits(hidden, tables), self.loss_dtype))

    def _nll(self, hidden, targets, tables, training, masks):
        logits = ops.cast(self.logits(hidden, tables), self.loss_dtype)
        return ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)

    def get_config(self):
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
