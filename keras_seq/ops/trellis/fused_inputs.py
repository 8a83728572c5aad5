"""The tensors of a call that the written-out gradient of a trellis differentiates.

A narrow input is folded into the levels: its taps stand beside those of the hidden sequence, and
one product of a level makes both. A wide one is projected once, and the projection is added.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.trellis.call import TrellisCall, injections
from keras_seq.ops.trellis.plan import TrellisPlan

_FOLDED_SHARE = 12  # how many times as wide as a folded input the hidden windows are at least
FOLDED_ROWS = 8  # the rows of a kernel with a folded input are a multiple of it


class FusedInputs(NamedTuple):
    """All tensors of a call."""

    kernel: Any  # (k * width, 4 * width), or with further rows for the channels of `folded`
    injections: dict  # dilation -> (b, t, 4 * width), or with a folded input (b, t, channels)
    bias_only: Any  # (4 * width,), or None if the input enters every level
    mask: Any  # (b, 1, width) or None
    valid: Any  # (b, t) or None
    hidden_past: list  # of each level; empty for zeros
    cell_past: list
    folded: bool

    def tensors(self):
        """All of them, in one list."""
        optional = [x for x in (self.bias_only, self.mask, self.valid) if x is not None]
        return [
            self.kernel,
            *self.injections.values(),
            *optional,
            *self.hidden_past,
            *self.cell_past,
        ]

    def like(self, tensors):
        """The same structure with other tensors."""
        rest = list(tensors)
        return self._replace(
            kernel=rest.pop(0),
            injections={dilation: rest.pop(0) for dilation in self.injections},
            bias_only=None if self.bias_only is None else rest.pop(0),
            mask=None if self.mask is None else rest.pop(0),
            valid=None if self.valid is None else rest.pop(0),
            hidden_past=[rest.pop(0) for _ in self.hidden_past],
            cell_past=[rest.pop(0) for _ in self.cell_past],
        )


def fused_inputs(call: TrellisCall) -> FusedInputs:
    """The tensors of a call, with a narrow input folded."""
    plan, past = call.plan, call.past
    folded = folds_input(plan, call.x.shape[2])
    if folded:
        kernel, injected = _folded_input(call)
    else:
        (kernel,), injected = call.kernels.hidden, injections(call)
    return FusedInputs(
        kernel=kernel,
        injections=injected,
        bias_only=None if all(plan.injected) else call.kernels.bias,
        mask=call.mask,
        valid=call.valid,
        hidden_past=past.hidden or [],
        cell_past=past.cell or [],
        folded=folded,
    )


def folds_input(plan: TrellisPlan, input_features: int) -> bool:
    """Whether the input is narrow enough to be computed again at every level.

    The added products then cost less than adding a projection at every level would.
    """
    channels = plan.kernel_size * input_features + 1
    return all(plan.injected) and _FOLDED_SHARE * channels <= plan.kernel_size * plan.width


def _folded_input(call: TrellisCall) -> tuple:
    """The kernel of hidden sequence, input and bias, and the channels that it expects of the input.

    Returns:
        The kernel, and for each dilation the taps of the input with a channel of ones beside them.
        Channels of zeros fill the rows of a product up to a round number.
    """
    plan, x, ((hidden,), input_, bias) = call.plan, call.x, call.kernels
    more = -(hidden.shape[0] + input_.shape[0] + 1) % FOLDED_ROWS
    kernel = ops.concatenate(
        [hidden, input_, bias[None], ops.zeros((more, bias.shape[0]), bias.dtype)]
    )
    shape = ops.shape(x)
    ones = ops.ones((shape[0], shape[1], 1), x.dtype)
    beside = ops.pad(ones, [[0, 0], [0, 0], [0, more]])
    return kernel, {
        dilation: shift.windows(
            x, plan.kernel_size, dilation, call.input_past, beside, plan.ahead(dilation)
        )
        for dilation in plan.injected_dilations
    }
