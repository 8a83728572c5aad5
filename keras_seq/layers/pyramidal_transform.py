"""The pyramidal transform: linear transforms of an input and of sub-sampled copies of it."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_choice, check_integer
from keras_seq._backend import read
from keras_seq._dtypes import largest
from keras_seq._export import export
from keras_seq.layers.causal_layer import CheckedLayer
from keras_seq.ops.halves import halves

SUBSAMPLINGS = ("average", "max", "skip", "convolution")
SPLITS = ("released", "uniform")


@export("keras_seq.layers.PyramidalTransform")
class PyramidalTransform(CheckedLayer):
    """Linear transforms at several resolutions of the input, side by side.

    Mehta et al., *Pyramidal Recurrent Unit for Language Modeling* (EMNLP 2018), section 3.1 and
    equation 2. Level 0 sees the input, and each further level the sub-sampled input of the level
    below, half as wide:

        y = [W⁰ x⁰, W¹ x¹, ..., W^{K-1} x^{K-1}] + b,    x⁰ = x,  xˡ = subsample(xˡ⁻¹)

    The windows of the sub-sampling get smaller upwards: 3 for two levels, 5 and 3 for three, 7, 5
    and 3 for four; the stride is 2. The windows reach beyond the ends of the input, where there are
    zeros, and the average counts them.

    **Split.** Equation 2 gives each level the same share of the outputs (`"uniform"`). The authors'
    code, and so their published figures, give level 1 a quarter, level 2 an eighth and so on,
    rounded up, and level 0 what remains (`"released"`, the default). Only this split gives the
    paper's 2.5M parameters of a layer of 600 units with four levels (Table 3).

    Args:
        units: output features u of a block.
        levels: number of levels K. One level is a dense layer.
        subsampling: `"average"`; `"max"` (the padding never wins); `"skip"` (every other feature);
            `"convolution"` (one learned kernel a level, limited to (-1, 1) by tanh: section 4.4).
        residual: add the input to each block where it is as wide as the block (equation 3);
            otherwise the option is without effect.
        split: how the outputs are divided over the levels, see above.
        blocks: number of outputs of u features each that are made together, for example the four
            gates of a recurrent unit; each is pyramidal.
        use_bias: whether a bias is added.
        kernel_initializer: of each level's kernel.
        bias_initializer: of the biases.
        kernel_regularizer: of each level's kernel.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (..., d).

    Output shape:
        (..., blocks * units), block after block.

    Raises:
        ValueError: if there are more levels than `units` or the input's width allow.

    Example:

    >>> layer = keras_seq.layers.PyramidalTransform(16, levels=3)
    >>> tuple(layer(np.ones((2, 8))).shape)
    (2, 16)
    >>> layer.level_units
    (10, 4, 2)
    """

    facts = ("subsampling",)

    def __init__(
        self,
        units: int,
        levels: int = 2,
        subsampling: str = "average",
        residual: bool = True,
        split: str = "released",
        blocks: int = 1,
        use_bias: bool = True,
        kernel_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = check_integer("units", units)
        self.levels = check_integer("levels", levels)
        self.subsampling = check_choice("subsampling", subsampling, SUBSAMPLINGS)
        self.residual = bool(residual)
        self.split = check_choice("split", split, SPLITS)
        self.blocks = check_integer("blocks", blocks)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        if self.level_units[0] < 1:
            raise ValueError(
                "`units` must give every level at least one output. Received: "
                f"units={units}, levels={levels}, split={split!r}. Use fewer levels."
            )

    @property
    def level_units(self) -> tuple[int, ...]:
        """Output features of each level, within a block."""
        if self.split == "uniform":
            upper = [self.units // self.levels] * (self.levels - 1)
        else:
            upper = [-(-self.units // 2 ** (level + 1)) for level in range(1, self.levels)]
        if 0 in upper:
            return (0, *upper)
        return (self.units - sum(upper), *upper)

    @property
    def window_sizes(self) -> tuple[int, ...]:
        """Sizes of the windows with which the inputs of level 1 and above are made."""
        return tuple(2 * (self.levels - level) + 1 for level in range(1, self.levels))

    def build(self, input_shape):
        super().build(input_shape)
        self.features = features = input_shape[-1]
        if features < 2 ** (self.levels - 1):
            raise ValueError(
                "The input must be wide enough to be halved `levels - 1` times. Received: "
                f"input_shape={tuple(input_shape)}, levels={self.levels}. Use fewer levels."
            )
        self.kernels, self.biases, self.windows = [], [], []
        for level, units in enumerate(self.level_units):
            if level and self.subsampling == "convolution":
                self.windows.append(
                    self.add_weight(
                        name=f"window_{level}",
                        shape=(self.window_sizes[level - 1],),
                        initializer=keras.initializers.RandomNormal(stddev=1.0),
                    )
                )
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{level}",
                    shape=(features, self.blocks * units),
                    initializer=self.kernel_initializer,
                    regularizer=self.kernel_regularizer,
                )
            )
            if self.use_bias:
                self.biases.append(
                    self.add_weight(
                        name=f"bias_{level}",
                        shape=(self.blocks * units,),
                        initializer=self.bias_initializer,
                    )
                )
            features = -(-features // 2)
        self.built = True

    @property
    def adds_input(self) -> bool:
        """Whether there is a residual connection, with the input that the layer was built for."""
        return self.residual and self.features == self.units

    def subsampled(self, x, level: int):
        """The input of a level from that of the level below: (..., m) to (..., ceil(m / 2))."""
        if self.subsampling == "skip":
            return x[..., ::2]
        size, width = self.window_sizes[level - 1], int(x.shape[-1])
        lowest = -largest(keras.backend.standardize_dtype(x.dtype))
        outside = lowest if self.subsampling == "max" else 0.0
        if width % 2:
            x = _beside(x, 0, 1, outside)
        even_and_odd = halves(x)
        # Place p of window j sees feature 2j + p - size // 2: among the even or the odd ones,
        # that of j and some places on.
        views = []
        for offset in range(-(size // 2), size // 2 + 1):
            places, parity = divmod(offset, 2)
            views.append(_shifted(even_and_odd[parity], places, outside))
        if self.subsampling == "convolution":
            window = ops.tanh(ops.cast(self.windows[level - 1], x.dtype))
            views = [view * window[place] for place, view in enumerate(views)]
        total = views[0]
        for view in views[1:]:
            total = ops.maximum(total, view) if self.subsampling == "max" else total + view
        return total / size if self.subsampling == "average" else total

    def products(self, x, kernels=None):
        """The transform without its bias, the residual connection included.

        Args:
            x: (..., d).
            kernels: kernels of the levels to use in place of the layer's own.
        """
        lead, width = tuple(ops.shape(x))[:-1], int(x.shape[-1])
        rows = source = ops.reshape(x, (-1, width))
        outputs = []
        levels = zip(kernels or self.kernels, self.level_units, strict=True)
        for level, (kernel, units) in enumerate(levels):
            if level:
                source = self.subsampled(source, level)
            y = ops.matmul(source, ops.cast(kernel, x.dtype))
            outputs.append(ops.reshape(y, (-1, self.blocks, units)))
        y = outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)
        if self.adds_input:
            y = y + rows[:, None]
        return ops.reshape(y, (*lead, self.blocks * self.units))

    def joined_bias(self):
        """The bias in the order of the outputs, (blocks * units,); zero without one."""
        if not self.use_bias:
            return ops.zeros((self.blocks * self.units,), self.compute_dtype)
        parts = [ops.reshape(bias, (self.blocks, -1)) for bias in self.biases]
        bias = ops.reshape(ops.concatenate(parts, axis=-1), (-1,))
        return ops.cast(bias, self.compute_dtype)

    def call(self, x):
        y = self.products(x)
        return y + self.joined_bias() if self.use_bias else y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.blocks * self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            "subsampling": self.subsampling,
            "residual": self.residual,
            "split": self.split,
            "blocks": self.blocks,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _shifted(x, places: int, outside: float):
    """(..., n) with feature j + places at j, and a value outside of the features."""
    if not places:
        return x

    @ops.custom_gradient
    def shift(x):
        def grad(*args, upstream=None):
            return move(args[0] if upstream is None else upstream, -places, 0.0)

        return move(x, places, outside), grad

    def move(x, places, outside):
        if places < 0:
            return _beside(x[..., :places], -places, 0, outside)
        return _beside(x[..., places:], 0, places, outside)

    return shift(read(x))


def _beside(x, before: int, after: int, value: float):
    """(..., n) with a value before and after the features."""
    padding = [[0, 0]] * (len(x.shape) - 1) + [[before, after]]
    return ops.pad(x, padding, constant_values=value)
