"""The time loop of gated recurrent layers, with a gradient of its own.

Everything that does not depend on the previous step is left out of the loops: the forward loop
holds one product and the gates, the backward loop one product and a few multiplications. The
backward loop yields the gradients of the pre-activations of all steps; the kernel's gradient is one
product after it. Differentiating the loop itself would add a product of the kernel's size in every
step. The graph has one loop body each way, whatever the number of steps.
"""

from keras import ops

from keras_seq._backend import read
from keras_seq.ops.lstm import Gates, lstm_step
from keras_seq.ops.scan import scan


def gated_recurrence(projected, kernel, hidden, cell):
    """Runs `(h, c)` over time.

        [f g i o] = projected_t + h_{t-1} kernel
        c_t = σ(f) c_{t-1} + σ(i) tanh(g),    h_t = σ(o) tanh(c_t)

    Args:
        projected: (t, ..., b, 4n) the input's part of the pre-activations, biases included, as four
            blocks f, g, i, o. `...` is nothing, or the groups.
        kernel: (..., n, 4n).
        hidden: (..., b, n) the state before the first step.
        cell: (..., b, n).

    Returns:
        The hidden sequence (t, ..., b, n) and the last cell (..., b, n).
    """

    @ops.custom_gradient
    def run(projected, kernel, hidden, cell):
        h, c, gates = _forward(projected, kernel, hidden, cell)

        def grad(*args, upstream=None):
            given = args if upstream is None else upstream
            if len(given) == 1:
                (given,) = given
            before = (
                ops.concatenate([hidden[None], h[:-1]], axis=0),
                ops.concatenate([cell[None], c[:-1]], axis=0),
            )
            return _backward(kernel, before, h, c, gates, *given)

        return (h, c[-1]), grad

    return run(*map(read, (projected, kernel, hidden, cell)))


def gates_of(pre, cell):
    """One step of the gates.

    Args:
        pre: (..., 4n) pre-activations f, g, i, o.
        cell: (..., n) the cell before the step.

    Returns:
        Hidden, cell, and the four gates after their activations.
    """
    f, g, i, o = ops.split(pre, 4, axis=-1)
    hidden, cell, kept = lstm_step(Gates(i, f, g, o), cell)
    i, f, g, o = kept.gates
    return hidden, cell, (f, g, i, o)


def _forward(projected, kernel, hidden, cell):
    """Hidden, cell and the four gates of all steps."""

    def step(carry, t):
        carry = gates_of(projected[t] + ops.matmul(carry[0], kernel), carry[1])
        return carry, carry  # a scan's outputs have the structure of what it carries

    start = (hidden, cell, (ops.zeros_like(cell),) * 4)
    return scan(step, start, _steps(projected))[1]


def _backward(kernel, before, h, c, gates, d_hidden, d_cell):
    """Gradients of projected, kernel, and the state before the first step.

    It is that of `lstm_step_gradient`, with all that is known before the loop kept out of it.

    A step that is not finite hands nothing back: its slopes, times a gradient of zero, would be
    NaN for all steps before it.

    Args:
        kernel: as in the forward pass.
        before: hidden and cell before each step.
        h: hidden after each step.
        c: cell after each step.
        gates: the gates f, g, i, o after their activations, (t, ..., b, n) each.
        d_hidden: gradient of the hidden sequence.
        d_cell: gradient of the last cell.
    """
    f, g, i, o = gates
    bent = ops.tanh(c)
    into_cell = o * (1 - bent * bent)  # of h_t
    slopes = (before[1] * f * (1 - f), i * (1 - g * g), g * i * (1 - i), bent * o * (1 - o))
    axes = list(range(len(kernel.shape)))
    turned = ops.transpose(kernel, [*axes[:-2], axes[-1], axes[-2]])

    def step(carry, t):
        dh, dc, _ = carry
        dh = dh + d_hidden[t]
        dc = dc + dh * into_cell[t]
        finite = ops.abs(h[t]) <= 1

        def fine(x):
            return ops.where(finite, x, ops.cast(0, x.dtype))

        parts = [fine(d * slope[t]) for d, slope in zip((dc, dc, dc, dh), slopes, strict=True)]
        d_pre = ops.concatenate(parts, axis=-1)
        carry = (ops.matmul(d_pre, turned), fine(dc * f[t]), d_pre)
        return carry, carry

    nothing = ops.zeros_like(d_cell)
    start = (nothing, d_cell, ops.concatenate([nothing] * 4, axis=-1))
    (dh, dc, _), (_, _, d_pre) = ops.scan(step, start, _steps(c), reverse=True)
    if len(kernel.shape) == 2:
        rows, products = before[0], d_pre
    else:
        rows, products = (ops.transpose(part, (1, 0, 2, 3)) for part in (before[0], d_pre))
    lead = tuple(kernel.shape[:-2])
    rows = ops.reshape(rows, (*lead, -1, kernel.shape[-2]))
    products = ops.reshape(products, (*lead, -1, kernel.shape[-1]))
    axes = list(range(len(lead) + 2))
    d_kernel = ops.matmul(ops.transpose(rows, [*axes[:-2], axes[-1], axes[-2]]), products)
    return d_pre, d_kernel, dh, dc


def _steps(sequence):
    """The numbers of the steps of (t, ...).

    A loop over these reads step t from a sequence where it lies; one over the sequence itself would
    copy each step into a list first.
    """
    return ops.arange(ops.shape(sequence)[0], dtype="int32")
