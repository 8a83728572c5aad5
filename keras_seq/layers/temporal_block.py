"""The residual block of a temporal convolutional network."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import (
    activation_config,
    check_choice,
    check_integer,
    check_rate,
    fan_in_uniform,
    get_activation,
)
from keras_seq._backend import wants_portable_operations
from keras_seq._export import export
from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.layers.batch_normalization import BatchNormalization
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.outline import Part, Residual
from keras_seq.layers.seeded_layer import SeededLayer
from keras_seq.ops import time_shift as shift
from keras_seq.ops.lost_steps import only
from keras_seq.ops.packing import last_steps
from keras_seq.ops.seeded_dropout import seed_of_place, seeded_dropout
from keras_seq.ops.weight_norm import direction_norm, weight_normalize

PADDINGS = ("causal", "same")
NORMALIZATIONS = {
    "layer": keras.layers.LayerNormalization,
    "batch": BatchNormalization,
}


@export("keras_seq.layers.TemporalBlock")
class TemporalBlock(SeededLayer, CausalLayer):
    """Two dilated causal convolutions with a residual connection.

    Bai, Kolter and Koltun, *An Empirical Evaluation of Generic Convolutional and Recurrent Networks
    for Sequence Modeling* (2018), section 3.3 and figure 1b. With F(x) a convolution, the
    activation and dropout, twice, the block is

        activation(x + F(x))

    where x passes a convolution of one tap if it has not `units` features.

    **State.** The last (kernel_size - 1) · dilation_rate inputs of each convolution: chunks, down
    to single steps, give the outputs of the full pass.

    Args:
        units: output channels u of both convolutions.
        kernel_size: taps k.
        dilation_rate: steps between two taps.
        activation: of each convolution and of the sum.
        weight_normalization: give each output channel of both kernels a gain of its own (Salimans
            and Kingma, 2016), which starts at the norm of the channel. `None`: where there is no
            other `normalization`.
        dropout: rate after each convolution.
        spatial_dropout: drop whole channels, as the paper says, or single values, as its released
            code does.
        kernel_initializer: of both kernels; by default uniform within ± 1 / √fan-in, as the biases.
        seed: of the dropout.
        normalization: of what each convolution gives, before the activation: `"layer"` over the
            channels of a step, `"batch"` over the valid steps of a batch, or `None`. In training
            the latter sees all steps, later ones too; otherwise each step is on its own.
        branch_activation: apply the activation once more at the end of F(x), as keras-tcn does.
            With a ReLU nothing changes.
        padding: `"causal"`, or `"same"` for convolutions that see as far ahead as back. Such a
            block has no state.
        bias_initializer: of all biases; by default uniform within ± 1 / √fan-in.
        residual_initializer: of the kernel of one tap; by default normal with deviation 0.01.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d).
        initial_state: a state from `get_initial_state` or an earlier call; `None` for zeros.
        return_state: also return the state after the last step.
        training: whether to draw dropout masks.
        masks: what dropout follows from, as from `get_masks`, whatever `training` is; `{}`: none.
        dropout_seed: a seed tensor (2,), short for `masks={"seed": dropout_seed}`.
        mask: (b, t), true at valid steps, see `CausalLayer`.
        return_branch: also return F(x), (b, t, u), as the second element.

    Output shape:
        (b, t, u). The state is a list of the last inputs of the first convolution
        (b, (k-1) · dilation_rate, d) and of the second (b, (k-1) · dilation_rate, u).

    Raises:
        ValueError: on sizes that are not positive, or a rate that is not in [0, 1); where a state
            is asked for with `padding="same"`.

    Example:

    >>> block = keras_seq.layers.TemporalBlock(8, kernel_size=3, dilation_rate=2)
    >>> x = np.ones((2, 10, 4), "float32")
    >>> y, state = block(x, return_state=True)
    >>> tuple(y.shape), [tuple(part.shape) for part in state]
    ((2, 10, 8), [(2, 4, 4), (2, 4, 8)])
    """

    given_parts = ("activation",)

    def __init__(
        self,
        units: int,
        kernel_size: int,
        dilation_rate: int = 1,
        activation: Any = "relu",
        weight_normalization: bool | None = None,
        dropout: float = 0.0,
        spatial_dropout: bool = False,
        kernel_initializer: Any = None,
        seed: int | None = None,
        normalization: str | None = None,
        branch_activation: bool = False,
        padding: str = "causal",
        bias_initializer: Any = None,
        residual_initializer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = check_integer("units", units)
        self.kernel_size = check_integer("kernel_size", kernel_size)
        self.dilation_rate = check_integer("dilation_rate", dilation_rate)
        self.activation = get_activation(activation)
        if normalization is not None:
            check_choice("normalization", normalization, tuple(NORMALIZATIONS))
        self.normalization = normalization
        if weight_normalization is None:
            weight_normalization = normalization is None
        self.weight_normalization = bool(weight_normalization)
        self.dropout = check_rate(dropout, "dropout")
        self.spatial_dropout = bool(spatial_dropout)
        self.kernel_initializer = fan_in_uniform(kernel_initializer)
        self.branch_activation = bool(branch_activation)
        self.padding = check_padding(padding, self)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.residual_initializer = keras.initializers.get(residual_initializer)
        self.norms: list[Any] = []
        if normalization is not None:
            self.norms = [
                NORMALIZATIONS[normalization](dtype=self.dtype_policy, name=f"{place}_norm")
                for place in ("first", "second")
            ]
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def is_causal(self) -> bool:
        """Whether no output has seen a step after its own."""
        return self.padding == "causal" and super().is_causal

    @property
    def past(self) -> int:
        """Steps that a convolution looks back, or both ways with `padding="same"`."""
        return (self.kernel_size - 1) * self.dilation_rate

    @property
    def output_units(self) -> int:
        """Width of the output, `units`."""
        return self.units

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included."""
        return 1 + 2 * self.past

    def build(self, input_shape):
        super().build(input_shape)
        self.features = int(input_shape[-1])
        self.first = self._build_convolution("first", self.features)
        self.second = self._build_convolution("second", self.units)
        if isinstance(self.activation, keras.layers.Layer) and not self.activation.built:
            self.activation.build((*input_shape[:-1], self.units))
        for norm in self.norms:
            norm.build((*input_shape[:-1], self.units))
        self.residual = None
        if self.features != self.units:
            kernel = self.add_weight(
                name="residual_kernel",
                shape=(self.features, self.units),
                initializer=self.residual_initializer
                or keras.initializers.RandomNormal(stddev=0.01),
            )
            self.residual = [kernel, self._build_bias("residual", self.features)]

    def _build_convolution(self, name: str, features: int) -> list:
        """Kernel and bias of a convolution, and its gain if weights are normalised."""
        kernel = self.add_weight(
            name=f"{name}_kernel",
            shape=(self.kernel_size, features, self.units),
            initializer=self.kernel_initializer,
            autocast=False,
        )
        bias = self._build_bias(name, self.kernel_size * features)
        if not self.weight_normalization:
            return [kernel, bias]
        gain = self.add_weight(
            name=f"{name}_gain",
            shape=(self.units,),
            initializer=lambda shape, dtype=None: ops.cast(direction_norm(kernel.value), dtype),
            autocast=False,
        )
        return [kernel, bias, gain]

    def _build_bias(self, name: str, fan_in: int):
        limit = fan_in**-0.5
        return self.add_weight(
            name=f"{name}_bias",
            shape=(self.units,),
            initializer=self.bias_initializer or keras.initializers.RandomUniform(-limit, limit),
        )

    def get_initial_state(self, batch_size, kind=None):
        """The state before the first step: zeros.

        Args:
            batch_size: the batch size b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        refuse_state(self)
        if not self.built:
            raise ValueError("The layer must be built first. Call it, or its `build((b, t, d))`.")
        return [
            ops.zeros((batch_size, self.past, width), self.compute_dtype)
            for width in (self.features, self.units)
        ]

    def outline(self):
        """The parts in order, with their residual connection, for diagrams."""
        facts = (f"kernel size {self.kernel_size}",)
        parts: list[Any] = []
        for place, kernel in enumerate((self.first, self.second)):
            parts += [Part("Convolution", tuple(kernel), facts), *self.norms[place : place + 1]]
        return (Residual(tuple(parts), "" if self.residual is None else "1 × 1 convolution"),)

    def compute_output_spec(self, x, *args, return_branch=False, **options):
        """Symbolic results of a call, the branch among them where it is asked for."""
        results = super().compute_output_spec(x, *args, **options)
        if not return_branch:
            return results
        outputs, *rest = results if isinstance(results, tuple) else (results,)
        branch = keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)
        return (outputs, branch, *rest)

    def call(
        self,
        x,
        initial_state=None,
        return_state=False,
        training=None,
        masks=None,
        dropout_seed=None,
        return_branch=False,
        mask=None,
    ):
        if return_state or initial_state is not None:
            refuse_state(self)
        seed = self.seed_of(training, masks, dropout_seed)
        state = [None, None] if initial_state is None else initial_state
        inner, state_1 = self._convolve(x, 0, state[0], return_state, training, mask)
        inner = self._drop(inner, seed_of_place(seed, 1))
        branch, state_2 = self._convolve(inner, 1, state[1], return_state, training, mask)
        branch = self._drop(branch, seed_of_place(seed, 2))
        if self.branch_activation:
            branch = self.activation(branch)
        if self.residual is not None:
            kernel, bias = self.residual
            x = ops.matmul(x, kernel) + bias
        results = [self.activation(branch + x)]
        if return_branch:
            results.append(branch)
        if return_state:
            results.append([state_1, state_2])
        return results[0] if len(results) == 1 else tuple(results)

    def _convolve(self, x, place: int, past, return_state: bool, training, mask):
        """The activated convolution of x after its past, and the past of the next chunk."""
        if mask is not None and self.padding == "same":
            x = only(mask, x)  # what stands behind the last valid step is seen
        weights = (self.first, self.second)[place]
        kernel, bias = weights[0], weights[1]
        if self.weight_normalization:
            kernel = weight_normalize(kernel, weights[2])
        batch = ops.shape(x)[0]
        # Of a batch without rows TensorFlow's oneDNN kernel gets the shape wrong: it gets a row.
        # Runtimes for devices have other kernels, and none for a batch that is a sum.
        known = isinstance(batch, int) or wants_portable_operations()
        missing = int(isinstance(batch, int) and batch == 0) if known else ops.maximum(1 - batch, 0)
        if past is None:
            ahead = self.past - self.past // 2 if self.padding == "same" else 0
            whole = ops.pad(x, [[0, missing], [self.past - ahead, ahead], [0, 0]])
        else:
            whole = ops.concatenate([ops.cast(past, x.dtype), x], axis=1)
            if not known or missing:
                whole = ops.pad(whole, [[0, missing], [0, 0], [0, 0]])
        # Without padding of its own the convolution gives one output for each step of x.
        outputs = ops.conv(
            whole,
            ops.cast(kernel, x.dtype),
            padding="valid",
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if not known or missing:
            whole, outputs = whole[:batch], outputs[:batch]
        final = None
        if return_state and mask is None:
            final = shift.last(whole, self.past)
        elif return_state:
            final = last_steps(whole, mask, self.past)
        outputs = outputs + bias
        if self.normalization == "layer":
            outputs = self.norms[place](outputs)
        elif self.normalization == "batch":
            outputs = self.norms[place](outputs, training=training, mask=mask)
        return self.activation(outputs), final

    def _drop(self, x, seed):
        if seed is None or not self.dropout or not self.spatial_dropout:
            return seeded_dropout(x, self.dropout, seed)
        shape = (ops.shape(x)[0], 1, self.units)
        return x * bernoulli_mask(shape, self.dropout, DrawnSeed(seed), x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "activation": activation_config(self.activation),
            "weight_normalization": self.weight_normalization,
            "dropout": self.dropout,
            "spatial_dropout": self.spatial_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
            "normalization": self.normalization,
            "branch_activation": self.branch_activation,
            "padding": self.padding,
            "bias_initializer": initializer_config(self.bias_initializer),
            "residual_initializer": initializer_config(self.residual_initializer),
        }


def check_padding(padding, layer) -> str:
    """Returns the padding of a layer's convolutions after a check with its other options."""
    if check_choice("padding", padding, PADDINGS) == "same" and layer.lookahead:
        raise ValueError(
            "`lookahead` must be 0 with padding='same', whose convolutions look ahead themselves. "
            f"Received: lookahead={layer.lookahead}, padding='same'. Give one of them."
        )
    return padding


def initializer_config(initializer):
    """The configuration of an initializer; `None` stays `None`."""
    return None if initializer is None else keras.initializers.serialize(initializer)


def refuse_state(layer) -> None:
    """Refuses a state of convolutions that see later steps."""
    if layer.padding == "same":
        raise ValueError(
            "`padding` must be 'causal' for a state: with 'same' an output depends on later steps, "
            f"too, so that no chunk can be answered on its own. Received: padding='same' in a "
            f"{type(layer).__name__} that was given or asked for a state. Call it with the whole "
            "sequence, without `initial_state` and `return_state`."
        )
