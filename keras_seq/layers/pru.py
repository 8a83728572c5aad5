"""The pyramidal recurrent unit over a whole sequence."""

from typing import Any

import keras
from keras import ops

from keras_seq._arguments import check_rate
from keras_seq._export import export
from keras_seq._random import bernoulli_mask, draw_seed
from keras_seq.layers.causal_layer import CausalLayer, check_exact
from keras_seq.layers.grouped_linear import GroupedLinear
from keras_seq.layers.pru_cell import GATES, PRUCell
from keras_seq.ops.gated_recurrence import gated_recurrence, gates_of
from keras_seq.ops.packing import last_valid

_FAR = 1e4


@export("keras_seq.layers.PRU")
class PRU(CausalLayer):
    """A layer of pyramidal recurrent units.

    Mehta et al., *Pyramidal Recurrent Unit for Language Modeling* (EMNLP 2018), section 3; see
    `PRUCell` for the equations. The input transform of all time steps is computed at once, outside
    of the loop over time. The loop has a gradient of its own, and the graph holds one step whatever
    the length.

    With one group, one level and no residual connection it is an LSTM: `keras.layers.LSTM` with its
    gates i, f, g, o put into the order f, g, i, o, and the one bias there as the sum of the two
    here.

    Args:
        units: width u of hidden and cell state, and of the output.
        levels: levels K of pyramidal transforms.
        groups: groups g of grouped transforms.
        input_transform: `"pyramidal"`, `"linear"` or `"grouped"`.
        context_transform: `"grouped"`, `"linear"` or `"pyramidal"`; the last one runs a plain loop.
        subsampling, split: of pyramidal transforms, see `PyramidalTransform`.
        residual: add the input to all four gates, where it has u features and its transform is
            pyramidal.
        weight_dropout: rate of the dropout on the elements of the context transform's kernel, one
            draw a call for all steps (Merity et al., 2018, section 2).
        kernel_initializer: of the input transform.
        recurrent_initializer: of the context transform; see `PRUCell`.
        bias_initializer: of both biases.
        kernel_regularizer: of the input transform's kernels.
        recurrent_regularizer: of the context transform's kernels.
        seed: of the dropout masks.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        x: (b, t, d), with at least one step.
        initial_state: `[h, c]`, each (b, u), or `None` for zeros.
        return_state: also return the final state, as the last element.
        training: whether to draw dropout masks.
        masks: dropout masks to use whatever `training` is, as from `get_masks`; `{}` for none.
        mask: (b, t), true at valid steps, see `CausalLayer`.

    Output shape:
        (b, t, u).

    Raises:
        ValueError: on an unknown transform, or sizes that groups or levels do not divide.

    Example:

    >>> layer = keras_seq.layers.PRU(8, levels=2, groups=4)
    >>> x = np.ones((2, 5, 6), "float32")
    >>> y, state = layer(x, return_state=True)
    >>> tuple(y.shape), [tuple(part.shape) for part in state]
    ((2, 5, 8), [(2, 8), (2, 8)])
    """

    facts = ("groups", "subsampling")

    def __init__(
        self,
        units: int,
        levels: int = 2,
        groups: int = 1,
        input_transform: str = "pyramidal",
        context_transform: str = "grouped",
        subsampling: str = "average",
        split: str = "released",
        residual: bool = True,
        weight_dropout: float = 0.0,
        kernel_initializer: Any = "orthogonal",
        recurrent_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cell = PRUCell(
            units,
            levels=levels,
            groups=groups,
            input_transform=input_transform,
            context_transform=context_transform,
            subsampling=subsampling,
            split=split,
            residual=residual,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            dtype=self.dtype_policy,
            name="cell",
        )
        self.units = units
        self.weight_dropout = check_rate(weight_dropout, "weight_dropout")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def loop(self) -> str:
        """What is repeated with the same weights."""
        return "over time"

    @property
    def output_units(self) -> int:
        """Width of the output."""
        return self.units

    def build(self, input_shape):
        super().build(input_shape)
        if not self.cell.built:
            self.cell.build((input_shape[0], input_shape[2]))
        self.built = True

    def get_initial_state(self, batch_size, kind: str | None = None):
        """The state before the first step: zeros.

        Args:
            batch_size: b, an integer or a scalar tensor.
            kind: `"exact"` or `None`; there is one kind.
        """
        check_exact(kind)
        return self.cell.get_initial_state(batch_size)

    def get_masks(self, batch_size) -> dict:
        """Draws the dropout masks of one call.

        Args:
            batch_size: accepted as every layer does; the masks do not depend on it.

        Returns:
            `{"weight": [...]}`, a mask for each kernel of the context transform (one, unless it is
            pyramidal) in the kernel's shape; kept places hold `1 / (1 - rate)`. Empty without
            dropout.
        """
        if not self.weight_dropout:
            return {}
        shapes = [tuple(kernel.shape) for kernel in self.cell.context_transform.kernels]
        return {
            "weight": [
                bernoulli_mask(shape, self.weight_dropout, draw_seed(self.seed_generator))
                for shape in shapes
            ]
        }

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None, mask=None):
        masks = self.masks_of(x, training, masks)
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0])
        hidden, cell = (ops.cast(part, x.dtype) for part in initial_state)
        kernels = self._context_kernels(masks)
        by_time = ops.transpose(x, (1, 0, 2))
        transform, context = self.cell.input_transform, self.cell.context_transform
        # What does not depend on the previous step, for all steps in one product: (t, b, 4u).
        bias = transform.joined_bias() + context.joined_bias()
        projected = transform.products(by_time) + bias
        held = mask is not None and return_state
        if held:
            projected = _held(projected, mask)
        if isinstance(context, GroupedLinear):
            outputs, state = self._compact_loop(projected, kernels[0], hidden, cell)
        else:
            outputs, state = self._plain_loop(projected, kernels, hidden, cell)
        if held:
            state = [last_valid(outputs, mask, hidden), state[1]]
        return (outputs, state) if return_state else outputs

    def _context_kernels(self, masks) -> list:
        """The context transform's kernels of this call: dropped, in the compute dtype."""
        kernels = [ops.convert_to_tensor(k) for k in self.cell.context_transform.kernels]
        if "weight" in masks:
            pairs = zip(kernels, masks["weight"], strict=True)
            kernels = [kernel * ops.cast(mask, kernel.dtype) for kernel, mask in pairs]
        return [ops.cast(kernel, self.compute_dtype) for kernel in kernels]

    def _compact_loop(self, projected, kernel, hidden, cell):
        """The loop with its own gradient; groups come before the batch in it."""
        groups, width, units = kernel.shape[0], kernel.shape[1], self.units
        if groups == 1:
            h, c = gated_recurrence(projected, kernel[0], hidden, cell)
            return ops.transpose(h, (1, 0, 2)), [h[-1], c]
        steps, batch = ops.shape(projected)[0], ops.shape(projected)[1]
        projected = ops.reshape(projected, (steps, batch, GATES, groups, width))
        projected = ops.transpose(projected, (0, 3, 1, 2, 4))
        projected = ops.reshape(projected, (steps, groups, batch, GATES * width))

        def split(state):
            return ops.transpose(ops.reshape(state, (batch, groups, width)), (1, 0, 2))

        h, c = gated_recurrence(projected, kernel, split(hidden), split(cell))
        h = ops.reshape(ops.transpose(h, (2, 0, 1, 3)), (batch, steps, units))
        c = ops.reshape(ops.transpose(c, (1, 0, 2)), (batch, units))
        return h, [h[:, -1], c]

    def _plain_loop(self, projected, kernels, hidden, cell):
        """The loop for a context transform that is no grouped product."""
        transform = self.cell.context_transform

        def step(carry, pre):
            pre = pre + transform.products(carry[0], kernels)
            carry = gates_of(pre, carry[1])[:2]
            return carry, carry

        (hidden, cell), (outputs, _) = ops.scan(step, (hidden, cell), projected)
        return ops.transpose(outputs, (1, 0, 2)), [hidden, cell]

    def get_config(self):
        cell = self.cell.get_config()
        for name in ("name", "dtype", "trainable", "frozen"):
            cell.pop(name, None)
        return {
            **super().get_config(),
            **cell,
            "weight_dropout": self.weight_dropout,
            "seed": self.seed,
        }


def _held(projected, mask):
    """Pre-activations (t, b, 4u) with those of masked steps such that the cell stays as it is."""
    # Far out on both sides, where the gates are one and zero whatever is added.
    gates = ops.convert_to_tensor([_FAR, 0.0, -_FAR, 0.0], projected.dtype)  # f, g, i, o
    kept = ops.repeat(gates, projected.shape[-1] // GATES)
    return ops.where(ops.expand_dims(ops.transpose(mask), -1), projected, kept)
