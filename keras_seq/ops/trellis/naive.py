"""A dense trellis as its equations read: slow, short, and what the fast ways must equal."""

from keras import ops

from keras_seq.ops.trellis.call import LevelOutputs, TrellisCall
from keras_seq.ops.trellis.state import packed


def run_naive(call: TrellisCall) -> LevelOutputs:
    """Runs all levels of a dense trellis, one after the other and tap by tap.

    Bai, Kolter and Koltun, *Trellis Networks for Sequence Modeling* (ICLR 2019), equations 11 and
    12. Differentiated by the backend.
    """
    plan, past, x = call.plan, call.past, call.x
    valid = None if call.valid is None else ops.expand_dims(call.valid, 2)
    taps, length = plan.kernel_size, x.shape[1]
    kernel_x, kernel_z = (
        ops.reshape(matrix, (taps, matrix.shape[0] // taps, matrix.shape[1]))
        for matrix in (call.kernels.input, call.kernels.hidden[0])
    )
    z = c = ops.zeros((*x.shape[:2], plan.width), x.dtype)
    collected, next_hidden, next_cell = [], [], []
    for level, dilation in enumerate(plan.dilations):
        padding = plan.padding(level)
        z_all = _after(None if past.hidden is None else past.hidden[level], z, padding)
        c_all = _after(None if past.cell is None else past.cell[level], c, dilation)
        x_all = _after(None if past.input is None else past.input, x, padding)
        next_hidden.append(z_all[:, length:])
        next_cell.append(c_all[:, length:])
        delayed = None if taps == 1 else z_all[:, padding - dilation :][:, :length]
        if plan.centred:
            ahead = [[0, 0], [0, plan.ahead(dilation)], [0, 0]]
            known = z if valid is None else z * valid
            z_all, x_all = (
                ops.pad(_after(None, sequence, plan.behind(dilation)), ahead)
                for sequence in (known, x)
            )
        seen = z_all if call.mask is None else z_all * call.mask
        pre = call.kernels.bias
        for tap in range(taps):
            steps = slice(tap * dilation, tap * dilation + length)
            pre = pre + ops.matmul(seen[:, steps], kernel_z[tap])
            if plan.injected[level]:
                pre = pre + ops.matmul(x_all[:, steps], kernel_x[tap])
        z, c = plan.gates(pre, delayed, c_all[:, :length])
        if level in plan.collected:
            collected.append(z[..., -plan.output_units :])
    if not call.return_past:
        return LevelOutputs(z, c, collected, None, None)
    return LevelOutputs(z, c, collected, packed(next_hidden), packed(next_cell))


def _after(past, sequence, steps: int):
    """The last steps of the past, zeros if there is none, and the sequence after them."""
    if past is None:
        return ops.pad(sequence, [[0, 0], [steps, 0], [0, 0]])
    return ops.concatenate([past[:, past.shape[1] - steps :], sequence], axis=1)
