"""A callback that ends a training whose equilibria are lost."""

import warnings

import keras

SUFFIX = "_diverged_in_a_row"


class StopOnDivergence(keras.callbacks.Callback):
    """Ends the training after so many training steps in a row with a solve that diverged.

    A step counts if a sample of it diverged or became not finite, in any `DeepEquilibrium` of the
    model; not if only the step limit came first. The layer goes on with its best iterates, so one
    such step does no harm. Many in a row mean that the cell does not have an equilibrium any more.
    The layers count on the device; the callback reads what is logged anyhow.

    Args:
        patience: number of steps in a row.

    Attributes:
        stopped_batch: the batch of the epoch at which it ended the training; `None` if it did not.

    Example:

    >>> callback = keras_seq.training.StopOnDivergence(patience=20)
    >>> # model.fit(data, callbacks=[callback])
    """

    def __init__(self, patience: int = 20):
        super().__init__()
        if patience < 1:
            raise ValueError(f"`patience` must be positive. Received: patience={patience}.")
        self.patience = patience
        self.stopped_batch: int | None = None

    def on_train_batch_end(self, batch, logs=None):
        counts = {name: value for name, value in (logs or {}).items() if name.endswith(SUFFIX)}
        name = max(counts, key=lambda key: counts[key], default=None)
        if name is None or counts[name] < self.patience or self.model.stop_training:
            return
        self.stopped_batch = batch
        self.model.stop_training = True
        layer = name.removesuffix(SUFFIX)
        warnings.warn(
            f"The training was ended: {int(counts[name])} steps in a row had a diverged solve in "
            f"{layer!r}. Lower the learning rate, or add Jacobian regularisation.",
            stacklevel=2,
        )
