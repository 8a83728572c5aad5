"""Mixture of softmaxes."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_rate, fan_in_uniform
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.softmax_head import SoftmaxHead

EPSILON = 1e-8  # added to the mixed probability before the logarithm, as in the published code


@export("keras_seq.layers.MixtureOfSoftmaxes")
class MixtureOfSoftmaxes(SoftmaxHead):
    """A mixture of K softmaxes over one shared set of word vectors.

    Yang et al., *Breaking the Softmax Bottleneck: A High-Rank RNN Language Model* (2018), section
    2.3. With h the hidden state and m the variational dropout mask of the latent vectors:

    ```
    prior  = softmax(W_p h + b_p)                                  (K,)
    latent = tanh(m * (W_l h + b_l))                               (K, e)
    p(w)   = sum_k prior_k softmax(E latent_k + b)_w
    output = log(p + 1e-8)
    ```

    The output is not renormalised after the 1e-8, so the probabilities sum to `1 + V * 1e-8`:
    this is what the published figures of TrellisNet (Appendix B, "MoS") were computed with. The two
    linear maps start from the default of PyTorch's linear layer, `U(-1/sqrt(d), 1/sqrt(d))`.

    Args:
        vocabulary_size: integer V, the number of words.
        experts: integer K, the number of softmaxes.
        embedding_dim: integer e, the width of the word vectors.
        latent_dropout: float in [0, 1). The rate of the variational dropout on the latent vectors.
        tied: boolean. Whether the word vectors come with each call as `tables=[embeddings]`.
        kernel_initializer: initializer of the head's own word vectors (V, e), with `tied=False`.
            Defaults to `U(-0.1, 0.1)`.
        seed: optional integer, the seed of the layer's own random generator.

    Call arguments:
        hidden: float tensor of shape `(b, ..., t, d)`; any width d.
        tables: a list of one matrix of shape `(V, e)`; `None` if not tied.
        training: boolean; whether latent dropout is applied.
        masks: optional dictionary, `{"latent": (b, ..., 1, K * e)}`, used in place of a drawn mask;
            an empty dictionary means none.

    Output shape:
        `(..., V)`, log-probabilities in float32 at least.

    Raises:
        ValueError: if a size is not positive, or `tables` does not fit `tied`.

    Example:

    >>> head = keras_seq.layers.MixtureOfSoftmaxes(100, experts=3, embedding_dim=8, tied=False)
    >>> head(np.ones((2, 5, 12))).shape
    TensorShape([2, 5, 100])
    """

    facts = ("experts",)

    def __init__(
        self,
        vocabulary_size: int,
        experts: int,
        embedding_dim: int,
        latent_dropout: float = 0.0,
        tied: bool = True,
        kernel_initializer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied, **kwargs)
        for name, value in (("experts", experts), ("embedding_dim", embedding_dim)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}.")
        self.experts = int(experts)
        self.embedding_dim = int(embedding_dim)
        self.latent_dropout = check_rate(latent_dropout, "latent_dropout")
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomUniform(-0.1, 0.1)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, hidden_shape):
        super().build(hidden_shape)
        width, latent = hidden_shape[-1], self.experts * self.embedding_dim
        limit = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        self.prior_kernel = self.add_weight(
            shape=(width, self.experts), initializer=fan_in_uniform(), name="prior_kernel"
        )
        self.prior_bias = self.add_weight(
            shape=(self.experts,), initializer=limit, name="prior_bias"
        )
        self.latent_kernel = self.add_weight(
            shape=(width, latent), initializer=fan_in_uniform(), name="latent_kernel"
        )
        self.latent_bias = self.add_weight(shape=(latent,), initializer=limit, name="latent_bias")
        self.kernel = None
        if not self.tied:
            self.kernel = self.add_weight(
                shape=(self.vocabulary_size, self.embedding_dim),
                initializer=self.kernel_initializer,
                name="kernel",
            )
        self.bias = self.add_weight(shape=(self.vocabulary_size,), initializer="zeros", name="bias")
        self.built = True

    def get_masks(self, batch_size) -> dict:
        """Draws the masks of one call: `{"latent": (batch_size, 1, experts * embedding_dim)}`."""
        return {"latent": self._draw((batch_size, 1, self.experts * self.embedding_dim))}

    def _draw(self, shape):
        seed = draw_seed(self.seed_generator)
        return bernoulli_mask(shape, self.latent_dropout, seed, self.compute_dtype)

    def _components(self, hidden, tables, training, masks):
        """Log-priors `(..., K)` and logits `(..., K, V)`, both in the loss type."""
        hidden = ops.cast(ops.convert_to_tensor(hidden), self.compute_dtype)
        prior = ops.matmul(hidden, self._cast(self.prior_kernel)) + self._cast(self.prior_bias)
        prior = ops.softmax(ops.cast(prior, self.loss_dtype))
        latent = ops.matmul(hidden, self._cast(self.latent_kernel)) + self._cast(self.latent_bias)
        if masks is None and training and self.latent_dropout:
            shape = ops.shape(latent)
            lead = (*shape[:-2], 1) if len(shape) > 2 else shape[:-1]
            masks = {"latent": self._draw((*lead, shape[-1]))}
        if masks and masks.get("latent") is not None:
            latent = latent * ops.cast(masks["latent"], latent.dtype)
        lead = ops.shape(latent)[:-1]
        latent = ops.reshape(ops.tanh(latent), (*lead, self.experts, self.embedding_dim))
        logits = self._affine(latent, self._table(tables, self.kernel), self.bias)
        return prior, ops.cast(logits, self.loss_dtype)

    def call(self, hidden, tables=None, training=None, masks=None):
        prior, logits = self._components(hidden, tables, training, masks)
        mixed = ops.einsum("...k,...kv->...v", prior, ops.softmax(logits))
        return ops.log(mixed + EPSILON)

    def _nll(self, hidden, targets, tables, training, masks):
        prior, logits = self._components(hidden, tables, training, masks)
        targets = ops.broadcast_to(ops.expand_dims(targets, -1), ops.shape(prior))
        nll = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return -ops.log(ops.sum(prior * ops.exp(-nll), axis=-1) + EPSILON)

    def get_config(self):
        return {
            **super().get_config(),
            "experts": self.experts,
            "embedding_dim": self.embedding_dim,
            "latent_dropout": self.latent_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
