"""Adaptive softmax: frequent words first, rare words in clusters."""

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.layers.cluster_nll import cluster_nll
from keras_seq.layers.softmax_head import SoftmaxHead, _describe

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
    """TODO"""

    def __init__(
        self,
        vocabulary_size: int,
        cutoffs=(),
        form: str = "split",
        tied: bool = False,
        embedding_dim: int | None = None,
        div_value: float = 1,
        tie_projections: bool = False,
        use_bias: bool | None = None,
        max_logits: int = 2**24,
        kernel_initializer=None,
        projection_initializer=None,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied, **kwargs)
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}. Received: form={form!r}")
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
                f"form={form!r}, tied={tied}"
            )
        if div_value < 1:
            raise ValueError(f"`div_value` must be at least 1. Received: div_value={div_value}")
        if max_logits < 1:
            raise ValueError(f"`max_logits` must be positive. Received: max_logits={max_logits}")
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
