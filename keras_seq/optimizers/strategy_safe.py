"""Gradient clipping that is right under a strategy and with sparse gradients; coupled L2."""

from keras import ops

from keras_seq._backend import densify, replica_count, sum_over_replicas


class StrategySafe:
    """Mixin for a Keras optimizer: exact clipping, and L2 regularisation as in PyTorch.

    **Clipping.** Keras clips the gradients of each replica before it adds them up, and it clips the
    rows of a sparse (embedding) gradient before it merges rows of the same word. Here gradients are
    made dense and summed over the replicas first, on one device too. So the same model takes the
    same steps on one device and on several, and with an embedding or with one-hot products. Without
    `clipnorm`, `global_clipnorm` or `clipvalue`, nothing is made dense and nothing summed twice.

    **L2.** `l2` adds `l2 * weight` to the gradient after clipping, so it passes through
    momentum and adaptive scaling. It is what `weight_decay` means in PyTorch's optimizers other
    than AdamW; `weight_decay` of a Keras optimizer is the decoupled one. Weights named in
    `exclude_from_weight_decay` are left out of both.
    """

    def __init__(self, *args, l2: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        if l2 < 0:
            raise ValueError(f"`l2` must not be negative. Received: l2={l2}")
        self.l2 = float(l2)

    @property
    def _clips(self) -> bool:
        return any(
            limit is not None and limit > 0
            for limit in (self.clipnorm, self.global_clipnorm, self.clipvalue)
        )

    def _clip_gradients(self, grads):
        if not self._clips:
            return super()._clip_gradients(grads)
        grads = sum_over_replicas([densify(grad) for grad in grads])
        grads = super()._clip_gradients(grads)
        replicas = replica_count()  # Keras adds the replicas' gradients up after this
        return [grad / replicas for grad in grads] if replicas > 1 else grads

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if self.l2:
            share = self.l2 / replica_count()
            grads = [
                ops.add(densify(grad), share * ops.cast(variable, grad.dtype))
                if self._use_weight_decay(variable)
                else grad
                for grad, variable in zip(grads, trainable_variables, strict=True)
            ]
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}
