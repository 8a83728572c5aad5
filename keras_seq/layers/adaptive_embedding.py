"""Adaptive input embedding: narrower vectors for rarer words."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq._backend import runs_eagerly
from keras_seq._export import export
from keras_seq.layers.adaptive_softmax import check_cutoffs, cluster_widths
from keras_seq.layers.outline import Outlined


@export("keras_seq.layers.AdaptiveEmbedding")
class AdaptiveEmbedding(Outlined, keras.layers.Layer):
    """Word vectors whose width falls from cluster to cluster, projected to one width.

    Baevski and Auli, *Adaptive Input Representations for Neural Language Modeling* (2019), section
    3, in the form of Transformer-XL and DEQ: cluster i (words `cutoffs[i - 1]` to
    `cutoffs[i] - 1`) has vectors of width `embedding_dim // div_value ** i`, each cluster has a
    linear projection to `output_dim`, and the result is multiplied by `sqrt(output_dim)`. With
    `div_value=1` there is one table, and one projection if the two widths differ.

    `tables` and `projections` hold the weights; `AdaptiveSoftmax(form="projected", tied=True)`
    shares them.

    Args:
        vocabulary_size: integer V, the number of words, sorted by falling frequency.
        embedding_dim: integer, the width of the vectors of the first cluster.
        output_dim: integer d, the width of the output; defaults to `embedding_dim`.
        cutoffs: rising integers, the first id of every cluster but the first.
        div_value: number, at least 1; by how much vectors narrow from cluster to cluster.
        embeddings_initializer: initializer of the tables; N(0, 0.02^2) by default.
        projection_initializer: initializer of the projections; N(0, 0.01^2) by default.

    Call arguments:
        ids: integer tensor of shape `(...)`.

    Output shape:
        `(..., d)`.

    Raises:
        ValueError: if cut-offs do not rise, or a cluster's width would be zero; for an id outside
            the vocabulary where ids can be looked at. In a graph the vector of such an id is NaN,
            so that what is made of it is seen to be wrong.

    Example:

    >>> embedding = keras_seq.layers.AdaptiveEmbedding(100, 16, cutoffs=[20, 60], div_value=2)
    >>> embedding(np.array([[1, 30, 99]])).shape
    TensorShape([1, 3, 16])
    >>> [tuple(table.shape) for table in embedding.tables]
    [(20, 16), (40, 8), (40, 4)]
    """

    facts = ("cutoffs",)

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        output_dim: int | None = None,
        cutoffs: Sequence[int] = (),
        div_value: float = 1,
        embeddings_initializer: Any = None,
        projection_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if div_value < 1:
            raise ValueError(f"`div_value` must be at least 1. Received: div_value={div_value}.")
        self.vocabulary_size = int(vocabulary_size)
        self.embedding_dim = int(embedding_dim)
        self.output_dim = self.embedding_dim if output_dim is None else int(output_dim)
        self.cutoffs = check_cutoffs(cutoffs, self.vocabulary_size)
        self.div_value = div_value
        if embeddings_initializer is None:
            embeddings_initializer = keras.initializers.RandomNormal(0, 0.02)
        if projection_initializer is None:
            projection_initializer = keras.initializers.RandomNormal(0, 0.01)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.projection_initializer = keras.initializers.get(projection_initializer)
        cluster_widths(self.embedding_dim, div_value, len(self.cutoffs) + 1)  # refuses zero

    @property
    def bounds(self) -> tuple[int, ...]:
        """The first id of every table, and the vocabulary size at the end."""
        cutoffs = () if self.div_value == 1 else self.cutoffs
        return (0, *cutoffs, self.vocabulary_size)

    def build(self, ids_shape=None):
        self.tables, self.projections = [], []
        widths = cluster_widths(self.embedding_dim, self.div_value, len(self.bounds) - 1)
        for i, width in enumerate(widths):
            self.tables.append(
                self.add_weight(
                    shape=(self.bounds[i + 1] - self.bounds[i], width),
                    initializer=self.embeddings_initializer,
                    name=f"table_{i}",
                )
            )
        if self.div_value != 1 or self.embedding_dim != self.output_dim:
            for i, width in enumerate(widths):
                self.projections.append(
                    self.add_weight(
                        shape=(self.output_dim, width),
                        initializer=self.projection_initializer,
                        name=f"projection_{i}",
                    )
                )
        self.built = True

    def call(self, ids):
        known = known_ids(ids, self.vocabulary_size)
        ids = ops.where(known, ops.cast(ids, "int32"), 0)
        if len(self.tables) == 1:
            vectors = ops.take(self.tables[0], ids, axis=0)
        else:
            parts = []  # zero except in the part of the word's own cluster
            for table, low, high in zip(self.tables, self.bounds, self.bounds[1:], strict=False):
                inside = (ids >= low) & (ids < high)
                part = ops.take(table, ops.where(inside, ids - low, 0), axis=0)
                parts.append(ops.where(ops.expand_dims(inside, -1), part, ops.zeros_like(part)))
            vectors = ops.concatenate(parts, axis=-1)
        if self.projections:
            projection = ops.concatenate([ops.transpose(p) for p in self.projections], axis=0)
            vectors = ops.matmul(vectors, projection)
        scale = ops.where(known, self.output_dim**0.5, ops.sqrt(ops.where(known, 0.0, -1.0)))
        vectors = ops.cast(vectors, self.compute_dtype)
        return vectors * ops.expand_dims(ops.cast(scale, self.compute_dtype), -1)

    def compute_output_shape(self, ids_shape):
        return (*ids_shape, self.output_dim)

    def compute_output_spec(self, ids):
        return keras.KerasTensor(self.compute_output_shape(ids.shape), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "output_dim": self.output_dim,
            "cutoffs": self.cutoffs,
            "div_value": self.div_value,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "projection_initializer": keras.initializers.serialize(self.projection_initializer),
        }


def known_ids(ids, vocabulary_size: int):
    """Which ids are in the vocabulary, booleans of their shape.

    Raises:
        ValueError: eagerly, if there are others. Graphs cannot look at ids.
    """
    ids = ops.convert_to_tensor(ids)
    large = keras.backend.standardize_dtype(ids.dtype) in ("int64", "uint32", "uint64")
    ids = ops.cast(ids, "int64" if large else "int32")  # a large one must not wrap
    known = ops.logical_and(ids >= 0, ids < vocabulary_size)
    if runs_eagerly() and hasattr(ids, "numpy"):
        outside = ops.convert_to_numpy(ids)[~ops.convert_to_numpy(known)]
        if outside.size:
            raise ValueError(
                f"`ids` must be in [0, {vocabulary_size}), the vocabulary. "
                f"Received: ids with {sorted(set(outside.tolist()))[:5]} among them. Read the text "
                "with the vocabulary that the model was made for."
            )
    return known
