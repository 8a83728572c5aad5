"""The training step that every model of the library shares."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq import _replicas
from keras_seq._backend import portable_operations
from keras_seq._frozen_parts import FrozenParts
from keras_seq.layers import DeepEquilibrium
from keras_seq.metrics import solver_metrics
from keras_seq.models import _backend, lanes
from keras_seq.models.carried_state import CarriedState
from keras_seq.models.checked_data import CheckedData
from keras_seq.models.cores import core_of
from keras_seq.models.monitoring import give_directions
from keras_seq.models.quantization import Quantizable
from keras_seq.models.sample_weights import blank
from keras_seq.optimizers.strategy_safe import own_optimizer


class LossTerms(NamedTuple):
    """What a model's `loss_terms` returns.

    Attributes:
        objective: (b, ...) the loss of each element; training minimises its weighted mean.
        weights: weights of the same shape, or `None` for ones. Where one is zero, the objective and
            the report may hold anything.
        penalty: a scalar that is added to the mean (activation regularisers); or pairs of a mean
            and of how many values it is the mean, which may differ from replica to replica.
        report: (b, ...) the values that metrics see, without auxiliary terms.
        predictions: what metrics given to `compile` see; `None` if nothing asks for them.
        targets: what they are compared with.
        state: the final state, to be carried to the next batch; `None` without one.
        report_weights: weights of the report, where they are not those of the objective.
    """

    objective: Any
    weights: Any
    penalty: Any
    report: Any
    predictions: Any
    targets: Any
    state: Any
    report_weights: Any = None

    @property
    def metric_weights(self) -> Any:
        """What weighs the report, predictions and targets in metrics; `None` for ones."""
        return self.weights if self.report_weights is None else self.report_weights


def auxiliary_loss(core, masks, losses_of_levels, like):
    """The losses of a core's auxiliary outputs, summed.

    Args:
        core: the core, whose `auxiliary_scales` weigh its levels.
        masks: the masks of the call. An entry `supervise` says whether this step has such losses.
        losses_of_levels: a function that gives the losses (b, m, ...) of m levels.
        like: (b, ...) losses of the main output.
    """

    def summed():
        levels = losses_of_levels()
        scales = core_of(core).auxiliary_scales
        if scales is not None:
            shape = (len(scales), *(1 for _ in levels.shape[2:]))
            levels = levels * ops.reshape(ops.convert_to_tensor(scales, levels.dtype), shape)
        return ops.sum(levels, axis=1)

    wanted = (masks or {}).get("supervise")
    return summed() if wanted is None else ops.cond(wanted, summed, lambda: ops.zeros_like(like))


class SequenceModel(FrozenParts, CheckedData, Quantizable, keras.Model):
    """Abstract base: a model that owns its loss and may carry state from batch to batch.

    A subclass defines `loss_terms` and `update_metrics`. The step here is right under a
    `tf.distribute`
    strategy: each replica's losses are divided by the weight of the whole global batch, so that an
    uneven last batch counts each element once.

    Args:
        carry_state: carry the core's final state of each batch to the next one (truncated
            back-propagation through time). Batch k + 1 of an epoch must continue the sequences of
            batch k, row by row, so all have one size and none is shuffled. The state starts from
            zero at every epoch and every evaluation, whatever the data of the one before were;
            `train_on_batch` and `test_on_batch` go on from the batch before. `predict` and calls
            carry nothing: each row is a sequence of its own, from zero.
        **kwargs: of `keras.Model`.
    """

    core: Any

    def __init__(self, carry_state: bool = False, **kwargs):
        quantized = kwargs.pop("quantized", None)
        super().__init__(**kwargs)
        self.quantized = quantized
        self.carry_state = carry_state
        self._carried = CarriedState()
        self._validation_size = 0
        self._loss_mean = keras.metrics.Mean(name="loss")

    def finish_build(self, *layers: tuple[keras.layers.Layer, tuple]) -> None:
        """Ends `build`: builds layers without weights, and quantizes what was saved so.

        Args:
            *layers: layers, each with the shape of its input.
        """
        for layer, shape in layers:
            if not layer.built:
                layer.build(shape)
        self.built = True
        self.restore_quantization()

    def get_initial_state(self, batch_size, kind: str | None = None):
        """The zero state of the core.

        Args:
            batch_size: b.
            kind: `"exact"` for the state with which chunks equal the full pass; `None` for the
                core's default.
        """
        return core_of(self.core).get_initial_state(batch_size, kind=kind)

    @property
    def receptive_field(self) -> int | None:
        """Input steps that an output depends on, as far as the core states it."""
        return core_of(self.core).receptive_field

    # What a subclass defines

    def loss_terms(self, x, y, sample_weight=None, initial_state=None, training=None) -> LossTerms:
        """The loss of a batch in its parts."""
        raise NotImplementedError

    def update_metrics(self, terms: LossTerms) -> None:
        """Updates the model's own metrics."""
        raise NotImplementedError

    def own_metrics(self) -> list[keras.metrics.Metric]:
        """The model's own metrics."""
        raise NotImplementedError

    def input_spec_for_export(self) -> keras.InputSpec:
        """Shape and type of the input, with free batch and length."""
        raise NotImplementedError

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model as a `.keras` file, see `keras.Model.save`.

        Args:
            filepath: where to.
            overwrite: of `keras.Model.save`.
            zipped: of `keras.Model.save`.
            **kwargs: of `keras.Model.save`.

        Raises:
            ValueError: for Keras' old format, before anything is written.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise _old_format(self, f" Received: filepath={str(filepath)!r}.")
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def frozen_config(self) -> dict[str, list[str]]:
        """What the configuration of every model says of frozen parts.

        Raises:
            ValueError: where `keras.saving.save_model` writes Keras' old format, which does not ask
                the model's `save`.
        """
        if _writes_old_format():
            raise _old_format(self)
        return super().frozen_config()

    def export(self, filepath, format="tf_saved_model", input_signature=None, **kwargs):
        """Exports the model for inference, by default with free batch size and length.

        Runtimes other than TensorFlow's get ordinary operations alone, which they have too.
        `keras_seq.export.export_model` writes more: text, steps over a state, a vocabulary.

        Args:
            filepath: where to.
            format: of `keras.Model.export`.
            input_signature: of `keras.Model.export`; `None` for the model's own.
            **kwargs: of `keras.Model.export`.
        """
        signature = input_signature or [self.input_spec_for_export()]
        other = format != "tf_saved_model"
        with portable_operations() if other else contextlib.nullcontext():
            super().export(filepath, format=format, input_signature=signature, **kwargs)

    # Compilation

    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, **kwargs):
        """Configures training. The model owns its loss.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: must be left out.
            loss_weights: must be left out.
            **kwargs: of `keras.Model.compile`.

        Raises:
            ValueError: if there is a loss.
        """
        for name, value in (("loss", loss), ("loss_weights", loss_weights)):
            if value is not None:
                raise ValueError(
                    f"`{name}` must be left out: a {type(self).__name__} owns its loss. "
                    f"Received: {name}={value!r}."
                )
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def compile_from_config(self, config) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    # The step

    def train_step(self, data):
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss, total_weight, terms = self._loss(x, y, sample_weight, "train", training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_weights
        if not variables:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        else:
            gradients = tape.gradient(scaled, variables)
            self._give_length(terms)
            if not self.optimizer.built:
                self.optimizer.build(variables)  # its variables wait for no data
            with _backend.after_all(data):
                self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._report(loss, total_weight, terms)

    def _give_length(self, terms: LossTerms) -> None:
        """Tells the length of the window to an optimizer whose rate depends on it."""
        optimizer = own_optimizer(self)
        if optimizer is None or optimizer.nominal_length is None:
            return
        if len(terms.objective.shape) < 2:
            raise ValueError(
                "`nominal_length` of the optimizer needs a model with a loss at each time step. "
                f"Received: {type(self).__name__}. Leave it out."
            )
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        optimizer.set_window_length(ops.shape(terms.objective)[1])

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with solver_metrics.evaluation():
            loss, total_weight, terms = self._loss(x, y, sample_weight, "test", training=False)
        return self._report(loss, total_weight, terms)

    def _loss(self, x, y, sample_weight, phase: str, training: bool):
        """This replica's share of the loss, the weight of the global batch, and the terms."""
        state = None
        if self.carry_state:
            self._carried.check(phase, x)
            state = self._carried.read(phase)
        terms = self.loss_terms(
            x, y, sample_weight=sample_weight, initial_state=state, training=training
        )
        if self.carry_state:
            self._carried.write(phase, terms.state)
        weights = ops.ones_like(terms.objective) if terms.weights is None else terms.weights
        rows = ops.cast(ops.shape(terms.objective)[0], weights.dtype)
        total_weight, total_rows = _replicas.sum_over_replicas([ops.sum(weights), rows])
        # A batch without any weight has no loss, rather than a NaN.
        objective = blank(terms.objective, terms.weights)
        loss = ops.sum(objective * weights) / ops.maximum(total_weight, 1e-8)
        replicas = _replicas.replica_count()
        if isinstance(terms.penalty, tuple):
            loss = loss + _penalties(terms.penalty, loss.dtype)
        elif terms.penalty is not None:
            # A mean over the rows of this replica, which of a last batch has fewer than others.
            share = rows / ops.maximum(total_rows, 1) if replicas > 1 else 1.0
            loss = loss + ops.cast(terms.penalty, loss.dtype) * share
        for extra in self.losses:
            loss = loss + ops.cast(extra, loss.dtype) / replicas
        return loss, total_weight, terms

    def _report(self, loss, total_weight, terms: LossTerms) -> dict[str, Any]:
        # The replicas' shares add up to the loss, and their weights here to the global weight.
        replicas = _replicas.replica_count()
        with _backend.after_all(terms.report):
            self._loss_mean.update_state(loss * replicas, sample_weight=total_weight / replicas)
            self.update_metrics(terms)
        if self.wants_predictions:
            self._update_compiled_metrics(terms)
        return self._metrics_of_all_replicas()

    def _update_compiled_metrics(self, terms: LossTerms) -> None:
        """Updates metrics given to `compile`; none sees what has no weight."""
        compiled: Any = self._compile_metrics
        weights = terms.metric_weights
        if weights is None:
            compiled.update_state(terms.targets, terms.predictions)
            return
        if not compiled.built:
            compiled.build(terms.targets, terms.predictions)
        counts = ops.cast(weights != 0, weights.dtype)
        for metrics, factors in (
            (compiled._flat_metrics, counts),
            (compiled._flat_weighted_metrics, weights),
        ):
            for metric in filter(None, metrics):
                metric.update_state(terms.targets, terms.predictions, sample_weight=factors)

    def _metrics_of_all_replicas(self) -> dict[str, Any]:
        """The metrics over the whole batches so far, the same on every replica."""
        if _replicas.replica_count() == 1:
            return self.get_metrics_result()
        variables = [v for metric in self.metrics for v in metric.variables]
        summed = [v for v in variables if v.aggregation == "sum"]
        flat = [ops.reshape(ops.cast(v, "float64"), (-1,)) for v in summed]
        (total,) = _replicas.sum_over_replicas([ops.concatenate(flat)])  # one message for all
        values, start = {}, 0
        for variable in summed:
            size = math.prod(variable.shape)
            value = ops.reshape(total[start : start + size], variable.shape)
            values[id(variable)] = ops.cast(value, variable.dtype)
            start += size
        results: dict[str, Any] = {}
        for metric in self.metrics:
            state = [values.get(id(v), ops.convert_to_tensor(v)) for v in metric.variables]
            result = metric.stateless_result(state)
            results |= result if isinstance(result, dict) else {metric.name: result}
        return results

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        compiled = [] if self._compile_metrics is None else [self._compile_metrics]
        inner = [metric for layer in self._equilibria() for metric in layer.solver_metrics.values()]
        return [self._loss_mean, *self.own_metrics(), *inner, *compiled]

    def _equilibria(self) -> list[DeepEquilibrium]:
        layers = self._flatten_layers(include_self=False)
        return [layer for layer in layers if isinstance(layer, DeepEquilibrium)]

    @property
    def wants_predictions(self) -> bool:
        """Whether metrics were given to `compile`."""
        return self._compile_metrics is not None

    # State carried through `fit` and `evaluate`

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        *,
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=None,
        **kwargs,
    ):
        if self.carry_state:
            _refuse_with_lanes(shuffle, validation_split)
            shuffle = False
            x = self._carried.prepare("train", self, x, batch_size)
            if validation_data is not None:
                size = kwargs.get("validation_batch_size") or batch_size
                validation_data = self._prepare_validation(validation_data, size)
            callbacks = _with(callbacks, self._carried.callback())
        elif shuffle is None:
            shuffle = lanes.shuffled_by_default(x)
        give_directions(callbacks, self.metrics)
        with self._traced_anew_after_errors():
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                **kwargs,
            )

    @contextlib.contextmanager
    def _traced_anew_after_errors(self) -> Iterator[None]:
        """Data that are refused while a step is traced leave half a graph, which is not kept.

        Keras would go on with it: right data then end in an error of TensorFlow's own.
        """
        try:
            yield
        except Exception:
            self.train_function = self.test_function = self.predict_function = None
            raise

    def _prepare_validation(self, data, batch_size):
        parts = list(data) if isinstance(data, list | tuple) else [data]
        name = "validation_data"
        parts[0] = self._carried.prepare("test", self, parts[0], batch_size, name)
        self._validation_size = self._carried.size("test")
        return tuple(parts) if isinstance(data, list | tuple) else parts[0]

    def evaluate(self, x=None, y=None, batch_size=None, callbacks=None, **kwargs):
        if self.carry_state and isinstance(callbacks, keras.callbacks.CallbackList):
            # `fit` evaluates, perhaps after a callback has evaluated other data.
            self._carried.use("test", self, self._validation_size)
        elif self.carry_state:
            x = self._carried.prepare("test", self, x, batch_size)
            callbacks = _with(callbacks, self._carried.callback())
        with self._traced_anew_after_errors():
            results = super().evaluate(x, y, batch_size=batch_size, callbacks=callbacks, **kwargs)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            for layer in self._equilibria():
                layer.tell_of_evaluation()
        return results

    def predict(self, x, batch_size=None, verbose: Any = "auto", steps=None, callbacks=None):
        with self._traced_anew_after_errors():
            return super().predict(x, batch_size, verbose, steps, callbacks)

    def train_on_batch(self, x, *args, **kwargs):
        if self.carry_state:
            self._carried.use("train", self, lanes.rows(x))
        with self._traced_anew_after_errors():
            return super().train_on_batch(x, *args, **kwargs)

    def test_on_batch(self, x, *args, **kwargs):
        if self.carry_state:
            self._carried.use("test", self, lanes.rows(x))
        with self._traced_anew_after_errors():
            return super().test_on_batch(x, *args, **kwargs)

    @property
    def carried_state(self) -> CarriedState:
        """The state carried between batches, for checkpoints."""
        return self._carried


def _penalties(pairs, dtype):
    """This replica's share of penalties, each a mean and how many values it is the mean of."""
    means = [ops.cast(mean, dtype) for mean, _ in pairs]
    if _replicas.replica_count() > 1:
        counts = [ops.cast(count, dtype) for _, count in pairs]
        totals = _replicas.sum_over_replicas(counts)
        shares = [
            count / ops.maximum(total, 1) for count, total in zip(counts, totals, strict=True)
        ]
        means = [mean * share for mean, share in zip(means, shares, strict=True)]
    return sum(means)


def _old_format(model, received: str = "") -> ValueError:
    return ValueError(
        f"`filepath` must end in .keras: the old format .h5 cannot hold a {type(model).__name__}, "
        f"it would not load.{received} For the weights alone use `save_weights` and a name that "
        "ends in .weights.h5."
    )


def _writes_old_format() -> bool:
    """Whether Keras is writing its old format; no if it moves its private mark of that."""
    try:
        from keras.src.backend.common.global_state import get_global_attribute
    except ImportError:
        return False
    return bool(get_global_attribute("use_legacy_config", False))


def _with(callbacks, callback) -> list:
    """The user's callbacks and one more."""
    if callbacks is None:
        return [callback]
    return [callback, *(callbacks if isinstance(callbacks, list | tuple) else [callbacks])]


def _refuse_with_lanes(shuffle, validation_split) -> None:
    """Refuses what would tear the lanes of carried state apart."""
    if shuffle:
        raise ValueError(
            "`shuffle` must be False or left out with `carry_state=True`: row i of each batch "
            f"continues row i of the batch before. Received: shuffle={shuffle!r}."
        )
    if validation_split:
        raise ValueError(
            "`validation_split` must be left out with `carry_state=True`: it takes the last rows, "
            f"which are the ends of some lanes. Received: validation_split={validation_split!r}. "
            "Give `validation_data`."
        )
