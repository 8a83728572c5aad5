"""Models that read a whole sequence: one class or value for each sequence or each step."""

from typing import Any

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.layers import VariationalDropout
from keras_seq.models.sequence_model import LossTerms, SequenceModel, auxiliary_loss


class SequenceReader(SequenceModel):
    """Abstract base of `SequenceClassifier` and `SequenceRegressor`: (embedding →) core → dense.

    Args:
        core: a causal layer (b, t, d) → (b, t, o).
        outputs: width of the dense layer.
        vocabulary_size: for integer inputs (b, t), the number of their values; `None` for float
            inputs (b, t, d).
        embedding_dim: width of the embedding of integer inputs.
        return_sequences: predict at every step instead of at the last one.
        input_dropout: rate of variational dropout before the core.
        output_dropout: rate of variational dropout between core and dense layer.
        auxiliary_weight: λ, weight of the loss of the core's auxiliary outputs.
        seed: seed of the dropout masks.
        **kwargs: of `keras.Model`.
    """

    given_parts = ("core",)

    def __init__(
        self,
        core: keras.layers.Layer,
        outputs: int,
        vocabulary_size: int | None = None,
        embedding_dim: int | None = None,
        return_sequences: bool = False,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        auxiliary_weight: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if (vocabulary_size is None) != (embedding_dim is None):
            raise ValueError(
                "`vocabulary_size` and `embedding_dim` must be given together. Received: "
                f"vocabulary_size={vocabulary_size}, embedding_dim={embedding_dim}."
            )
        if auxiliary_weight and not getattr(core, "auxiliary_levels", ()):
            raise ValueError(
                "`auxiliary_weight` needs a core with auxiliary outputs. Received: "
                f"auxiliary_weight={auxiliary_weight}. Set the core's `auxiliary_frequency`."
            )
        self.core = core
        self.outputs_width = outputs
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.return_sequences = return_sequences
        self.auxiliary_weight = auxiliary_weight
        self.seed = seed
        policy = self.dtype_policy
        self.features: int | None = None
        self.embedding = None
        if vocabulary_size is not None:
            self.embedding = keras.layers.Embedding(
                vocabulary_size, embedding_dim, dtype=policy, name="embedding"
            )
        self.input_dropout = VariationalDropout(
            input_dropout, seed=seed, dtype=policy, name="input_dropout"
        )
        self.output_dropout = VariationalDropout(
            output_dropout,
            seed=None if seed is None else seed + 1,
            dtype=policy,
            name="output_dropout",
        )
        self.dense = keras.layers.Dense(outputs, dtype=policy, name="dense")

    def build(self, input_shape=None):
        if self.built:
            return
        if self.embedding is not None:
            self.embedding.build((None, None))
            shape = (None, None, self.embedding_dim)
        elif input_shape is None:
            raise ValueError("A model of float inputs is built with their shape (b, t, d).")
        else:
            shape = (None, None, input_shape[-1])
            self.features = input_shape[-1]
        if not self.core.built:
            self.core.build(shape)
        output = self.core.compute_output_shape(shape)
        output = output[0] if isinstance(output, list) else output
        self.dense.build(tuple(output))
        self.built = True

    def call(
        self,
        inputs,
        initial_state=None,
        return_state=False,
        training=None,
        return_auxiliary=False,
        masks=None,
    ):
        x = inputs if self.embedding is None else self.embedding(inputs)
        x = self.input_dropout(x, training=training)
        options: dict[str, Any] = {"return_auxiliary": True} if return_auxiliary else {}
        if masks is not None and hasattr(self.core, "get_masks"):
            options["masks"] = masks
        result = self.core(
            x,
            initial_state=initial_state,
            return_state=return_state,
            training=training,
            **options,
        )
        result = list(result) if isinstance(result, tuple | list) else [result]
        hidden = result.pop(0)
        hidden = hidden if self.return_sequences else hidden[:, -1:]
        outputs = self.predict_from(self.output_dropout(hidden, training=training))
        results = [outputs if self.return_sequences else outputs[:, 0]]
        if return_auxiliary:
            auxiliary = result.pop(0)
            auxiliary = auxiliary if self.return_sequences else auxiliary[:, :, -1:]
            auxiliary = self.predict_from(auxiliary)
            results.append(auxiliary if self.return_sequences else auxiliary[:, :, 0])
        if return_state:
            results.append(result.pop(0))
        return results[0] if len(results) == 1 else tuple(results)

    def predict_from(self, hidden):
        """Predictions from the core's output."""
        raise NotImplementedError

    def element_losses(self, y, predictions):
        """The loss of each prediction."""
        raise NotImplementedError

    def input_spec_for_export(self) -> keras.InputSpec:
        if self.embedding is not None:
            return keras.InputSpec(dtype="int32", shape=(None, None))
        return keras.InputSpec(dtype="float32", shape=(None, None, self.features))

    def get_initial_state(self, batch_size, kind: str | None = None):
        """The zero state of the core, of a kind it knows."""
        if kind is None:
            return self.core.get_initial_state(batch_size)
        return self.core.get_initial_state(batch_size, kind=kind)

    def loss_terms(self, x, y, sample_weight=None, initial_state=None, training=None) -> LossTerms:
        supervised = bool(training and self.auxiliary_weight)
        masks = None
        if supervised and hasattr(self.core, "get_masks"):
            masks = self.core.get_masks(ops.shape(x)[0])
        result = self(
            x,
            initial_state=initial_state,
            training=training,
            return_auxiliary=supervised,
            masks=masks,
        )
        predictions = result[0] if supervised else result
        losses = self.element_losses(y, predictions)
        objective = losses
        if supervised:
            auxiliary = result[1]
            repeated = ops.repeat(y[:, None], ops.shape(auxiliary)[1], axis=1)
            objective = losses + self.auxiliary_weight * auxiliary_loss(
                self.core, masks, lambda: self.element_losses(repeated, auxiliary), losses
            )
        weights = None
        if sample_weight is not None:
            weights = ops.cast(sample_weight, losses.dtype)
            while len(weights.shape) < len(losses.shape):
                weights = ops.expand_dims(weights, -1)
            weights = ops.broadcast_to(weights, ops.shape(losses))
        return LossTerms(objective, weights, None, losses, predictions, y, None)

    def get_config(self) -> dict[str, Any]:
        return {
            "core": keras.saving.serialize_keras_object(self.core),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "return_sequences": self.return_sequences,
            "input_dropout": self.input_dropout.rate,
            "output_dropout": self.output_dropout.rate,
            "auxiliary_weight": self.auxiliary_weight,
            **self.frozen_config(),
            "seed": self.seed,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("core", "dtype"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return super().from_config(config)


@export("keras_seq.models.SequenceClassifier")
class SequenceClassifier(SequenceReader):
    """Classifies a sequence, or each of its steps: (embedding →) causal core → dense → log-softmax.

    The pixel classifier of the TrellisNet paper (section 5.2): the prediction is read from the last
    step, which has
    seen the whole sequence.

    Args:
        core: a causal layer (b, t, d) → (b, t, o).
        classes: number of classes.
        **kwargs: of `SequenceReader`: `vocabulary_size`, `embedding_dim`, `return_sequences`,
        `input_dropout`,
            `output_dropout`, `auxiliary_weight`, `seed`.

    Call arguments:
        inputs: (b, t, d) floats, or (b, t) ids with `vocabulary_size`.

    Output shape:
        (b, classes) log-probabilities in float32, or (b, t, classes) with `return_sequences`.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=10, levels=5)
    >>> model = keras_seq.models.SequenceClassifier(core, classes=10)
    >>> model(np.zeros((2, 28, 1), "float32")).shape
    TensorShape([2, 10])
    """

    def __init__(self, core: keras.layers.Layer, classes: int, **kwargs):
        super().__init__(core, classes, **kwargs)
        self.classes = classes
        self._nll = keras.metrics.Mean(name="nll")
        self._accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def predict_from(self, hidden):
        return ops.log_softmax(ops.cast(self.dense(hidden), _at_least_float32(self)), axis=-1)

    def element_losses(self, y, predictions):
        return -ops.take_along_axis(predictions, ops.expand_dims(ops.cast(y, "int32"), -1), -1)[
            ..., 0
        ]

    def update_metrics(self, terms: LossTerms) -> None:
        _update_mean(self._nll, terms)
        self._accuracy.update_state(terms.targets, terms.predictions, terms.weights)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._nll, self._accuracy]

    def get_config(self) -> dict[str, Any]:
        return {"classes": self.classes, **super().get_config()}


@export("keras_seq.models.SequenceRegressor")
class SequenceRegressor(SequenceReader):
    """Predicts values from a sequence, or from each of its steps, under the mean squared error.

    Args:
        core: a causal layer (b, t, d) → (b, t, o).
        outputs: number of values.
        **kwargs: of `SequenceReader`.

    Call arguments:
        inputs: (b, t, d) floats, or (b, t) ids with `vocabulary_size`.

    Output shape:
        (b, outputs) values in float32, or (b, t, outputs) with `return_sequences`.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=5)
    >>> model = keras_seq.models.SequenceRegressor(core)
    >>> model(np.zeros((2, 28, 2), "float32")).shape
    TensorShape([2, 1])
    """

    def __init__(self, core: keras.layers.Layer, outputs: int = 1, **kwargs):
        super().__init__(core, outputs, **kwargs)
        self._mse = keras.metrics.Mean(name="mse")

    def predict_from(self, hidden):
        return ops.cast(self.dense(hidden), _at_least_float32(self))

    def element_losses(self, y, predictions):
        y = ops.reshape(ops.cast(y, predictions.dtype), ops.shape(predictions))
        return ops.mean(ops.square(predictions - y), axis=-1)

    def update_metrics(self, terms: LossTerms) -> None:
        _update_mean(self._mse, terms)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._mse]

    def get_config(self) -> dict[str, Any]:
        return {"outputs": self.outputs_width, **super().get_config()}


def _at_least_float32(layer) -> str:
    return "float64" if layer.compute_dtype == "float64" else "float32"


def _update_mean(metric: keras.metrics.Mean, terms: LossTerms) -> None:
    """Adds single values: Keras' own `Mean` counts a sequence of many steps as one value."""
    weights = None if terms.weights is None else ops.reshape(terms.weights, (-1,))
    metric.update_state(ops.reshape(terms.report, (-1,)), weights)
