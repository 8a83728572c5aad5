"""Mean negative log-likelihood, perplexity and bits per character."""

import math
from typing import Any

import keras
from keras import ops

from keras_seq._export import export


@export("keras_seq.metrics.NegativeLogLikelihood")
class NegativeLogLikelihood(keras.metrics.Metric):
    """Mean negative log-likelihood per token, in nats.

    The state is two sums, of weighted losses and of weights, so it adds up over the replicas of a
    `tf.distribute` strategy. Both are float64: a float32 sum stops counting tokens at 2^24. (On a
    backend without float64, they are float32.) The result of a metric that saw no token is 0.

    Args:
        from_logits: boolean. Whether `y_pred` holds logits or log-probabilities (what the models
            of this library return) instead of probabilities.
        mask_token_id: optional integer; targets with this id do not count.
        name: optional string; the class in snake case by default.
        dtype: the type of the result.

    Call arguments:
        y_true: integer tensor of shape `(...)`, the targets.
        y_pred: float tensor of shape `(..., V)`.
        sample_weight: optional weights that broadcast to `(...)`; those with fewer axes, such as
            one weight an example, apply to everything under their axes.

    Example:

    >>> metric = keras_seq.metrics.NegativeLogLikelihood()
    >>> metric.update_state(np.array([[0, 1]]), np.array([[[0.5, 0.5], [0.75, 0.25]]]))
    >>> round(float(metric.result()), 4)  # the mean of log 2 and log 4
    1.0397
    >>> metric.update_from_nll(np.array([2.0, 3.0]), sample_weight=np.array([1.0, 0.0]))
    >>> float(metric.tokens)
    3.0
    """

    _default_name = "negative_log_likelihood"

    def __init__(
        self,
        from_logits: bool = False,
        mask_token_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(name=name or self._default_name, dtype=dtype)
        self.from_logits = bool(from_logits)
        self.mask_token_id = mask_token_id
        self._direction = "down"  # read by Keras' callbacks whose mode is "auto"
        self._total = self.add_variable((), "zeros", dtype="float64", name="total")
        self._tokens = self.add_variable((), "zeros", dtype="float64", name="tokens")

    @property
    def tokens(self):
        """The sum of the weights so far: the number of tokens if they are one or zero."""
        return ops.convert_to_tensor(self._tokens)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.convert_to_tensor(y_true)
        y_pred = ops.convert_to_tensor(y_pred)
        if y_pred.dtype in ("float16", "bfloat16"):
            y_pred = ops.cast(y_pred, "float32")
        if self.mask_token_id is not None:
            counts = ops.cast(ops.not_equal(y_true, self.mask_token_id), "float32")
            sample_weight = counts * _align(1.0 if sample_weight is None else sample_weight, counts)
            y_true = ops.where(counts > 0, y_true, ops.zeros_like(y_true))
        nll = ops.sparse_categorical_crossentropy(
            ops.cast(y_true, "int32"), y_pred, from_logits=self.from_logits
        )
        self.update_from_nll(nll, sample_weight)

    def update_from_nll(self, nll, sample_weight=None):
        """Adds losses that were computed already.

        Args:
            nll: float tensor of shape `(...)`, negative log-likelihoods in nats.
            sample_weight: optional weights, as in `update_state`. A loss of weight zero is left
                out even if it is not finite.
        """
        nll = ops.cast(ops.convert_to_tensor(nll), self._total.dtype)
        if sample_weight is None:
            weight = ops.ones_like(nll)
        else:
            weight = ops.broadcast_to(_align(sample_weight, nll), ops.shape(nll))
            weight = ops.cast(weight, nll.dtype)
            nll = ops.where(weight == 0, ops.zeros_like(nll), nll)
        self._total.assign_add(ops.sum(nll * weight))
        self._tokens.assign_add(ops.sum(weight))

    def _mean(self):
        """Mean loss, zero without tokens."""
        return ops.divide_no_nan(self._total, self._tokens)

    def result(self):
        return ops.cast(self._mean(), self.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "mask_token_id": self.mask_token_id,
        }


def _align(weight, nll):
    """Weights with axes of size one added at the end, up to those of `nll`."""
    weight = ops.convert_to_tensor(weight)
    if len(weight.shape) > len(nll.shape):
        raise ValueError(
            "`sample_weight` must not have more axes than the targets. Received: "
            f"sample_weight.shape={tuple(weight.shape)}, targets of shape {tuple(nll.shape)}."
        )
    for _ in range(len(nll.shape) - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return ops.cast(weight, nll.dtype)


@export("keras_seq.metrics.Perplexity")
class Perplexity(NegativeLogLikelihood):
    """Perplexity: the exponential of the mean negative log-likelihood per token.

    Arguments and updates are those of `NegativeLogLikelihood`. The result of a metric that saw no
    token is 0, which no model reaches (the least perplexity is 1).

    Example:

    >>> metric = keras_seq.metrics.Perplexity(from_logits=True)
    >>> metric.update_state(np.array([[3, 1]]), np.zeros((1, 2, 50)))
    >>> round(float(metric.result()), 3)  # all 50 words are equally likely
    50.0
    """

    _default_name = "perplexity"

    def result(self):
        perplexity = ops.exp(self._mean())
        perplexity = ops.where(self._tokens == 0, ops.zeros_like(perplexity), perplexity)
        return ops.cast(perplexity, self.dtype)


@export("keras_seq.metrics.BitsPerCharacter")
class BitsPerCharacter(NegativeLogLikelihood):
    """Bits per character: the mean negative log-likelihood per token in base two.

    Arguments and updates are those of `NegativeLogLikelihood`; the tokens are meant to be
    characters. The result of a metric that saw no token is 0.

    Example:

    >>> metric = keras_seq.metrics.BitsPerCharacter(from_logits=True)
    >>> metric.update_state(np.array([[3, 1]]), np.zeros((1, 2, 64)))
    >>> round(float(metric.result()), 3)  # 64 equally likely characters
    6.0
    """

    _default_name = "bits_per_character"

    def result(self):
        return ops.cast(self._mean() / math.log(2), self.dtype)
