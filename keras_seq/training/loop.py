"""The training loop for several machines, where Keras' `fit` does not work."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq.pipelines import Data
from keras_seq.training.cluster import Cluster


class Loop:
    """Trains and evaluates a compiled model as `fit` does, one step on all machines at a time.

    `fit` of Keras 3.15 fails under `MultiWorkerMirroredStrategy`: to build the model it makes one
    batch of those of all devices, and it averages the logs along an axis that they do not have.
    The step itself, which belongs to the model, works. So this loop calls it, resets the metrics
    and calls the callbacks in the order in which `fit` does.

    Args:
        model: a compiled model of the library.
        cluster: the processes that train together.
        data: the data, from which the size of whole batches is read.
    """

    def __init__(self, model: Any, cluster: Cluster, data: Data):
        self.model = model
        self.cluster = cluster
        self._functions = {
            "train": self._function(model.train_step),
            "test": self._function(model.test_step),
        }
        self._sizes: dict[str, int | None] = {}
        for phase, dataset in (("train", data.train), ("test", data.validation)):
            if dataset is None:
                continue
            self._sizes[phase] = keras.tree.flatten(dataset.element_spec)[0].shape[0]
            if model.carry_state:
                model.carried_state.prepare(phase, model, dataset, None)

    def fit(
        self,
        dataset: Any,
        *,
        initial_epoch: int,
        epochs: int,
        validation_data: Any,
        callbacks: Sequence[keras.callbacks.Callback],
        **options: Any,
    ) -> None:
        """Trains for some epochs.

        Args:
            dataset: this process's rows of the batches of an epoch (`Cluster.rows`).
            initial_epoch: number of the first epoch.
            epochs: number at which to end.
            validation_data: whole batches to evaluate on after each epoch; `None` for nothing.
            callbacks: Keras callbacks.
            **options: the others of `fit`; without effect.
        """
        del options
        model = self.model
        listening = self._callbacks(callbacks)
        for epoch in range(initial_epoch, epochs):
            model.stop_training = False
            model.reset_metrics()
            listening.on_epoch_begin(epoch)
            logs: dict[str, float] = {}
            for number, batch in enumerate(dataset):
                listening.on_train_batch_begin(number)
                logs = self._step("train", batch)
                listening.on_train_batch_end(number, logs)
                if model.stop_training:
                    break
            if validation_data is not None:
                figures = self._evaluate(validation_data, listening)
                logs = logs | {f"val_{name}": value for name, value in figures.items()}
            listening.on_epoch_end(epoch, logs)
            if model.stop_training:
                break

    def _evaluate(self, dataset: Any, listening: keras.callbacks.CallbackList) -> dict[str, float]:
        listening.on_test_begin()
        self.model.reset_metrics()
        logs: dict[str, float] = {}
        for number, batch in enumerate(self.cluster.rows(dataset)):
            listening.on_test_batch_begin(number)
            logs = self._step("test", batch)
            listening.on_test_batch_end(number, logs)
        listening.on_test_end(logs)
        return logs

    def _step(self, phase: str, batch: Any) -> dict[str, float]:
        """A step on all devices; the figures of the epoch so far, the same on all of them."""
        values = self.cluster.of_replicas(batch, self._sizes[phase])
        return {name: float(value) for name, value in self._functions[phase](values).items()}

    def _function(self, step: Any) -> Any:
        import tensorflow as tf

        strategy = self.cluster.strategy

        @tf.autograph.experimental.do_not_convert
        def on_all(batch):
            logs = strategy.run(step, args=(batch,))
            return {k: strategy.experimental_local_results(v)[0] for k, v in logs.items()}

        return tf.function(on_all, reduce_retracing=True)

    def _callbacks(self, callbacks) -> keras.callbacks.CallbackList:
        every = [*callbacks]
        if self.model.carry_state:
            every.insert(0, self.model.carried_state.callback())
        return keras.callbacks.CallbackList(every, model=self.model)
