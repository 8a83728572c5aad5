"""Averaged stochastic gradient descent with a non-monotone trigger."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq._export import export
from keras_seq.optimizers.strategy_safe import StrategySafe, own_optimizer

FORMS = ("paper", "released")
_NOT_YET = -1


@export("keras_seq.optimizers.NTASGD")
class NTASGD(StrategySafe, keras.optimizers.Optimizer):
    """SGD that begins to average the weights when the validation loss no longer falls.

    Merity, Keskar and Socher, *Regularizing and Optimizing LSTM Language Models* (2018), section 3
    and algorithm 1. The steps are those of plain SGD throughout. From the trigger at step T on, the
    mean of the iterates is kept beside them:

        w_{k+1} = w_k - η ∇f(w_k),    w̄ = (w_{T+1} + ... + w_K) / (K - T)

    Training goes on with the raw weights w; evaluation takes the mean w̄: see `evaluation_weights`,
    which `keras_seq.training` uses. The trigger is pulled by `epoch_end(losses)` after the
    validation of each epoch, as the callback `keras_seq.optimizers.NonMonotoneTrigger` does, or by
    `start_averaging()`. Means and trigger are variables of the optimizer, so a checkpoint that
    holds its variables resumes exactly.

    **As released.** The released code averages with PyTorch's `ASGD`, which departs from that in
    two ways, and so does `form="released"`: the mean leaves out the first iterate, (w_{T+2} + ... +
    w_K) / (K - T - 1), once there is a second; and, since a rate is computed at the end of the step
    before it is used, every averaged step but the first has the rate of the *previous* step: with
    `nominal_length`, that of the previous window.

    Args:
        learning_rate: η; a float, or a schedule of Keras.
        nonmonotone: epochs n of the trigger: it is pulled when an epoch's loss is above the
            smallest loss of the epochs more than n before it. `None` for never.
        average_from: step from which the weights are averaged without a trigger, for example 0 in a
            fine-tuning stage that starts from trained weights; `None` to wait for the trigger.
        l2: weight decay that is added to the gradient after clipping, as in PyTorch.
        form: `"paper"`, algorithm 1, or `"released"`.
        **kwargs: `nominal_length`, see `keras_seq.optimizers.SGD`, and those of
            `keras.optimizers.Optimizer`, such as `global_clipnorm`.

    Raises:
        ValueError: if `nonmonotone` or `average_from` is negative, or `form` is another one.

    Example:

    >>> optimizer = keras_seq.optimizers.NTASGD(30.0, nonmonotone=5, global_clipnorm=0.25)
    >>> optimizer.averaging
    False
    """

    def __init__(
        self,
        learning_rate: Any = 30.0,
        nonmonotone: int | None = 5,
        average_from: int | None = None,
        l2: float = 0.0,
        form: str = "paper",
        **kwargs,
    ):
        kwargs.setdefault("name", "nt_asgd")
        super().__init__(learning_rate=learning_rate, l2=l2, **kwargs)
        for name, value in (("nonmonotone", nonmonotone), ("average_from", average_from)):
            if value is not None and value < 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {name}={value}. Use None for never."
                )
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}. Received: form={form!r}.")
        self.form = form
        self.nonmonotone = nonmonotone
        self.average_from = average_from
        self._averages: list[Any] = []

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._averages = [
            self.add_variable_from_reference(variable, name="average") for variable in variables
        ]
        start = _NOT_YET if self.average_from is None else self.average_from
        self._trigger = self.add_variable(
            shape=(), initializer=keras.initializers.Constant(start), dtype="int64", name="trigger"
        )
        self._previous_rate: Any = None
        if self.form == "released":
            self._previous_rate = self.add_variable(
                shape=(),
                initializer="zeros",
                dtype="float32",
                aggregation="only_first_replica",
                name="previous_rate",
            )

    def _rate_of_step(self, learning_rate):
        rate = super()._rate_of_step(learning_rate)
        if self._previous_rate is None:
            return rate
        rate = ops.cast(rate, "float32")
        averaged = self._averaged_steps()
        used = ops.where(averaged > 1, ops.convert_to_tensor(self._previous_rate), rate)
        self._previous_rate.assign(rate)
        return used

    def _averaged_steps(self):
        """Iterates in the mean after the present step; not positive before the trigger."""
        trigger, step = ops.cast(self._trigger, "int64"), ops.cast(self.iterations, "int64")
        return ops.where(trigger >= 0, step - trigger + 1, 0)

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        weight = ops.cast(variable, variable.dtype) - rate * ops.cast(gradient, variable.dtype)
        self.assign(variable, weight)
        average = self._averages[self._get_variable_index(variable)]
        # 1 / (number of iterates in the mean); 0 before the trigger.
        count = self._averaged_steps()
        active = count > 0
        if self.form == "released":
            count = count - 1
        count = ops.maximum(count, 1)
        share = ops.cast(active, average.dtype) / ops.cast(count, average.dtype)
        self.assign_add(average, share * (weight - average))

    @property
    def averaging(self) -> bool:
        """Whether the mean holds at least one iterate, so that evaluation uses it."""
        return self.built and 0 <= _number(self._trigger) < _number(self.iterations)

    @property
    def triggered(self) -> bool:
        """Whether averaging has begun or will begin at a known step."""
        if not self.built:
            return self.average_from is not None
        return _number(self._trigger) >= 0

    def start_averaging(self) -> None:
        """Begins the mean with the next step; without effect when it has begun."""
        if not self.built:
            raise RuntimeError("The optimizer must be built first: call `build(variables)`.")
        if not self.triggered:
            self._trigger.assign(_number(self.iterations))

    def epoch_end(self, losses: Sequence[float]) -> bool:
        """Pulls the trigger if the losses ask for it.

        With n = `nonmonotone` and v₁ … vₑ the losses so far: if e > n + 1 and
        vₑ > min(v₁, …, vₑ₋₁₋ₙ). A loss that is not a number counts as worse than any other.

        Args:
            losses: the validation loss of each epoch up to this one.

        Returns:
            Whether averaging began just now.
        """
        if self.nonmonotone is None or self.triggered or not len(losses):
            return False
        ranks = [loss if loss == loss else float("inf") for loss in losses]
        earlier = ranks[: len(ranks) - 1 - self.nonmonotone]
        if len(ranks) - 1 <= self.nonmonotone or ranks[-1] <= min(earlier):
            return False
        self.start_averaging()
        return True

    @contextlib.contextmanager
    def evaluation_weights(self, model: keras.Model | None = None) -> Iterator[None]:
        """Within this context, the model's weights are the means, if there are means.

        At the end the raw weights come back, bit for bit. Contexts may be nested.

        Args:
            model: accepted as every optimizer with such a context does; the weights are those that
                the optimizer was built for.
        """
        if not self.averaging:
            yield
            return
        variables = self._trainable_variables
        raw = [_array(variable) for variable in variables]
        for variable, average in zip(variables, self._averages, strict=True):
            variable.assign(_array(average))
        try:
            yield
        finally:
            for variable, values in zip(variables, raw, strict=True):
                variable.assign(values)

    def get_config(self):
        return {
            **super().get_config(),
            "nonmonotone": self.nonmonotone,
            "average_from": self.average_from,
            "form": self.form,
        }


def _array(variable) -> np.ndarray:
    """A copy of a variable's value, under a strategy too."""
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(variable)))


def _number(variable) -> int:
    return int(_array(variable))


class NonMonotoneTrigger(keras.callbacks.Callback):
    """Pulls the trigger of `NTASGD`, and evaluates with its averaged weights.

    After each epoch the optimizer gets the validation losses so far. While a validation runs, the
    model's weights are the averaged ones. To save those, use
    `with optimizer.evaluation_weights(model): model.save_weights(...)`.

    Args:
        monitor: the validation loss's name in the logs; smaller must be better.

    Raises:
        ValueError: if the model's optimizer is not `NTASGD`, or the logs lack the loss.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_seq.optimizers import NTASGD, NonMonotoneTrigger

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(NTASGD(0.1, nonmonotone=1), loss="mse")
    x = np.random.normal(size=(32, 4))
    y = x[:, :1]
    trigger = NonMonotoneTrigger()
    history = model.fit(
        x, y, validation_data=(x, y), epochs=2, callbacks=[trigger], verbose=0
    )
    ```
    """

    def __init__(self, monitor: str = "val_loss"):
        super().__init__()
        self.monitor = monitor
        self._losses: list[float] = []
        self._swapped = contextlib.ExitStack()

    def get_state(self) -> dict[str, list[float]]:
        """What a resumed run needs: the losses so far."""
        return {"losses": list(self._losses)}

    def set_state(self, state: dict[str, list[float]]) -> None:
        """Takes up what `get_state` returned."""
        self._losses = list(state["losses"])

    def on_train_begin(self, logs=None):
        if not isinstance(own_optimizer(self.model), NTASGD):
            raise ValueError(
                "The model's optimizer must be NTASGD. "
                f"Received: {type(self.model.optimizer).__name__}. Compile the model with it."
            )

    def on_test_begin(self, logs=None):
        optimizer = own_optimizer(self.model)
        self._swapped.enter_context(optimizer.evaluation_weights(self.model))

    def on_test_end(self, logs=None):
        self._swapped.close()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.monitor not in logs:
            known = ", ".join(sorted(logs))
            raise ValueError(
                f"`monitor` must be one of: {known}. Received: monitor={self.monitor!r}. "
                "The trigger needs validation data."
            )
        self._losses.append(float(logs[self.monitor]))
        own_optimizer(self.model).epoch_end(self._losses)
