"""Adaptive softmax: frequent words first, rare words in clusters."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.layers.softmax_head import SoftmaxHead, _describe
from keras_seq.ops.cluster_nll import cluster_nll

FORMS = ("split", "projected", "torch")


def check_cutoffs(cutoffs, vocabulary_size: int) -> tuple[int, ...]:
    """Returns cut-offs as a tuple, after a check that they cut the vocabulary into clusters."""
    cutoffs = tuple(int(cutoff) for cutoff in cutoffs)
    bounds = (0, *cutoffs, vocabulary_size)
    if any(low >= high for low, high in zip(bounds, bounds[1:], strict=False)):
        raise ValueError(
            "`cutoffs` must rise strictly between 0 and `vocabulary_size`. Received: "
            f"cutoffs={cutoffs}, vocabulary_size={vocabulary_size}. Each is the first id of a new "
            "cluster; the vocabulary size itself is not listed."
        )
    return cutoffs


def cluster_widths(embedding_dim: int, div_value: float, clusters: int) -> list[int]:
    """The width `embedding_dim // div_value ** i` of the word vectors of every cluster i."""
    widths = [int(embedding_dim // div_value**i) for i in range(clusters)]
    if widths[-1] < 1:
        raise ValueError(
            "Every cluster needs word vectors of at least one number. Received: "
            f"embedding_dim={embedding_dim}, div_value={div_value}, which gives the widths "
            f"{widths}. Use a smaller `div_value` or fewer `cutoffs`."
        )
    return widths


@export("keras_seq.layers.AdaptiveSoftmax")
class AdaptiveSoftmax(SoftmaxHead):
    """Softmax over a large vocabulary: frequent words directly, rare ones by way of their cluster.

    Grave et al., *Efficient softmax approximation for GPUs* (2017), section 4. The vocabulary,
    sorted by falling frequency, is cut into a head and K clusters. The head has a logit for each of
    its words and one for each cluster; a rare word's probability is that of its cluster times that
    within the cluster: `p(w) = p(cluster) p(w | cluster)`. These are exact probabilities that sum
    to one.

    Three published forms differ in where the weights come from and in the order of the K cluster
    logits, which follow those of the head's words:

    * `"split"`: one table of word vectors (V, d), cut at the cut-offs; a bias for everything;
      cluster logits in reverse order, from zero weights at the start. It is the split cross-entropy
      of the AWD-LSTM code, which TrellisNet uses on WikiText-103.
    * `"projected"`: cluster i has vectors of width `embedding_dim // div_value ** i` and a
      projection, the head (i = 0) too; with `div_value=1` there is one table, and projections only
      if `embedding_dim` is not d; a bias for everything; cluster logits in reverse order. It is the
      form of Transformer-XL and DEQ.
    * `"torch"`: the head has vectors of width d, cluster i of width `d // div_value ** i` and a
      projection; a bias for the head only, if at all; cluster logits in order. It is PyTorch's
      `AdaptiveLogSoftmaxWithLoss`.

    `nll` computes the head for all tokens but each cluster for its own tokens only, in chunks of at
    most `max_logits` logits that the backward pass computes again. So training never holds a
    tensor of [tokens, vocabulary]. This works eagerly, in a graph and compiled by XLA. `call`
    does give all log-probabilities, for inference.

    Args:
        vocabulary_size: integer V, the number of words.
        cutoffs: rising integers, the first id of every cluster but the head, without V. Empty: an
            ordinary softmax.
        form: `"split"`, `"projected"` or `"torch"`.
        tied: boolean. Whether word vectors come with each call as `tables`: one matrix
            `[(V, d)]`, or one a cluster, the tables of an `AdaptiveEmbedding`.
        embedding_dim: integer, the width of the head's word vectors; d by default. For
            `form="projected"`.
        div_value: number, at least 1; by how much vectors narrow from cluster to cluster.
        tie_projections: boolean. Whether the projections of clusters 1, 2, ... are the embedding's
            too, as in Transformer-XL's script; they follow the tables in `tables`, see
            `tied_tables`. The released DEQ code shares their storage but counts, and updates, them
            as separate parameters: that is `False`. The head's projection is never shared.
        use_bias: boolean. By default true, except for `form="torch"`, where it concerns the head
            only (clusters have no bias there).
        max_logits: integer, the largest number of logits of a cluster held at once in training.
        kernel_initializer: initializer of word vectors and cluster logits. By default `U(-0.1,
            0.1)` and zeros ("split"), `N(0, 0.02^2)` ("projected"), PyTorch's default ("torch").
        projection_initializer: initializer of the projections. By default `N(0, 0.01^2)`
            ("projected"), PyTorch's default ("torch").

    Call arguments:
        hidden: float tensor of shape `(..., d)`.
        tables: the tied matrices, or `None`.
        training, masks: accepted as every head does; not used.

    Output shape:
        `(..., V)`, log-probabilities in float32 at least.

    Raises:
        ValueError: if cut-offs do not rise, options do not fit the form, or `tables` does not
            fit `tied`.

    Example:

    >>> words = dict(vocabulary_size=1000, embedding_dim=32, cutoffs=[100, 400], div_value=4)
    >>> embedding = keras_seq.layers.AdaptiveEmbedding(output_dim=16, **words)
    >>> head = keras_seq.layers.AdaptiveSoftmax(form="projected", tied=True, **words)
    >>> hidden = embedding(np.array([[5, 250, 999]]))
    >>> tables = head.tied_tables(embedding)
    >>> head.nll(hidden, np.array([[250, 999, 5]]), tables=tables).shape
    TensorShape([1, 3])
    """

    facts = ("cutoffs",)

    def __init__(
        self,
        vocabulary_size: int,
        cutoffs: Sequence[int] = (),
        form: str = "split",
        tied: bool = False,
        embedding_dim: int | None = None,
        div_value: float = 1,
        tie_projections: bool = False,
        use_bias: bool | None = None,
        max_logits: int = 2**25,
        kernel_initializer: Any = None,
        projection_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied, **kwargs)
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}. Received: form={form!r}.")
        if form == "split" and (embedding_dim is not None or div_value != 1):
            raise ValueError(
                "With form='split' all words have vectors of the hidden state's width. Received: "
                f"embedding_dim={embedding_dim}, div_value={div_value}. Use form='projected'."
            )
        if form == "torch" and (tied or embedding_dim is not None):
            raise ValueError(
                "With form='torch' the head owns its weights, and frequent words have vectors of "
                f"the hidden state's width. Received: tied={tied}, embedding_dim={embedding_dim}. "
                "Use form='projected'."
            )
        if tie_projections and (form != "projected" or not tied):
            raise ValueError(
                "`tie_projections` needs form='projected' and tied=True. Received: "
                f"form={form!r}, tied={tied}."
            )
        if div_value < 1:
            raise ValueError(f"`div_value` must be at least 1. Received: div_value={div_value}.")
        if embedding_dim is not None and embedding_dim < 1:
            raise ValueError(
                f"`embedding_dim` must be positive. Received: embedding_dim={embedding_dim}."
            )
        if max_logits < 1:
            raise ValueError(f"`max_logits` must be positive. Received: max_logits={max_logits}.")
        self.cutoffs = check_cutoffs(cutoffs, self.vocabulary_size)
        self.form = form
        self.embedding_dim = embedding_dim
        self.div_value = div_value
        self.tie_projections = bool(tie_projections)
        self.use_bias = form != "torch" if use_bias is None else bool(use_bias)
        self.max_logits = int(max_logits)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection_initializer = keras.initializers.get(projection_initializer)

    @property
    def bounds(self) -> tuple[int, ...]:
        """The first id of every cluster, and the vocabulary size at the end."""
        return (0, *self.cutoffs, self.vocabulary_size)

    @property
    def _one_table(self) -> bool:
        """Whether the clusters are slices of one table of word vectors."""
        return self.form != "torch" and self.div_value == 1

    def build(self, hidden_shape):
        super().build(hidden_shape)
        width, clusters = hidden_shape[-1], len(self.bounds) - 1
        sizes = [high - low for low, high in zip(self.bounds, self.bounds[1:], strict=False)]
        sizes = [self.vocabulary_size] if self._one_table else sizes
        widths = cluster_widths(self.embedding_dim or width, self.div_value, clusters)
        if self.form == "torch":
            self._projected = [False] + [True] * (clusters - 1)
        elif self._one_table:
            self._projected = [widths[0] != width] * clusters
        else:
            self._projected = [True] * clusters
        self._tied_projections = 0  # how many of the embedding's projections come with `tables`
        if self.tie_projections and any(self._projected):
            self._tied_projections = 1 if self._one_table else clusters
        kernel_initializer, projection_initializer = self._initializers()

        def add(name, shape, initializer):
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.kernels, self.biases, self.projections = [], [], []
        for i, size in enumerate(sizes):
            if not self.tied:
                self.kernels.append(add(f"kernel_{i}", (size, widths[i]), kernel_initializer))
            if self.use_bias and (i == 0 or self.form != "torch"):
                self.biases.append(add(f"bias_{i}", (size,), "zeros"))
        for i in range(clusters):
            if self._projected[i] and (i == 0 or not self.tie_projections):
                shape = (width, widths[i])
                self.projections.append(add(f"projection_{i}", shape, projection_initializer))
        self.cluster_kernel = self.cluster_bias = None
        if clusters > 1:
            initializer = "zeros" if self.form == "split" else kernel_initializer
            shape = (clusters - 1, widths[0])
            self.cluster_kernel = add("cluster_kernel", shape, initializer)
            if self.use_bias:
                self.cluster_bias = add("cluster_bias", (clusters - 1,), "zeros")
        self.built = True

    def _initializers(self):
        """The initializers of word vectors and projections: given ones, or the form's own."""
        initializers = keras.initializers
        kernel, projection = {
            "split": (initializers.RandomUniform(-0.1, 0.1), None),
            "projected": (initializers.RandomNormal(0, 0.02), initializers.RandomNormal(0, 0.01)),
            # U(-1/sqrt(inputs), 1/sqrt(inputs)), PyTorch's default; kernels are (outputs, inputs)
            "torch": (
                initializers.VarianceScaling(1 / 3, "fan_out", "uniform"),
                initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
            ),
        }[self.form]
        return self.kernel_initializer or kernel, self.projection_initializer or projection

    def tied_tables(self, embedding) -> list:
        """The tables of an embedding and, with `tie_projections`, its projections after them."""
        tables = super().tied_tables(embedding)
        return [*tables, *embedding.projections] if self.tie_projections else tables

    def _clusters(self, tables) -> list[tuple]:
        """`(table, bias, projection)` of every cluster in the compute type; `None` if absent."""
        clusters = len(self.bounds) - 1
        count = 1 if self._one_table else clusters
        projections = list(self.projections)
        if not self.tied:
            self._table(tables, None)  # refuses tables that would be ignored
            tables = self.kernels
        elif tables is None or len(tables) not in (count, count + self._tied_projections):
            raise ValueError(
                f"{type(self).__name__} with `tied=True` needs `tables` of {count} matrices"
                f"{f' and {self._tied_projections} projections' if self._tied_projections else ''}."
                f" Received: tables={_describe(tables)}. `head.tied_tables(embedding)` gives them."
            )
        elif self._tied_projections:
            tied = tables[count:]
            projections += [tied[min(i, len(tied) - 1)] for i in range(1, clusters)]
            tables = tables[:count]
        tables = [self._cast(table) for table in tables]
        biases = [self._cast(bias) for bias in self.biases]
        projections = [self._cast(projection) for projection in projections]
        if self._one_table and self.cutoffs:
            # `split`, not slices: its gradient is one concatenation
            tables = ops.split(tables[0], self.cutoffs, axis=0)
            biases = ops.split(biases[0], self.cutoffs, axis=0) if biases else []
        biases += [None] * (clusters - len(biases))
        projections = iter(projections)
        projections = [next(projections) if there else None for there in self._projected]
        return list(zip(tables, biases, projections, strict=True))

    def _head(self, hidden, table, bias, projection):
        """Logits of the frequent words and, after them, one for every further cluster."""
        if projection is not None:
            hidden = ops.matmul(hidden, projection)
        if self.cluster_kernel is not None:
            table = ops.concatenate([table, self._cast(self.cluster_kernel)], axis=0)
            if bias is not None:
                bias = ops.concatenate([bias, self._cast(self.cluster_bias)], axis=0)
        return ops.cast(self._affine(hidden, table, bias), self.loss_dtype)

    def _column(self, cluster):
        """The head's column that holds the logit of a cluster (1, 2, ...)."""
        first, clusters = self.bounds[1], len(self.bounds) - 1
        return first + (cluster - 1 if self.form == "torch" else clusters - 1 - cluster)

    def call(self, hidden, tables=None, training=None, masks=None):
        hidden = ops.cast(ops.convert_to_tensor(hidden), self.compute_dtype)
        head, *tails = self._clusters(tables)
        head = ops.log_softmax(self._head(hidden, *head))
        parts = [head[..., : self.bounds[1]]]
        for i, (table, bias, projection) in enumerate(tails, start=1):
            states = hidden if projection is None else ops.matmul(hidden, projection)
            logits = ops.cast(self._affine(states, table, bias), self.loss_dtype)
            column = self._column(i)
            parts.append(ops.log_softmax(logits) + head[..., column : column + 1])
        return ops.concatenate(parts, axis=-1)

    def _nll(self, hidden, targets, tables, training, masks):
        shape = ops.shape(targets)
        hidden = ops.reshape(hidden, (-1, hidden.shape[-1]))
        targets = ops.reshape(targets, (-1,))
        head, *tails = self._clusters(tables)
        cluster = ops.zeros_like(targets)
        for cutoff in self.cutoffs:
            cluster += ops.cast(targets >= cutoff, "int32")
        in_head = ops.where(cluster == 0, targets, self._column(cluster))
        nll = ops.sparse_categorical_crossentropy(
            in_head, self._head(hidden, *head), from_logits=True
        )
        order = ops.cast(ops.argsort(cluster), "int32")
        start = ops.sum(ops.cast(cluster == 0, "int32"))
        for i, weights in enumerate(tails, start=1):
            count = ops.sum(ops.cast(cluster == i, "int32"))
            nll += cluster_nll(
                hidden,
                targets - self.cutoffs[i - 1],
                order,
                start,
                count,
                weights,
                self.max_logits,
                self.loss_dtype,
            )
            start += count
        return ops.reshape(nll, shape)

    def get_config(self):
        return {
            **super().get_config(),
            "cutoffs": self.cutoffs,
            "form": self.form,
            "embedding_dim": self.embedding_dim,
            "div_value": self.div_value,
            "tie_projections": self.tie_projections,
            "use_bias": self.use_bias,
            "max_logits": self.max_logits,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "projection_initializer": keras.initializers.serialize(self.projection_initializer),
        }
