"""Keras' optimizers with exact clipping and coupled L2."""

from typing import Any

import keras
from keras import ops

from keras_seq._backend import densify
from keras_seq._export import export
from keras_seq.optimizers._backend import adam_step
from keras_seq.optimizers.strategy_safe import StrategySafe


@export("keras_seq.optimizers.SGD")
class SGD(StrategySafe, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with clipping that is exact under a strategy, and `l2`.

    Without momentum, `l2` and Keras' `weight_decay` are the same thing; with momentum they differ.
    With `nominal_length=n`, as in every optimizer here, the rate of a step on a window of m time
    steps is m / n times the learning rate (Merity et al., 2018, section 5).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> optimizer = keras_seq.optimizers.SGD(20.0, global_clipnorm=0.225, l2=1.2e-6)
    >>> model.compile(optimizer, loss="mse")
    """


class _OneOperation:
    """Mixin for Adam: the step of a variable is one operation, where Keras makes a dozen passes."""

    def update_step(self: Any, gradient, variable, learning_rate):
        if not self.amsgrad:
            index = self._get_variable_index(variable)
            step = ops.cast(self.iterations + 1, "float32")
            betas = (self.beta_1, self.beta_2)
            done = adam_step(
                variable,
                self._momentums[index],
                self._velocities[index],
                ops.cast(densify(gradient), "float32"),
                ops.cast(learning_rate, "float32"),
                [ops.power(ops.cast(beta, "float32"), step) for beta in betas],
                betas,
                self.epsilon,
            )
            if done:
                return
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]


@export("keras_seq.optimizers.Adam")
class Adam(StrategySafe, _OneOperation, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with clipping that is exact under a strategy, and `l2`.

    On TensorFlow a variable's step is one operation, which gives the same values several times
    faster; not with `amsgrad`, nor for variables that are not float32.
    """


@export("keras_seq.optimizers.AdamW")
class AdamW(StrategySafe, _OneOperation, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with clipping that is exact under a strategy, and `l2`.

    Its steps are made as those of `Adam`.
    """


@export("keras_seq.optimizers.RMSprop")
class RMSprop(StrategySafe, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Adagrad")
class Adagrad(StrategySafe, keras.optimizers.Adagrad):
    """`keras.optimizers.Adagrad` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Adadelta")
class Adadelta(StrategySafe, keras.optimizers.Adadelta):
    """`keras.optimizers.Adadelta` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Adamax")
class Adamax(StrategySafe, keras.optimizers.Adamax):
    """`keras.optimizers.Adamax` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Nadam")
class Nadam(StrategySafe, keras.optimizers.Nadam):
    """`keras.optimizers.Nadam` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Lamb")
class Lamb(StrategySafe, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb` with clipping that is exact under a strategy, and `l2`."""


@export("keras_seq.optimizers.Lion")
class Lion(StrategySafe, keras.optimizers.Lion):
    """`keras.optimizers.Lion` with clipping that is exact under a strategy, and `l2`."""
