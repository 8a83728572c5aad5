"""The kernels of one call of a trellis: dropped, normalised, in matrix form."""

from typing import Any, NamedTuple

from keras import ops

from keras_seq.ops.weight_drop import weight_drop
from keras_seq.ops.weight_norm import weight_normalize


class Kernels(NamedTuple):
    """The kernels in matrix form and compute type, the same for all levels.

    Attributes:
        hidden: of the hidden sequence. A list of one `(k * width, channels)` if dense; of a matrix
            and a bias for each group else.
        input: of the injected input, `(k * d, channels)`; with groups it sees the current step
            alone.
        bias: `(channels,)`, added to the injected input.
    """

    hidden: list
    input: Any
    bias: Any


def dense_kernels(kernels, gains, masks, bias, dtype: str) -> Kernels:
    """Dense kernels, dropped and normalised.

    Args:
        kernels: of the input `(k, d, channels)` and of the hidden sequence `(k, width, channels)`.
        gains: those of weight normalisation `(channels,)`, or `None`, for each.
        masks: those of `weight_drop`, or `None`, for each.
        bias: `(channels,)`.
        dtype: the compute type.
    """
    matrices = []
    for kernel, gain, mask in zip(kernels, gains, masks, strict=True):
        kernel = ops.convert_to_tensor(kernel)
        if mask is not None:
            kernel = weight_drop(kernel, mask)
        if gain is not None:
            kernel = weight_normalize(kernel, gain)
        taps, rows, channels = kernel.shape
        matrices.append(ops.cast(ops.reshape(kernel, (taps * rows, channels)), dtype))
    return Kernels([matrices[1]], matrices[0], ops.cast(bias, dtype))


def group_kernels(gates, recurrent, below, biases, dtype: str) -> Kernels:
    """Mixed-group kernels, the blocks that a kernel lacks filled with zeros.

    Args:
        gates: the gates of the trellis.
        recurrent: for each group the kernel of its own past, `(width, blocks * width)`.
        below: for each group the kernel of what it sees of the group below, or of the input.
        biases: for each group.
        dtype: the compute type.
    """
    hidden: list = []
    for index, bias in enumerate(biases):
        own, other = (
            spread_blocks(ops.cast(kernels[index], dtype), used, gates.blocks)
            for kernels, used in (
                (recurrent, gates.recurrent_blocks),
                (below, gates.input_blocks),
            )
        )
        matrix = ops.concatenate([own, other], axis=0) if index else own
        hidden += [matrix, ops.cast(bias, dtype)]
        if index == 0:
            input_kernel = other
    return Kernels(hidden, input_kernel, hidden[1])


def spread_blocks(kernel, used: tuple[int, ...], blocks: int):
    """Puts the column blocks of a kernel at their places among all blocks, zeros elsewhere.

    Args:
        kernel: `(d, len(used) * width)`.
        used: the blocks that it holds.
        blocks: how many there are.

    Returns:
        A kernel `(d, blocks * width)`.
    """
    if len(used) == blocks:
        return kernel
    pieces = dict(zip(used, ops.split(kernel, len(used), axis=-1), strict=True))
    zero = ops.zeros_like(next(iter(pieces.values())))
    return ops.concatenate([pieces.get(block, zero) for block in range(blocks)], axis=-1)
