"""What the levels of a trellis work on in one call, and what they give.

Everything is here before the first level: each way to run the levels takes a `TrellisCall`.
"""

from typing import Any, NamedTuple

from keras_seq.ops import time_shift as shift
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.kernels import Kernels
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.trellis.state import Past, past_of


class TrellisCall(NamedTuple):
    """One call.

    Attributes:
        plan: the trellis.
        kernels: its kernels in this call.
        x: the input `(b, t, d)`.
        state: the state before the first step, `None` for zeros.
        mask: the dropout mask of the convolution's hidden input, `(b, 1, width)`, or `None`.
        return_past: whether the past for the next call is wanted.
        valid: `(b, t)`, one at the first steps of each row that count and zero behind them, in the
            type of the kernels; `None` where it makes no difference to what is wanted.
    """

    plan: TrellisPlan
    kernels: Kernels
    x: Any
    state: Any = None
    mask: Any = None
    return_past: bool = False
    valid: Any = None

    @property
    def past(self) -> Past:
        """What the state stands for at each level."""
        return past_of(self.plan, self.state)

    @property
    def input_past(self):
        """The past of the input, or `None` for zeros."""
        return self.state["input"] if isinstance(self.state, dict) else None


class LevelOutputs(NamedTuple):
    """What running all levels gives.

    Attributes:
        hidden: the hidden sequence of the last level, `(b, t, width)`.
        cell: its cell sequence.
        collected: the outputs of the collected levels.
        next_hidden: the packed past of the hidden sequences for the next call; `None` unless asked
            for.
        next_cell: that of the cell sequences.
    """

    hidden: Any
    cell: Any
    collected: list
    next_hidden: Any
    next_cell: Any


def injections(call: TrellisCall) -> dict:
    """The injected input of each dilation, bias included: `(b, t, channels)`."""
    plan, kernels, injected = call.plan, call.kernels, {}
    for dilation in plan.injected_dilations:
        seen = call.x
        if plan.groups is None:
            ahead = plan.ahead(dilation)
            seen = shift.windows(seen, plan.kernel_size, dilation, call.input_past, ahead=ahead)
        injected[dilation] = matrix_product(seen, kernels.input) + kernels.bias
    return injected
