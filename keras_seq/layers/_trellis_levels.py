"""The levels of a trellis, differentiated by the backend: the form that takes any gates and kernel."""

import math

import keras
from keras import ops

from keras_seq.layers._trellis_plan import TrellisPlan, taps, windows


class DenseProduct:
    """The hidden part of the convolution with a dense kernel.

    Args:
        plan: the trellis.
        gates: its gates.
    """

    def __init__(self, plan: TrellisPlan, gates):
        self.plan = plan
        self.gates = gates

    def step(self, level, weights, injection, source, hidden_in, cell, zero_below):
        """One level.

        Args:
            level: its index.
            weights: a list with the kernel, `(k * width, blocks * width)`.
            injection: `(b, t, blocks * width)`.
            source: the hidden input of the convolution, padded and masked.
            hidden_in: the same, not masked.
            cell: the shifted cell sequence.
            zero_below: whether all but the padding of `source` is zero.
        """
        plan, dilation = self.plan, self.plan.dilations[level]
        (kernel,) = weights
        padding = plan.padding(level)
        if not zero_below:
            product = ops.matmul(windows(source, plan.kernel_size, dilation), kernel)
            pre = injection + product
        elif padding:  # only the first steps see anything but zeros: the padding
            seen = windows(source, plan.kernel_size, dilation)[:, :padding]
            head = injection[:, :padding] + ops.matmul(seen, kernel)
            pre = ops.concatenate([head, injection[:, padding:]], axis=1)
        else:
            pre = injection
        return self.gates(pre, previous_hidden(plan, level, hidden_in), cell)


def previous_hidden(plan: TrellisPlan, level: int, hidden_in):
    """The hidden sequence of the level below, one dilation in the past; `None` with one tap."""
    if plan.kernel_size == 1:
        return None
    return taps(hidden_in, plan.kernel_size, plan.dilations[level])[-2]


def run_levels(
    plan: TrellisPlan,
    product,
    weights,
    injections,
    bias_only,
    hidden_pads,
    cell_pads,
    mask=None,
    segments: int = 1,
    return_pads: bool = False,
):
    """Runs all levels.

    Args:
        plan: the trellis.
        product: a `DenseProduct` or its mixed-group counterpart.
        weights: a list of the tensors that `product` uses.
        injections: a dict from dilation to the injected input (bias included), `(b, t, channels)`.
        bias_only: what levels without injection get instead; broadcasts against the above.
        hidden_pads: for each level the padding of its hidden input, or `None` for zeros.
        cell_pads: likewise of its cell sequence.
        mask: the dropout mask of the hidden input, or `None`.
        segments: how many stretches of levels to recompute in the backward pass; 1 for none.
        return_pads: whether to return the padding of the next call.

    Returns:
        The final hidden and cell sequence, the list of collected outputs, and the lists of next
        hidden and cell pads (empty unless asked for).
    """
    dilations = list(injections)
    fixed = [injections[d] for d in dilations]
    if not all(plan.injected):
        fixed.append(bias_only)
    extra = [] if mask is None else [mask]
    pads = [] if hidden_pads is None else [*hidden_pads, *cell_pads]

    def stretch(first, last, start_from_zero):
        """The pure function of levels first to last-1."""

        def run(*tensors):
            given = list(tensors)
            z, c = (None, None) if start_from_zero else (given.pop(0), given.pop(0))
            kernel = [given.pop(0) for _ in weights]
            inject = [given.pop(0) for _ in fixed]
            drop = [given.pop(0) for _ in extra]
            collected, next_hidden, next_cell = [], [], []
            for level in range(first, last):
                dilation, padding = plan.dilations[level], plan.padding(level)
                if plan.injected[level]:
                    injection = inject[dilations.index(dilation)]
                else:
                    injection = inject[-1] + ops.zeros_like(inject[0])
                if z is None:
                    batch, length = ops.shape(inject[0])[:2]
                    z = c = ops.zeros((batch, length, plan.width), inject[0].dtype)
                if given:
                    hidden_in = ops.concatenate([given[level - first], z], axis=1)
                    cell_in = ops.concatenate([given[last - first + level - first], c], axis=1)
                else:
                    hidden_in = ops.pad(z, [[0, 0], [padding, 0], [0, 0]]) if padding else z
                    cell_in = ops.pad(c, [[0, 0], [dilation, 0], [0, 0]])
                if return_pads:
                    next_hidden.append(last_steps(hidden_in, padding))
                    next_cell.append(last_steps(cell_in, dilation))
                source = hidden_in * drop[0] if drop else hidden_in
                z, c = product.step(
                    level,
                    kernel,
                    injection,
                    source,
                    hidden_in,
                    cell_in[:, :-dilation],
                    zero_below=level == 0,
                )
                if level in plan.collected:
                    collected.append(z[..., -plan.output_units :])
            return z, c, *collected, *next_hidden, *next_cell

        return run

    bounds = [round(i * plan.levels / segments) for i in range(segments + 1)]
    z = c = None
    collected, next_hidden, next_cell = [], [], []
    for first, last in zip(bounds, bounds[1:], strict=False):
        run = stretch(first, last, z is None)
        carried = [] if z is None else [z, c]
        own = [*pads[first:last], *pads[plan.levels + first : plan.levels + last]]
        if segments > 1:
            run = keras.remat(run)
        z, c, *rest = run(*carried, *weights, *fixed, *extra, *own)
        count = sum(first <= level < last for level in plan.collected)
        collected += rest[:count]
        if return_pads:
            next_hidden += rest[count : count + last - first]
            next_cell += rest[count + last - first :]
    return z, c, collected, next_hidden, next_cell


def last_steps(sequence, steps: int):
    """The last steps of `(b, t, d)`, also when there are none to take."""
    return sequence[:, -steps:] if steps else sequence[:, :0]


def segment_count(levels: int) -> int:
    """About the root of the number of levels: the memory of boundaries and of one segment balance."""
    return max(1, math.isqrt(levels))
