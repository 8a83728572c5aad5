"""Adam with a rectified adaptive rate."""

import math
from typing import Any

import keras
from keras import ops

from keras_seq._export import export
from keras_seq.optimizers.strategy_safe import StrategySafe

_SHORTEST = 5.0  # the paper asks for more than 4, the authors' code for 5


@export("keras_seq.optimizers.RAdam")
class RAdam(StrategySafe, keras.optimizers.Optimizer):
    """Adam that waits with its adaptive rates until their variance is bounded.

    Liu et al., *On the Variance of the Adaptive Learning Rate and Beyond* (ICLR 2020), algorithm 2.
    With the moments m and v of Adam, at step t

        ρ∞ = 2 / (1 - β₂) - 1,    ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)

    and, where ρ is above 5, the step is η r m̂ / (√v̂ + ε') with

        r = √( (ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ) )

    and otherwise η m̂, without adaptive rates. As in the authors' code, ε is added to √v before its
    bias is corrected, and the bound is 5 (the paper's is 4). No warm-up is needed.

    Args:
        learning_rate: η; a float, or a schedule of Keras.
        beta_1: β₁, decay of the first moment.
        beta_2: β₂, decay of the second moment.
        epsilon: ε.
        l2: weight decay that is added to the gradient after clipping, as in PyTorch.
        **kwargs: of `keras.optimizers.Optimizer`, such as `global_clipnorm`.

    Raises:
        ValueError: if a decay is not in [0, 1).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras_seq.optimizers.RAdam(1e-3, global_clipnorm=0.25), loss="mse")
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
        **kwargs,
    ):
        kwargs.setdefault("name", "radam")
        super().__init__(learning_rate=learning_rate, l2=l2, **kwargs)
        for name, value in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={value}.")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = (
            [self.add_variable_from_reference(variable, name=name) for variable in variables]
            for name in ("momentum", "velocity")
        )

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        gradient, rate = ops.cast(gradient, dtype), ops.cast(learning_rate, dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))

        # Scalars in float64: ρ is a small difference of large numbers.
        step = ops.cast(self.iterations + 1, "float64")
        missing_1, missing_2 = (
            -ops.expm1(step * math.log(beta)) if beta else ops.ones_like(step)
            for beta in (self.beta_1, self.beta_2)
        )
        longest = 2 / (1 - self.beta_2) - 1
        length = longest - 2 * step * (1 - missing_2) / missing_2
        bounded = length > _SHORTEST
        safe = ops.where(bounded, length, _SHORTEST + 1)
        squared = (safe - 4) * (safe - 2) / safe * longest / ((longest - 4) * (longest - 2))
        factor = ops.sqrt(ops.where(bounded, squared * missing_2, 1))
        factor, missing_1 = ops.cast(factor, dtype), ops.cast(missing_1, dtype)
        scale = ops.where(bounded, ops.sqrt(v) + self.epsilon, ops.ones_like(v))
        self.assign_sub(variable, rate * factor * m / (missing_1 * scale))

    def get_config(self):
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }
