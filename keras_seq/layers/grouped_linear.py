"""A linear transform of contiguous groups of features."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_integer
from keras_seq._export import export
from keras_seq.layers.causal_layer import CheckedLayer


@export("keras_seq.layers.GroupedLinear")
class GroupedLinear(CheckedLayer):
    """Splits the features into groups and gives each group a linear transform of its own.

    Mehta et al., *Pyramidal Recurrent Unit for Language Modeling* (EMNLP 2018), section 3.2: with
    g groups,

        y = [W₁ x₁, ..., W_g x_g] + b

    where x₁, ..., x_g are contiguous parts of x. The output is as wide as that of a dense layer at
    one g-th of its weights. One group is a dense layer.

    Args:
        units: output features u of a block; a multiple of `groups`.
        groups: number of groups g.
        blocks: number of outputs of u features each that are made together, for example the four
            gates of a recurrent unit. Every group contributes u / g features to each block.
        use_bias: whether a bias is added.
        kernel_initializer: of the kernel. By default it is drawn as the authors' code does it: as
            one orthogonal matrix with a row for each group, which makes the entries about
            1 / sqrt(d u blocks / g²) in size, much smaller than those of a matrix with orthogonal
            rows.
        bias_initializer: of the bias.
        kernel_regularizer: of the kernel.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (..., d), with d a multiple of `groups`.

    Output shape:
        (..., blocks * units), block after block.

    Raises:
        ValueError: if `units` or d is no multiple of `groups`.

    Example:

    >>> layer = keras_seq.layers.GroupedLinear(6, groups=2)
    >>> tuple(layer(np.ones((3, 4))).shape)
    (3, 6)
    >>> tuple(layer.kernel.shape)
    (2, 2, 3)
    """

    facts = ("groups",)

    def __init__(
        self,
        units: int,
        groups: int = 1,
        blocks: int = 1,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = check_integer("units", units)
        self.groups = check_integer("groups", groups)
        self.blocks = check_integer("blocks", blocks)
        if units % groups:
            raise ValueError(
                f"`units` must be divisible by `groups`. Received: units={units}, "
                f"groups={groups}. Choose a multiple of {groups}, or fewer groups."
            )
        self.use_bias = bool(use_bias)
        self.kernel_initializer = (
            None if kernel_initializer is None else keras.initializers.get(kernel_initializer)
        )
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        super().build(input_shape)
        features = input_shape[-1]
        if features % self.groups:
            raise ValueError(
                "The input's features must be divisible by `groups`. Received: "
                f"input_shape={tuple(input_shape)}, groups={self.groups}."
            )
        outputs = self.blocks * self.units // self.groups
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.groups, features // self.groups, outputs),
            initializer=self.kernel_initializer or _rows_of_groups,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.groups, outputs), initializer=self.bias_initializer
            )
        self.built = True

    @property
    def kernels(self) -> list:
        """The kernel, as a list of one: what weight dropout may act on."""
        return [self.kernel]

    def products(self, x, kernels=None):
        """The transform without its bias.

        Args:
            x: (..., d).
            kernels: a list of one kernel to use in place of the layer's own.
        """
        kernel = ops.cast((kernels or self.kernels)[0], x.dtype)
        groups, inputs, outputs = kernel.shape
        rows = ops.reshape(x, (-1, groups, inputs))
        lead = tuple(ops.shape(x))[:-1]
        if groups == 1:
            y = ops.matmul(rows[:, 0], kernel[0])
        else:
            y = ops.matmul(ops.transpose(rows, (1, 0, 2)), kernel)  # (g, rows, blocks * u/g)
            y = ops.reshape(y, (groups, -1, self.blocks, outputs // self.blocks))
            y = ops.transpose(y, (1, 2, 0, 3))
        return ops.reshape(y, (*lead, self.blocks * self.units))

    def joined_bias(self):
        """The bias in the order of the outputs, (blocks * units,); zero without one."""
        if self.bias is None:
            return ops.zeros((self.blocks * self.units,), self.compute_dtype)
        bias = ops.reshape(self.bias, (self.groups, self.blocks, -1))
        bias = ops.reshape(ops.transpose(bias, (1, 0, 2)), (-1,))
        return ops.cast(bias, self.compute_dtype)

    def call(self, x):
        y = self.products(x)
        return y + self.joined_bias() if self.use_bias else y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.blocks * self.units)

    def get_config(self):
        initializer = self.kernel_initializer
        return {
            **super().get_config(),
            "units": self.units,
            "groups": self.groups,
            "blocks": self.blocks,
            "use_bias": self.use_bias,
            "kernel_initializer": None
            if initializer is None
            else keras.initializers.serialize(initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _rows_of_groups(shape, dtype=None):
    """An orthogonal matrix with one row a group, as the groups' kernels."""
    matrix = keras.initializers.Orthogonal()((shape[0], shape[1] * shape[2]), dtype=dtype)
    return ops.reshape(matrix, shape)
