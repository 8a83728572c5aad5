"""Clipping that is right under a strategy and with sparse gradients; L2; rates by length."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_seq._backend import densify
from keras_seq._export import plain
from keras_seq._replicas import replica_count, sum_over_replicas


class StrategySafe:
    """Mixin for a Keras optimizer: exact clipping, L2 as in PyTorch, rates by window length.

    **Clipping.** Keras clips the gradients of each replica before it adds them up, and it clips the
    rows of a sparse (embedding) gradient before it merges rows of the same word. Here gradients are
    made dense and summed over the replicas first, on one device too. So the same model takes the
    same steps on one device and on several, and with an embedding or with one-hot products. They
    are summed once a step: Keras' own sum after clipping is left out. Without `clipnorm`,
    `global_clipnorm` or `clipvalue`, nothing is made dense, and the sum is Keras' own.

    **L2.** `l2` adds `l2 * weight` to the gradient after clipping, so it passes through
    momentum and adaptive scaling. It is what `weight_decay` means in PyTorch's optimizers other
    than AdamW; `weight_decay` of a Keras optimizer is the decoupled one. Weights named in
    `exclude_from_weight_decay` are left out of both.

    **Length.** With `nominal_length`, the learning rate of a step is multiplied by the length of
    its window over the nominal one, after clipping, as Merity, Keskar and Socher (2018, section 5)
    do for windows of random length: a short window has no larger say for each of its tokens.
    The models of this library give the length with each step; a training loop of one's own calls
    `set_window_length` before `apply_gradients`. (Keras' decoupled `weight_decay` keeps its rate.)
    """

    def __init__(self, *args, l2: float = 0.0, nominal_length: float | None = None, **kwargs):
        super().__init__(*map(plain, args), **{name: plain(kwargs[name]) for name in kwargs})
        l2, nominal_length = plain(l2), plain(nominal_length)
        if l2 < 0:
            raise ValueError(f"`l2` must not be negative. Received: l2={l2}.")
        if nominal_length is not None and nominal_length <= 0:
            raise ValueError(
                "`nominal_length` must be positive. "
                f"Received: nominal_length={nominal_length}. Use None for rates without length."
            )
        self.l2 = float(l2)
        self.nominal_length = nominal_length
        self._length_share: Any = None

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        if self.nominal_length is not None:
            # A variable, and no tensor, so that it is there wherever the update is made: under a
            # strategy, within loss scaling, in a compiled step.
            self._length_share = self.add_variable(
                shape=(),
                initializer="ones",
                dtype="float32",
                aggregation="only_first_replica",
                name="length_share",
            )

    def set_window_length(self, length) -> None:
        """Says how many time steps the window of the next update has.

        Args:
            length: a number or a scalar tensor, the same on all replicas.

        Raises:
            RuntimeError: if the optimizer is not built, or has no `nominal_length`.
        """
        if self._length_share is None:
            raise RuntimeError(
                "The optimizer must have a `nominal_length` and be built. "
                f"Received: nominal_length={self.nominal_length}, built={self.built}."
            )
        self._length_share.assign(ops.cast(length, "float32") / self.nominal_length)

    @contextlib.contextmanager
    def evaluation_weights(self, model: keras.Model | None = None) -> Iterator[None]:
        """Within this context the model has the weights that are evaluated: here as they are.

        Args:
            model: the model.
        """
        yield

    def epoch_end(self, losses: Sequence[float]) -> bool:
        """Takes in the validation losses so far, at the end of each epoch.

        Args:
            losses: the validation loss of each epoch up to this one.

        Returns:
            Whether the optimizer averages weights from now on.
        """
        return False

    @property
    def _clips(self) -> bool:
        return any(
            limit is not None and limit > 0
            for limit in (self.clipnorm, self.global_clipnorm, self.clipvalue)
        )

    def _clip_gradients(self, grads):
        if not self._clips:
            return super()._clip_gradients(grads)
        return super()._clip_gradients(sum_over_replicas([densify(grad) for grad in grads]))

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """What Keras' update on TensorFlow begins with: the sums over the replicas."""
        if self._clips:  # clipping, which comes before every update, has made them
            return grads_and_vars
        return super()._all_reduce_sum_gradients(grads_and_vars)  # type: ignore[misc]

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if self.l2:
            # Clipped gradients are sums already; others are added up after this.
            share = self.l2 if self._clips else self.l2 / replica_count()
            grads = [
                ops.add(densify(grad), share * ops.cast(variable, grad.dtype))
                if self._use_weight_decay(variable)
                else grad
                for grad, variable in zip(grads, trainable_variables, strict=True)
            ]
        learning_rate = self._rate_of_step(learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _rate_of_step(self, learning_rate):
        """The rate of the update that is being made, given that of the schedule."""
        if self._length_share is None:
            return learning_rate
        return ops.cast(learning_rate, "float32") * self._length_share

    def get_config(self):
        return {**super().get_config(), "l2": self.l2, "nominal_length": self.nominal_length}


def own_optimizer(model: Any) -> Any:
    """The optimizer of this library that a model is compiled with, taken out of loss scaling.

    Args:
        model: a model, compiled or not.

    Returns:
        A `StrategySafe` optimizer; `None` where there is none, or one of Keras itself.
    """
    optimizer = getattr(model, "optimizer", None)  # a model has none until it is compiled
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, StrategySafe) else None
