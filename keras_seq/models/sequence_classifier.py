"""Models that read a whole sequence: one class or value for each sequence or each step."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_seq._dtypes import float32_at_least
from keras_seq._export import export
from keras_seq.layers import VariationalDropout
from keras_seq.models import _backend
from keras_seq.models.cores import check_core, check_streams, core_of, is_causal, reads_backwards
from keras_seq.models.monitoring import lower_is_better
from keras_seq.models.padded_rows import PaddedRows, inputs_shape
from keras_seq.models.pooling import Pooling, check_pooling, last_step, over_levels
from keras_seq.models.sample_weights import blank, for_each_step, without_unread
from keras_seq.models.sequence_model import LossTerms, SequenceModel, auxiliary_loss
from keras_seq.models.targets import (
    check_ignored,
    check_targets,
    existing_ids,
    is_label,
    marked,
    shape_in_words,
    with_shape,
)
from keras_seq.models.valid_steps import ValidSteps


class SequenceReader(PaddedRows, SequenceModel):
    """Abstract base of `SequenceClassifier` and `SequenceRegressor`: (embedding →) core → dense.

    Args:
        core: a causal layer (b, t, d) → (b, t, o), or one that reads both ways, such as
            `keras.layers.Bidirectional` of one.
        outputs: width of the dense layer.
        vocabulary_size: for integer inputs (b, t), the number of their values; `None` for float
            inputs (b, t, d).
        embedding_dim: width of the embedding of integer inputs.
        return_sequences: predict at every step instead of once a sequence.
        pooling: what a sequence is read from: `"last"`, the output at its last valid step; or the
            `"mean"`, the `"max"` or the learned `"attention"` of all valid steps, see `Pooling`.
        mask_zero: whether the id 0 is padding, as with `keras.layers.Embedding`.
        input_dropout: rate of variational dropout before the core.
        output_dropout: rate of variational dropout between core and dense layer.
        auxiliary_weight: λ, weight of the loss of the core's auxiliary outputs.
        seed: seed of the dropout masks.
        **kwargs: of `keras.Model`.
    """

    given_parts = ("core",)
    reads_both_ways = True

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
        pooling: str = "last",
        mask_zero: bool = False,
        **kwargs,
    ):
        if kwargs.get("carry_state"):
            raise ValueError(
                f"`carry_state` must be left out: a {type(self).__name__} reads whole sequences, "
                "each from the zero state. Received: carry_state=True."
            )
        super().__init__(**kwargs)
        if (vocabulary_size is None) != (embedding_dim is None):
            raise ValueError(
                "`vocabulary_size` and `embedding_dim` must be given together. Received: "
                f"vocabulary_size={vocabulary_size}, embedding_dim={embedding_dim}."
            )
        if mask_zero and vocabulary_size is None:
            raise ValueError(
                "`mask_zero` needs a model of ids. Received: mask_zero=True without "
                "`vocabulary_size`. Give the `lengths` or the `mask` with the inputs."
            )
        if return_sequences and pooling != "last":
            raise ValueError(
                "`pooling` must be left out with `return_sequences=True`: every step has its own "
                f"prediction. Received: pooling={pooling!r}."
            )
        check_core(core, auxiliary_weight, type(self).__name__, self.reads_both_ways)
        if return_sequences and reads_backwards(core):
            raise ValueError(
                "`core` must give outputs in the order of the steps with `return_sequences=True`. "
                f"Received: a {type(core).__name__} (layer {core.name!r}) with go_backwards=True, "
                "whose first output is that of the last step. Wrap it: "
                "`keras.layers.Bidirectional(layer)` of one without."
            )
        self.core = core
        self.outputs_width = outputs
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.return_sequences = return_sequences
        self.mask_zero = bool(mask_zero)
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
        self.pooling = check_pooling(pooling)
        self.pool = None
        if pooling != "last":
            self.pool = Pooling(pooling, dtype=policy, name="pooling")

    def build(self, input_shape=None):
        if self.built:
            return
        input_shape = inputs_shape(input_shape)
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
        output = tuple(output[0] if isinstance(output, list) else output)
        self.dense.build(output)
        pools = [] if self.pool is None else [(self.pool, output)]
        self.finish_build((self.input_dropout, shape), (self.output_dropout, output), *pools)

    def call(
        self,
        inputs,
        initial_state=None,
        return_state=False,
        training=None,
        return_auxiliary=False,
        masks=None,
        mask=None,
    ):
        x, steps = self.rows_of(inputs, mask)
        if not self.streams and (return_state or initial_state is not None):
            check_streams(self.core)
            raise ValueError(
                "`initial_state` and `return_state` need `pooling` 'last': a part of a sequence "
                "has no other prediction. Received: a model with "
                f"pooling={self.pooling!r}. Give it whole sequences."
            )
        if self.embedding is not None:
            x = self.embedding(existing_ids(x, self.embedding.input_dim))
        x = self.input_dropout(x, training=training)
        options: dict[str, Any] = {"return_auxiliary": True} if return_auxiliary else {}
        if steps is not None:
            options["mask"] = steps.mask
        result = core_of(self.core)(
            x,
            initial_state=initial_state,
            return_state=return_state,
            training=training,
            masks=masks,
            **options,
        )
        result = list(result) if isinstance(result, tuple | list) else [result]
        hidden = result.pop(0)
        hidden = self._read(hidden, steps)
        outputs = self.predict_from(self.output_dropout(hidden, training=training))
        results = [outputs if self.return_sequences else outputs[:, 0]]
        if return_auxiliary:
            auxiliary = result.pop(0)
            auxiliary = self.predict_from(self._read(auxiliary, steps))
            results.append(auxiliary if self.return_sequences else auxiliary[:, :, 0])
        if return_state:
            results.append(result.pop(0))
        return results[0] if len(results) == 1 else tuple(results)

    def _read(self, hidden, steps: ValidSteps | None):
        """What predictions are made from: (b, ..., t, o) or, of whole sequences, (b, ..., 1, o)."""
        if not self.return_sequences:
            mask = None if steps is None else steps.mask
            # In the order of reading, the outputs of masked steps come first.
            backwards = mask is not None and reads_backwards(self.core)
            if self.pool is None and (mask is None or backwards):
                return hidden[..., -1:, :]
            if backwards:
                hidden = ops.flip(hidden, axis=len(hidden.shape) - 2)
            if self.pool is not None:
                return ops.expand_dims(self.pool(hidden, mask=mask), -2)
            return ops.expand_dims(over_levels(last_step, hidden, mask), -2)
        if steps is None:
            return hidden
        if len(hidden.shape) == 3:
            return steps.place(hidden)
        return ops.moveaxis(steps.place(ops.moveaxis(hidden, 2, 1)), 1, 2)

    @property
    def streams(self) -> bool:
        """Whether a sequence may come in parts, with a state between them."""
        return is_causal(self.core) and (self.return_sequences or self.pooling == "last")

    def check_inputs(self, inputs) -> None:
        shape = tuple(inputs.shape)
        wanted = "(b, t)" if self.embedding is not None else f"(b, t, {self.features or 'd'})"
        right = len(shape) == (2 if self.embedding is not None else 3)
        if right and self.features is not None:
            right = shape[-1] in (None, self.features)
        if not right:
            raise ValueError(
                f"`inputs` must have shape {wanted}. Received: inputs of shape "
                f"{shape_in_words(shape)}. A sequence of single numbers has d = 1: "
                "`inputs[..., None]`; ids need `vocabulary_size` and `embedding_dim`."
            )

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

    def loss_terms(self, x, y, sample_weight=None, initial_state=None, training=None) -> LossTerms:
        x, steps = self.rows_of(x)
        if not self.built:
            with _backend.outside_graphs():
                self.build(tuple(x.shape))
        y, mask, options = self.checked_targets(y, x), None, {}
        if steps is not None:
            mask, options = steps.lengths > 0, {"mask": steps.mask}
        if steps is not None and self.return_sequences:
            y, mask = steps.pack(y), steps.mask
            if for_each_step(sample_weight, y):
                sample_weight = steps.pack(sample_weight)
        dtype = float32_at_least(self.compute_dtype)
        y, weights = self.scored(y, sample_weight, dtype, training, mask)
        x = without_unread(x, weights, is_causal(self.core))
        supervised = bool(training and self.auxiliary_weight)
        masks = core_of(self.core).get_masks(ops.shape(x)[0]) if supervised else None
        result = self(
            x,
            initial_state=initial_state,
            training=training,
            return_auxiliary=supervised,
            masks=masks,
            **options,
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
        report = self.reported(y, predictions, losses)
        return LossTerms(objective, weights, None, report, predictions, y, None)

    def checked_targets(self, y, x):
        """Targets in the shape that the losses take, after a check of theirs.

        Args:
            y: the targets.
            x: the inputs.
        """
        axes = 2 if self.return_sequences else 1
        elements, width = tuple(x.shape)[:axes], self.outputs_width
        inner = () if self.label_count is not None else (width,)
        accepted = [(*elements, *inner)]
        if self.label_count is not None:
            accepted.append((*elements, 1))
        elif width == 1:
            accepted.append(elements)
        what, remedy = self.targets_in_words()
        check_targets(y, accepted, (*elements, width), what, remedy)
        return with_shape(y, (*ops.shape(x)[:axes], *inner))

    def targets_in_words(self) -> tuple[str, str]:
        """What the targets hold, and what to do if they do not."""
        raise NotImplementedError

    def reported(self, y, predictions, losses):
        """What the model's own metrics see; the losses by default."""
        return losses

    def get_config(self) -> dict[str, Any]:
        return {
            "core": keras.saving.serialize_keras_object(self.core),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "return_sequences": self.return_sequences,
            "pooling": self.pooling,
            "mask_zero": self.mask_zero,
            "input_dropout": self.input_dropout.rate,
            "output_dropout": self.output_dropout.rate,
            "auxiliary_weight": self.auxiliary_weight,
            **self.frozen_config(),
            **self.quantized_config(),
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
    step, which has seen the whole sequence. Other ways of reading are `pooling`.

    Args:
        core: a causal layer (b, t, d) → (b, t, o), or one that reads both ways, such as
            `keras.layers.Bidirectional` of one.
        classes: number of classes.
        ignore_class: a label that does not count, such as -1; `None` for none.
        **kwargs: of `SequenceReader`: `vocabulary_size`, `embedding_dim`, `return_sequences`,
            `pooling`, `mask_zero`, `input_dropout`, `output_dropout`, `auxiliary_weight`, `seed`.

    Call arguments:
        inputs: (b, t, d) floats, or (b, t) ids with `vocabulary_size`; or a dictionary of them as
            `"inputs"` with `"lengths"` (b,) or `"mask"` (b, t).
        mask: (b, t), true at valid steps; `None` for that of Keras that the inputs carry, or none.

    Output shape:
        (b, classes) log-probabilities in float32, or (b, t, classes) with `return_sequences`.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=10, levels=5)
    >>> model = keras_seq.models.SequenceClassifier(core, classes=10)
    >>> model(np.zeros((2, 28, 1), "float32")).shape
    TensorShape([2, 10])
    """

    def __init__(
        self, core: keras.layers.Layer, classes: int, ignore_class: int | None = None, **kwargs
    ):
        super().__init__(core, classes, **kwargs)
        self.classes = classes
        self.ignore_class = check_ignored(ignore_class)
        self._nll = lower_is_better("nll")
        self._accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def predict_from(self, hidden):
        logits = ops.cast(self.dense(hidden), float32_at_least(self.compute_dtype))
        return ops.log_softmax(logits, axis=-1)

    def element_losses(self, y, predictions):
        labels = ops.where(is_label(y, self.classes), ops.cast(y, "int32"), 0)
        losses = -ops.take_along_axis(predictions, ops.expand_dims(labels, -1), -1)[..., 0]
        return marked(losses, y, self.classes)

    @property
    def label_count(self) -> int:
        return self.classes

    def targets_in_words(self) -> tuple[str, str]:
        one_hot = "One-hot rows become labels with `np.argmax(y, axis=-1)`; "
        if self.return_sequences:
            remedy = "for one label a sequence build the model with `return_sequences=False`."
            return "a label for each step", one_hot + remedy
        remedy = "for a label at each step build the model with `return_sequences=True`."
        return "one label for each sequence", one_hot + remedy

    def update_metrics(self, terms: LossTerms) -> None:
        update_mean(self._nll, terms)
        self._accuracy.update_state(terms.targets, terms.predictions, terms.weights)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._nll, self._accuracy]

    def get_config(self) -> dict[str, Any]:
        own = {"classes": self.classes, "ignore_class": self.ignore_class}
        return {**own, **super().get_config()}


@export("keras_seq.models.SequenceRegressor")
class SequenceRegressor(SequenceReader):
    """Predicts values from a sequence, or from each of its steps.

    The loss is the mean squared error, or any loss of Keras that is given to `compile`. Either is
    taken for each sequence, or each step; training minimises the mean, weighted if there are
    weights. The metric `mse` is the squared error whatever the loss.

    Args:
        core: a causal layer (b, t, d) → (b, t, o), or one that reads both ways, such as
            `keras.layers.Bidirectional` of one.
        outputs: number of values.
        **kwargs: of `SequenceReader`.

    Call arguments:
        inputs: (b, t, d) floats, or (b, t) ids with `vocabulary_size`; or a dictionary of them as
            `"inputs"` with `"lengths"` (b,) or `"mask"` (b, t).
        mask: (b, t), true at valid steps; `None` for that of Keras that the inputs carry, or none.

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
        self._loss_of_values: Any = None
        self._mse = lower_is_better("mse")

    def predict_from(self, hidden):
        return ops.cast(self.dense(hidden), float32_at_least(self.compute_dtype))

    def element_losses(self, y, predictions):
        if self._loss_of_values is None:
            return _squared_error(y, predictions)
        loss = self._loss_of_values
        call = loss.call if isinstance(loss, keras.losses.Loss) else loss
        losses = ops.convert_to_tensor(call(ops.cast(y, predictions.dtype), predictions))
        if len(losses.shape) == len(predictions.shape):
            losses = ops.mean(losses, axis=-1)
        if len(losses.shape) != len(predictions.shape) - 1:
            raise ValueError(
                "`loss` must give one loss for each prediction, without its last axis. Received: "
                f"loss={loss!r}, which gives shape {shape_in_words(tuple(losses.shape))} for "
                f"predictions of shape {shape_in_words(tuple(predictions.shape))}."
            )
        return losses

    def reported(self, y, predictions, losses):
        return losses if self._loss_of_values is None else _squared_error(y, predictions)

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        """Configures training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a loss of Keras, its name, or a function of targets and predictions that gives a
                loss for each; `None` for the mean squared error. The model takes the mean itself,
                over what has weight.
            **kwargs: of `keras.Model.compile`.

        Raises:
            ValueError: if the loss is a sum.
        """
        if isinstance(loss, str | dict):
            loss = keras.losses.get(loss)
        if loss is not None and not callable(loss):
            raise ValueError(
                f"`loss` must be a loss of Keras, its name or a function. Received: loss={loss!r}."
            )
        if getattr(loss, "reduction", None) == "sum":
            raise ValueError(
                "`loss` must not be a sum: the model takes the mean over the batch. Received: "
                f"loss={loss!r} with reduction='sum'. Leave `reduction` out."
            )
        self._loss_of_values = loss
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self._loss_of_values is not None:
            loss = keras.saving.serialize_keras_object(self._loss_of_values)
            if isinstance(loss, dict) and isinstance(self._loss_of_values, keras.losses.Loss):
                # Keras leaves some arguments out, such as the `delta` of its Huber loss.
                known = inspect.signature(type(self._loss_of_values).__init__).parameters
                given = getattr(self._loss_of_values, "_fn_kwargs", {})
                own = {name: value for name, value in given.items() if name in known}
                loss["config"] = {**own, **loss["config"]}
            config["loss"] = loss
        return config

    def targets_in_words(self) -> tuple[str, str]:
        if self.return_sequences:
            return "the values of each step", (
                "Set `outputs` to the number of values; for values of the whole sequence build the "
                "model with `return_sequences=False`."
            )
        return "the values of each sequence", (
            "Set `outputs` to the number of values; for values at each step build the model with "
            "`return_sequences=True`."
        )

    def update_metrics(self, terms: LossTerms) -> None:
        update_mean(self._mse, terms)

    def own_metrics(self) -> list[keras.metrics.Metric]:
        return [self._mse]

    def get_config(self) -> dict[str, Any]:
        return {"outputs": self.outputs_width, **super().get_config()}


def _squared_error(y, predictions):
    return ops.mean(ops.square(predictions - ops.cast(y, predictions.dtype)), axis=-1)


def update_mean(metric: keras.metrics.Mean, terms: LossTerms) -> None:
    """Adds single values: Keras' own `Mean` counts a sequence of many steps as one value."""
    weights = terms.metric_weights
    values = ops.reshape(blank(terms.report, weights), (-1,))
    metric.update_state(values, None if weights is None else ops.reshape(weights, (-1,)))
