"""A single time step of a dense trellis from its exact state: streaming.

The taps of past steps see the state alone, so one product serves them for all levels, and the
kernel's older part is read once a step and not once a level. What is left for each level is the
product with the current step.
"""

import numpy as np
from keras import ops

from keras_seq.ops.packing import choose_rows
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.call import LevelOutputs, TrellisCall, injections


def run_step(call: TrellisCall) -> LevelOutputs:
    """Runs all levels for one step; the kernel has two taps or more, the state is an exact one."""
    plan, state, mask = call.plan, call.state, call.mask
    (kernel,) = call.kernels.hidden
    injected = injections(call)
    levels, taps, width = plan.levels, plan.kernel_size - 1, plan.width
    starts = _starts([plan.padding(level) for level in range(levels)])
    places = [
        starts[level] + tap * d for level, d in enumerate(plan.dilations) for tap in range(taps)
    ]
    past = ops.take(state["hidden"], np.array(places, "int32"), axis=1)
    seen = past if mask is None else past * mask
    seen = ops.reshape(seen, (-1, levels, taps * width))
    from_past = matrix_product(seen, kernel[: taps * width])
    cell_starts = _starts(plan.dilations)
    past_cells = ops.take(state["cell"], np.array(cell_starts[:-1], "int32"), axis=1)

    current = kernel[taps * width :]
    z = c = ops.zeros_like(past_cells[:, :1])
    below, cells_below, collected = [], [], []
    for level, dilation in enumerate(plan.dilations):
        below.append(z)
        cells_below.append(c)
        pre = from_past[:, level : level + 1]
        pre = pre + (injected[dilation] if plan.injected[level] else call.kernels.bias)
        if level:  # below the first level all is zero
            pre = pre + matrix_product(z if mask is None else z * mask, current)
        newest = (level + 1) * taps
        z, c = plan.gates(pre, past[:, newest - 1 : newest], past_cells[:, level : level + 1])
        if level in plan.collected:
            collected.append(z[..., -plan.output_units :])
    hidden = _moved(state["hidden"], below, starts)
    cell = _moved(state["cell"], cells_below, cell_starts)
    if call.valid is not None:
        taken = call.valid[:, 0] > 0
        hidden = choose_rows(taken, hidden, state["hidden"])
        cell = choose_rows(taken, cell, state["cell"])
    return LevelOutputs(z, c, collected, hidden, cell)


def _starts(lengths) -> list[int]:
    """Where each level's part of a packed state begins, and where the last one ends."""
    return [0, *np.cumsum(lengths).tolist()]


def _moved(packed, steps, starts):
    """The packed state one step later: each level loses its oldest step and gains its new one."""
    new = ops.concatenate(steps, axis=1)
    if starts[-1] == len(steps):  # one step a level
        return new
    places = []
    for level, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        places += [*range(start + 1, end), starts[-1] + level]
    return ops.take(ops.concatenate([packed, new], axis=1), np.array(places, "int32"), axis=1)
