"""Keras' progress bar, with numbers of tokens as whole numbers."""

import keras

from keras_seq.metrics import TokenCount


class _Count(float):
    """A number that is shown without decimals."""

    def __truediv__(self, other):
        return _Count(float(self) / other)

    def __format__(self, specification: str) -> str:
        return f"{float(self):.0f}"


class CountingProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar that shows the `TokenCount` metrics of a model as whole numbers."""

    def _whole(self, logs):
        names = {metric.name for metric in self.model.metrics if isinstance(metric, TokenCount)}
        return {
            name: _Count(value) if name.removeprefix("val_") in names else value
            for name, value in (logs or {}).items()
        }

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._whole(logs))

    def on_test_batch_end(self, batch, logs=None):
        super().on_test_batch_end(batch, self._whole(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._whole(logs))

    def on_test_end(self, logs=None):
        super().on_test_end(self._whole(logs))


def with_progress_bar(callbacks, verbose):
    """Callbacks with the bar, unless there is none to be or one already."""
    if verbose == 0 or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks] * bool(callbacks)
    if any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in listed):
        return callbacks
    return [*listed, CountingProgressBar()]
