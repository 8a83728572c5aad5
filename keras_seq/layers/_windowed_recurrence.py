"""The recurrence of `LocalRNN` over all windows at once, with a gradient of its own.

Each step of the windows is one matrix product over all positions. Automatic differentiation would
compute a partial gradient of the shared recurrent kernel at every step. Here the kernel's gradient
is one product over the rows of all steps, and a step keeps only what its own gradient needs.
"""

from typing import Any

import keras
from keras import ops

from keras_seq.layers._windowed_cells import CELLS
from keras_seq.layers._written_gradient import once


def windowed_recurrence(
    cell, projected, recurrent_kernel, inner_bias, window, length, written_gradient
):
    """The last hidden state of every window.

    Args:
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        projected: (b, window - 1 + t, blocks * u) the projected inputs with all biases that can be
            added ahead; blocks as in `keras_seq.layers._windowed_cells`.
        recurrent_kernel: (u, blocks * u).
        inner_bias: (u,) the recurrent bias inside the reset gate of a GRU; `None` elsewhere.
        window: steps of a window.
        length: t, an integer or a scalar tensor.
        written_gradient: whether to use the gradient written here, which cannot be differentiated
            again.

    Returns:
        (b, t, u).
    """
    tensors = [projected, ops.copy(recurrent_kernel)]  # not the variable itself
    if inner_bias is not None:
        tensors.append(inner_bias)

    def forward(tensors):
        cells = CELLS[cell](*tensors[1:])
        saved: list = []
        state: Any = None
        for step in range(window):
            state, kept = cells.forward(_rows(tensors[0][:, step : step + length]), state)
            saved.append(kept)
        output = ops.reshape(state[0], (ops.shape(tensors[0])[0], length, cells.units))
        return output, cells, saved

    if not written_gradient:
        return forward(tensors)[0]

    @ops.custom_gradient
    def run(*tensors):
        output, cells, saved = forward(tensors)

        def gradient(*arguments, upstream=None):
            (given,) = keras.tree.flatten(arguments if upstream is None else upstream)
            backward = once(lambda: _backward(cells, tensors, saved, length, given), "LocalRNN")
            return backward(*tensors, given)

        return output, gradient

    return run(*tensors)


def _rows(sequence):
    return ops.reshape(sequence, (-1, sequence.shape[-1]))


def _backward(cells, tensors, saved, length, upstream):
    """The gradients of all tensors, from that of the output."""
    projected, kernel = tensors[:2]
    shape = ops.shape(projected)
    turned = ops.transpose(kernel)
    d_state: Any = cells.start(_rows(upstream))
    befores, d_recurrents = [], []
    d_projected = None
    for step, kept in reversed(list(enumerate(saved))):
        d_input, d_recurrent, d_state = cells.backward(kept, d_state, turned)
        if kept.before is not None:
            befores.append(kept.before)
            d_recurrents.append(d_recurrent)
        part = ops.reshape(d_input, (shape[0], length, kernel.shape[1]))
        after = shape[1] - length - step
        part = ops.pad(part, [[0, 0], [step, after], [0, 0]])
        d_projected = part if d_projected is None else d_projected + part
    if befores:
        rows = ops.concatenate(befores, axis=0)
        d_kernel = ops.matmul(ops.transpose(rows), ops.concatenate(d_recurrents, axis=0))
    else:
        d_kernel = ops.zeros_like(kernel)
    results = [d_projected, ops.cast(d_kernel, kernel.dtype)]
    if len(tensors) > 2:
        results.append(cells.inner_bias_gradient())
    return tuple(results)
