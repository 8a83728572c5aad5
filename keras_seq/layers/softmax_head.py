"""What every output layer over a vocabulary has in common."""

from typing import Any, Protocol, runtime_checkable

import keras
from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq.layers.causal_layer import CheckedLayer
from keras_seq.ops.products import matrix_product


@runtime_checkable
class HasTables(Protocol):
    """An embedding that names its word vectors: one matrix, or one a cluster."""

    tables: Any


class SoftmaxHead(CheckedLayer):
    """Abstract output layer over a vocabulary; it owns both the probabilities and the loss.

    A subclass implements `call`, which maps hidden states to log-probabilities, and
    `_nll`, which maps hidden states and targets to negative log-likelihoods and may be cheaper.
    Products are computed in the layer's compute type, softmax and loss in float32 at least.

    Args:
        vocabulary_size: integer, the number of words.
        tied: boolean. Whether the word vectors are the embedding's, handed to every call as
            `tables`. Otherwise the head owns them.
    """

    tie_projections = False  # whether `tables` end with projections of the embedding

    def __init__(self, vocabulary_size: int, tied: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if vocabulary_size < 1:
            raise ValueError(
                f"`vocabulary_size` must be positive. Received: vocabulary_size={vocabulary_size}."
            )
        self.vocabulary_size = int(vocabulary_size)
        self.tied = bool(tied)

    def call(self, hidden, tables=None, training=None, masks=None):
        raise NotImplementedError

    def _nll(self, hidden, targets, tables, training, masks):
        raise NotImplementedError

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks (b, 1, ...) of one call; `{}` without dropout.

        Args:
            batch_size: b, an integer or a scalar tensor.
        """
        return {}

    def nll(self, hidden, targets, tables=None, training=None, masks=None):
        """Negative log-likelihood of every target.

        Args:
            hidden: float tensor of shape `(..., d)`.
            targets: integer tensor of shape `(...)`.
            tables: the tied word vectors, see the class; `None` if the head owns them.
            training: boolean; whether dropout is applied.
            masks: optional dictionary of dropout masks, in place of drawn ones.

        Returns:
            A tensor of shape `(...)`, float32 at least.
        """
        hidden = ops.cast(ops.convert_to_tensor(hidden), self.compute_dtype)
        self.check_shape(hidden.shape, "hidden")
        if not self.built:
            self.build(hidden.shape)
        return self._nll(hidden, ops.cast(targets, "int32"), tables, training, masks)

    @property
    def loss_dtype(self) -> str:
        """The type of softmax and loss: float32 under mixed precision, else the compute type."""
        return float32_at_least(self.compute_dtype)

    def compute_output_shape(self, hidden_shape, *args, **kwargs):
        return (*hidden_shape[:-1], self.vocabulary_size)

    def compute_output_spec(self, hidden, *args, **kwargs):
        return keras.KerasTensor(self.compute_output_shape(hidden.shape), dtype=self.loss_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "tied": self.tied,
        }

    def tied_tables(self, embedding) -> list:
        """The `tables` argument for an embedding layer that shares its word vectors.

        Args:
            embedding: `keras.layers.Embedding`, `keras.layers.ReversibleEmbedding`,
                `keras_seq.layers.AdaptiveEmbedding`, or a layer of one's own with `tables`.
        """
        if isinstance(embedding, HasTables):
            return list(embedding.tables)
        if embedding.quantization_mode is not None:  # the vectors as the embedding reads them
            return [embedding(ops.arange(embedding.input_dim))]
        return [embedding.embeddings]

    def _table(self, tables, own):
        """The one matrix of word vectors of shape (V, d), tied or the head's own."""
        if not self.tied:
            if tables:
                raise ValueError(
                    f"{type(self).__name__} was built with `tied=False` and owns its word vectors. "
                    f"Received: {len(tables)} tied tables. Pass `tied=True` to the constructor, "
                    "or no tables."
                )
            return own
        if tables is None or len(tables) != 1:
            raise ValueError(
                f"{type(self).__name__} with `tied=True` needs `tables=[embeddings]`, one matrix "
                f"of shape (vocabulary_size, d). Received: tables={_describe(tables)}. Pass the "
                "embedding's matrix, or build the head with `tied=False`."
            )
        return tables[0]

    def _cast(self, weight):
        """A weight in the compute type; `nll` runs outside of Keras' own casting."""
        return ops.cast(ops.convert_to_tensor(weight), self.compute_dtype)

    def _affine(self, x, weight, bias=None):
        """`x weight^T + bias` in the compute type, for a weight of shape (outputs, inputs)."""
        x = matrix_product(x, ops.transpose(self._cast(weight)))
        return x if bias is None else x + self._cast(bias)


def _describe(tables) -> str:
    if tables is None:
        return "None"
    return f"[{', '.join(str(tuple(table.shape)) for table in tables)}]"
