"""A level of a trellis with a dense kernel."""

from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.plan import TrellisPlan


class DenseProduct:
    """A level with a dense kernel.

    Args:
        plan: the trellis.
    """

    distinct_levels = 1  # how many of the first levels are like no other

    def __init__(self, plan: TrellisPlan):
        self.plan = plan

    def step(self, level, weights, injection, z, hidden_past, mask, cell):
        """One level.

        Args:
            level: its index.
            weights: a list with the kernel, `(k * width, blocks * width)`.
            injection: what the input adds, `(b, t, blocks * width)`, or a bias alone.
            z: the hidden sequence of the level below.
            hidden_past: its past, or `None` for zeros.
            mask: the dropout mask of the convolution's hidden input, or `None`.
            cell: the delayed cell sequence of the level below.

        Returns:
            The hidden and the cell sequence.
        """
        plan, dilation = self.plan, self.plan.dilations[level]
        (kernel,) = weights
        masked, masked_past = masked_pair(z, hidden_past, mask)
        if level > 0:
            ahead = plan.ahead(dilation)
            seen = shift.windows(masked, plan.kernel_size, dilation, masked_past, ahead=ahead)
            pre = matrix_product(seen, kernel) + injection
        elif hidden_past is not None and plan.padding(level):
            # Below the first level all is zero but the past, which the first steps see.
            reach = plan.padding(level)
            seen = shift.windows(masked, plan.kernel_size, dilation, masked_past)[:, :reach]
            head = matrix_product(seen, kernel) + injection[:, :reach]
            pre = ops.concatenate([head, injection[:, reach:]], axis=1)
        else:
            pre = injection
        return plan.gates(pre, previous_hidden(plan, level, z, hidden_past), cell)


def masked_pair(z, past, mask):
    """A sequence and its past times a mask that is constant in time; either may be `None`."""
    if mask is None:
        return z, past
    return z * mask, None if past is None else past * mask


def previous_hidden(plan: TrellisPlan, level: int, z, past):
    """The hidden sequence of the level below, one dilation in the past; `None` with one tap."""
    if plan.kernel_size == 1:
        return None
    dilation = plan.dilations[level]
    return shift.delay(z, dilation, None if past is None else past[:, -dilation:])
