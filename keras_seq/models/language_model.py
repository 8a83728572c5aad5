"""A language model: embedding, causal core, softmax head."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_seq import _replicas
from keras_seq import metrics as seq_metrics
from keras_seq._export import export
from keras_seq.layers import EmbeddingDropout, SoftmaxHead, TiedSoftmax, VariationalDropout
from keras_seq.losses import activation_regularization, temporal_activation_regularization
from keras_seq.models import _backend
from keras_seq.models.cores import check_core, core_of
from keras_seq.models.padded_rows import PaddedRows, inputs_shape
from keras_seq.models.sample_weights import for_each_step, without_unread
from keras_seq.models.sequence_model import LossTerms, SequenceModel, auxiliary_loss
from keras_seq.models.targets import (
    as_array,
    check_ignored,
    check_targets,
    existing_ids,
    marked,
    shape_in_words,
    with_shape,
)
from keras_seq.models.valid_steps import mask_in_arrays


class Features(NamedTuple):
    """Hidden values of a language model before its head.

    Attributes:
        outputs: (b, t, d) what the head reads: the core's output after output dropout.
        raw: (b, t, d) the core's output itself.
        auxiliary: (b, m, t, d) outputs of earlier levels, after dropout; `None` without them.
        state: the final state; `None` if it was not asked for.
    """

    outputs: Any
    raw: Any
    auxiliary: Any
    state: Any


@export("keras_seq.models.LanguageModel")
class LanguageModel(PaddedRows, SequenceModel):
    """Predicts each next token: embedding → causal core → head.

    The model owns its loss: `fit` takes pairs (ids, targets) and minimises

        mean(NLL) + λ Σₘ mean(NLLₘ) + α mean(h²) + β mean((rₜ₊₁ − rₜ)²)

    with the auxiliary outputs m of the core (deep supervision: TrellisNet, section 4.2), the core's
    output r and the same after dropout h (activation and temporal-activation regularisation: Merity
    et al., 2017).

    Two ways of training on a long text:

    * *effective history*: windows overlap by `history` steps, and the first `history` outputs of a
      window carry no loss. Data with a weight for each token, (b, t), say themselves which tokens
      count, and `history` is not applied to them.
    * *repackaging* (`carry_state=True`): windows are disjoint and the final state of one is the
      initial state of the next, without gradient; the state kind is the core's own
      (`TrellisNet(state="history")` is the paper's).

    Args:
        vocabulary_size: number of tokens v.
        embedding_dim: width e of the embedding.
        core: a `keras_seq.layers.CausalLayer` (b, t, e) → (b, t, d), or any Keras layer with
            `call(x, initial_state, return_state, training)` and `get_initial_state(batch_size)`.
        head: `"tied"` (softmax with the embedding's table, d = e), `"softmax"` (with its own
            kernel), or a `SoftmaxHead`. A head with `tied=True` reads the embedding's tables.
        embedding: a layer ids → (b, t, e) with a property `tables`, or `None` for
            `keras.layers.ReversibleEmbedding`.
        embedding_dropout: rate at which rows of the embedding are dropped.
        input_dropout: rate of variational dropout between embedding and core.
        output_dropout: rate of variational dropout between core and head.
        auxiliary_weight: λ. The core must have auxiliary outputs if it is not zero.
        activation_regularization: α.
        temporal_activation_regularization: β.
        history: leading outputs of a window that carry no loss.
        carry_state: carry the state from batch to batch in `fit` and `evaluate`.
        ignore_class: a target that does not count, such as -1 or the id of padding, or `None`.
        mask_zero: whether the id 0 in the inputs is padding, as with `keras.layers.Embedding`.
            Targets do not follow it: name the id as `ignore_class` if it is none that counts.
        seed: seed of the dropout masks and of the embedding.
        **kwargs: of `keras.Model`.

    Call arguments:
        ids: (b, t) token ids; or a dictionary of them as `"ids"` or `"inputs"` with `"lengths"`
            (b,) or `"mask"` (b, t).
        initial_state: a state from `get_initial_state` or an earlier call.
        return_state: also return the final state.
        training: whether dropout is on.
        masks: dropout masks from `get_masks` to use instead of fresh ones.
        mask: (b, t), true at valid steps; `None` for that of Keras that the ids carry, or none.

    Output shape:
        (b, t, v) log-probabilities of the next token in float32; with `return_state`, a pair with
        the state.

    Raises:
        ValueError: where the sizes of embedding, core and head do not fit.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=24, output_units=16, levels=6)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=50, embedding_dim=16, core=core)
    >>> model.compile("adam")
    >>> ids = np.random.randint(0, 50, (8, 20))
    >>> history = model.fit(ids, np.roll(ids, -1, axis=1), verbose=0)
    """

    vocabulary_size: int
    inputs_are_ids = True

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        core: keras.layers.Layer,
        head: str | SoftmaxHead = "tied",
        embedding: keras.layers.Layer | None = None,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        auxiliary_weight: float = 0.0,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        history: int = 0,
        carry_state: bool = False,
        ignore_class: int | None = None,
        seed: int | None = None,
        mask_zero: bool = False,
        **kwargs,
    ):
        super().__init__(carry_state=carry_state, **kwargs)
        self.ignore_class = check_ignored(ignore_class)
        if vocabulary_size < 1 or embedding_dim < 1:
            raise ValueError(
                "`vocabulary_size` and `embedding_dim` must be positive. Received: "
                f"vocabulary_size={vocabulary_size}, embedding_dim={embedding_dim}."
            )
        if history < 0:
            raise ValueError(f"`history` must not be negative. Received: history={history}.")
        check_core(core, auxiliary_weight, type(self).__name__)
        self.mask_zero = bool(mask_zero)
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.auxiliary_weight = auxiliary_weight
        self.activation_regularization = activation_regularization
        self.temporal_activation_regularization = temporal_activation_regularization
        self.history_steps = history
        self.seed = seed

        policy = self.dtype_policy
        self._own_embedding = embedding is not None
        self.embedding = embedding or keras.layers.ReversibleEmbedding(
            vocabulary_size,
            embedding_dim,
            tie_weights=True,
            embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1, seed=seed),
            dtype=policy,
            name="embedding",
        )
        self.core = core
        self.head = _get_head(head, vocabulary_size, policy)
        self.embedding_dropout = EmbeddingDropout(
            embedding_dropout, vocabulary_size, seed=seed, dtype=policy, name="embedding_dropout"
        )
        self.input_dropout = VariationalDropout(
            input_dropout, seed=_next(seed, 1), dtype=policy, name="input_dropout"
        )
        self.output_dropout = VariationalDropout(
            output_dropout, seed=_next(seed, 2), dtype=policy, name="output_dropout"
        )
        self.auxiliary_dropout = VariationalDropout(
            output_dropout, seed=_next(seed, 3), dtype=policy, name="auxiliary_dropout"
        )
        self._perplexity = seq_metrics.Perplexity(name="perplexity")
        self._bits = seq_metrics.BitsPerCharacter(name="bits")
        self._nll = seq_metrics.NegativeLogLikelihood(name="nll")
        self._tokens = seq_metrics.TokenCount(name="tokens")

    def build(self, input_shape=(None, None)):
        if self.built:
            return
        input_shape = inputs_shape(input_shape)
        if not self.embedding.built:
            self.embedding.build(input_shape)
        if not self.core.built:
            self.core.build((None, None, self.embedding_dim))
        output = self.core.compute_output_shape((None, None, self.embedding_dim))
        if isinstance(output, list):
            output = output[0]
        tied = isinstance(self.head, TiedSoftmax) and self.head.tied
        if tied and output[-1] != self.embedding_dim:
            raise ValueError(
                "A tied head scores the core's output with the embedding's vectors, so both must "
                f"be of one width. Received: embedding_dim={self.embedding_dim}, and a core whose "
                f"output has width {output[-1]}. Make them equal, or choose head='softmax'."
            )
        if not self.head.built:
            self.head.build(tuple(output))
        wide, embedded = tuple(output), (None, None, self.embedding_dim)
        self.finish_build(
            (self.embedding_dropout, embedded),
            (self.input_dropout, embedded),
            (self.output_dropout, wide),
            (self.auxiliary_dropout, wide),
        )

    # Inference

    def call(
        self, ids, initial_state=None, return_state=False, training=None, masks=None, mask=None
    ):
        masks = self._masks(ids, training, masks)
        features = self.features(ids, initial_state, return_state, training, masks=masks, mask=mask)
        outputs = self.head(
            features.outputs, tables=self.tables, training=training, masks=masks.get("head", {})
        )
        return (outputs, features.state) if return_state else outputs

    def get_initial_state(self, batch_size, kind: str | None = None):
        self.build()  # a state may have the width of past inputs
        return super().get_initial_state(batch_size, kind)

    @property
    def tables(self) -> list | None:
        """The embedding's tables, where the head is tied to them; else `None`."""
        return self.head.tied_tables(self.embedding) if self.head.tied else None

    def features(
        self,
        ids,
        initial_state=None,
        return_state: bool = False,
        training: bool | None = None,
        return_auxiliary: bool = False,
        masks: dict[str, Any] | None = None,
        mask: Any = None,
    ) -> Features:
        """Everything before the head.

        Args:
            ids: (b, t) token ids, or the dictionary that a call takes.
            initial_state: a state, or `None` for zero.
            return_state: whether to return the final state.
            training: whether dropout is on.
            return_auxiliary: whether to return the core's auxiliary outputs.
            masks: dropout masks of `get_masks`; drawn if `None` in training.
            mask: (b, t), true at valid steps; `None` where all are. At masked steps the features
                are those of the last valid step, and zeros before the first.
        """
        masks = self._masks(ids, training, masks)
        ids, steps = self.rows_of(ids, mask)
        ids = existing_ids(ids, self.vocabulary_size)
        x = self.embedding(ids)
        # Dropout is in the masks alone, whatever the call around this one is for.
        x = self.embedding_dropout(x, ids, training=False, dropout_mask=masks.get("embedding"))
        x = self.input_dropout(x, training=False, dropout_mask=masks.get("input"))
        options: dict[str, Any] = {}
        if return_auxiliary:
            options["return_auxiliary"] = True
        if steps is not None:
            options["mask"] = steps.mask
        result = core_of(self.core)(
            x,
            initial_state=initial_state,
            return_state=return_state,
            training=training,
            masks=masks.get("core", {}),
            **options,
        )
        result = list(result) if isinstance(result, tuple | list) else [result]
        raw = result.pop(0)
        auxiliary = result.pop(0) if return_auxiliary else None
        state = result.pop(0) if return_state else None
        if steps is not None:
            raw = steps.place(raw)
        if steps is not None and auxiliary is not None:
            auxiliary = ops.moveaxis(steps.place(ops.moveaxis(auxiliary, 2, 1)), 1, 2)
        outputs = self.output_dropout(raw, training=False, dropout_mask=masks.get("output"))
        if auxiliary is not None and masks.get("auxiliary") is not None:
            auxiliary = auxiliary * ops.cast(masks["auxiliary"], auxiliary.dtype)
        return Features(outputs, raw, auxiliary, state)

    def check_inputs(self, ids) -> None:
        if len(ids.shape) != 2:
            raise ValueError(
                "`ids` must be token ids of shape (b, t). Received: ids of shape "
                f"{shape_in_words(tuple(ids.shape))}."
            )

    def get_masks(self, batch_size) -> dict[str, Any]:
        """Draws the dropout masks of one training call.

        Returns:
            A dictionary: `embedding` (v, 1), `input` (b, 1, e), `core` (the core's own), `output`
            (b, 1, d), `auxiliary` (b, m, 1, d), `head` and `auxiliary_head` (the head's own); each
            already holds the factor 1 / (1 - rate), and rates of zero have no entry.
        """
        masks: dict[str, Any] = {}
        if self.embedding_dropout.rate:
            masks["embedding"] = self.embedding_dropout.get_mask()
        if self.input_dropout.rate:
            masks["input"] = self.input_dropout.get_mask(batch_size, self.embedding_dim)
        core = core_of(self.core)
        masks["core"] = core.get_masks(batch_size)
        levels = len(core.auxiliary_levels)
        if self.output_dropout.rate:
            width = core.output_units
            masks["output"] = self.output_dropout.get_mask(batch_size, width)
            if levels and self.auxiliary_weight:
                mask = self.auxiliary_dropout.get_mask(batch_size, levels * width)
                masks["auxiliary"] = ops.reshape(mask, (batch_size, levels, 1, width))
        masks["head"] = self.head.get_masks(batch_size)
        if levels and self.auxiliary_weight:
            masks["auxiliary_head"] = {
                name: ops.reshape(mask, (batch_size, levels, 1, -1))
                for name, mask in self.head.get_masks(batch_size * levels).items()
            }
        return masks

    def _masks(self, ids, training, masks) -> dict[str, Any]:
        if masks is not None:
            return masks
        return self.get_masks(ops.shape(self.parts_of(ids).x)[0]) if training else {}

    # Training

    def token_losses(self, ids, targets, initial_state=None, training=None, masks=None, mask=None):
        """Negative log-likelihood of each target, in nats.

        Args:
            ids: (b, t) token ids, or the dictionary that a call takes.
            targets: (b, t) the tokens that follow.
            initial_state: a state, or `None` for zero.
            training: whether dropout is on.
            masks: dropout masks of `get_masks`.
            mask: (b, t), true at valid steps; `None` where all are.

        Returns:
            (b, t) in float32; zero at masked steps.
        """
        self.build()
        masks = self._masks(ids, training, masks)
        features = self.features(ids, initial_state, training=training, masks=masks, mask=mask)
        valid = self.compute_mask(ids, mask)
        if valid is not None:
            targets = ops.where(valid, targets, ops.zeros_like(targets))
        losses = self._head_nll(features.outputs, targets, training, masks.get("head", {}))
        return losses if valid is None else ops.where(valid, losses, ops.zeros_like(losses))

    def loss_terms(self, x, y, sample_weight=None, initial_state=None, training=None) -> LossTerms:
        with _backend.outside_graphs():
            self.build()
        masks = self._masks(x, training, None)
        supervised = bool(training and self.auxiliary_weight)
        x, steps = self.rows_of(x)
        y = self._targets_of(x, y)
        # Weights of each token say which tokens count; those of each window do not.
        start = 0 if for_each_step(sample_weight, y) else self.history_steps
        mask, counted = None, None
        if steps is not None:
            mask, counted, y = steps.mask, steps.mask[:, start:], steps.pack(y)
        if steps is not None and for_each_step(sample_weight, y):
            sample_weight = steps.pack(sample_weight)
        targets, weights = self.scored(
            y[:, start:], sample_weight, self.head.loss_dtype, training, counted
        )
        if start == 0 and not self.carry_state:
            x = without_unread(x, weights)
        features = self.features(
            x,
            initial_state,
            return_state=self.carry_state,
            training=training,
            return_auxiliary=supervised,
            masks=masks,
            mask=mask,
        )
        outputs, raw = features.outputs[:, start:], features.raw[:, start:]
        nll = self._head_nll(outputs, targets, training, masks.get("head", {}))
        objective, penalty = nll, None
        if supervised:
            auxiliary = features.auxiliary[:, :, start:]
            repeated = ops.repeat(targets[:, None], ops.shape(auxiliary)[1], axis=1)
            head_masks = masks.get("auxiliary_head", {})
            objective = nll + self.auxiliary_weight * auxiliary_loss(
                self.core,
                masks.get("core"),
                lambda: self._head_nll(auxiliary, repeated, training, head_masks),
                nll,
            )
        if training:
            penalty = self._penalty(outputs, raw, None if weights is None else weights != 0)
        predictions = None
        if self.wants_predictions:
            predictions = self.head(outputs, tables=self.tables)
        return LossTerms(objective, weights, penalty, nll, predictions, targets, features.state)

    def _penalty(self, outputs, raw, counts):
        """The regularisers of activations; on replicas, each with the number of its steps."""
        alpha, beta = self.activation_regularization, self.temporal_activation_regularization
        means = (
            activation_regularization(outputs, alpha, counts),
            temporal_activation_regularization(raw, beta, counts),
        )
        if counts is None or _replicas.replica_count() == 1:
            return means[0] + means[1]
        pairs = ops.logical_and(counts[:, 1:], counts[:, :-1])
        return tuple(
            (mean, ops.sum(ops.cast(counted, mean.dtype)))
            for mean, counted in zip(means, (counts, pairs), strict=True)
        )

    def _head_nll(self, hidden, targets, training, masks):
        nll = self.head.nll(hidden, targets, tables=self.tables, training=training, masks=masks)
        if _backend.refuses_labels():
            return nll
        return marked(nll, targets, self.vocabulary_size)

    def _targets_of(self, ids, targets):
        """Targets after a check of their shape."""
        shape = tuple(ids.shape)
        check_targets(
            targets,
            [shape],
            (*shape, self.vocabulary_size),
            "the token that follows each token",
            "For a text give ids[:, :-1] and ids[:, 1:]; for one label a sequence use a "
            "SequenceClassifier.",
        )
        return with_shape(targets, ops.shape(ids))

    @property
    def label_count(self) -> int:
        return self.vocabulary_size

    def check_arrays(self, x, y=None, sample_weight=None) -> None:
        labels = as_array(y)
        if labels is not None and labels.ndim == 2 and not for_each_step(sample_weight, labels):
            mask = mask_in_arrays(self.parts_of(x), self.mask_zero)
            if mask is None:
                y = labels[:, self.history_steps :]
            elif mask.shape == labels.shape:
                y = np.where(np.cumsum(mask, axis=1) > self.history_steps, labels, 0)
        super().check_arrays(x, y, sample_weight)

    def update_metrics(self, terms: LossTerms) -> None:
        self._nll.update_from_nll(terms.report, terms.weights)
        self._perplexity.update_from_nll(terms.report, terms.weights)
        self._bits.update_from_nll(terms.report, terms.weights)
        self._tokens.update_state(terms.report, sample_weight=terms.weights)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._nll, self._perplexity, self._bits, self._tokens]

    def input_spec_for_export(self) -> keras.InputSpec:
        return keras.InputSpec(dtype="int32", shape=(None, None))

    # Configuration

    def given_layers(self) -> list:
        return [self.core, self.head, *([self.embedding] if self._own_embedding else [])]

    def get_config(self) -> dict[str, Any]:
        return {
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "core": keras.saving.serialize_keras_object(self.core),
            "head": keras.saving.serialize_keras_object(self.head),
            "embedding": keras.saving.serialize_keras_object(self.embedding)
            if self._own_embedding
            else None,
            "embedding_dropout": self.embedding_dropout.rate,
            "input_dropout": self.input_dropout.rate,
            "output_dropout": self.output_dropout.rate,
            "auxiliary_weight": self.auxiliary_weight,
            "activation_regularization": self.activation_regularization,
            "temporal_activation_regularization": self.temporal_activation_regularization,
            "history": self.history_steps,
            "carry_state": self.carry_state,
            **self.frozen_config(),
            "ignore_class": self.ignore_class,
            "mask_zero": self.mask_zero,
            **self.quantized_config(),
            "seed": self.seed,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("core", "head", "embedding", "dtype"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return super().from_config(config)


def _get_head(head, vocabulary_size: int, policy) -> SoftmaxHead:
    """A head from its name or itself."""
    if head == "tied":
        return TiedSoftmax(vocabulary_size, tied=True, dtype=policy, name="head")
    if head == "softmax":
        return TiedSoftmax(vocabulary_size, tied=False, dtype=policy, name="head")
    if isinstance(head, SoftmaxHead):
        if head.vocabulary_size != vocabulary_size:
            raise ValueError(
                "`head` must have the model's `vocabulary_size`. Received: "
                f"head.vocabulary_size={head.vocabulary_size}, vocabulary_size={vocabulary_size}."
            )
        return head
    raise ValueError(f"`head` must be 'tied', 'softmax' or a SoftmaxHead. Received: head={head!r}.")


def _next(seed: int | None, step: int) -> int | None:
    return None if seed is None else seed + step
