"""The recurrence of `LocalRNN` over all windows at once, with a gradient of its own.

Each step of the windows is one matrix product over all positions. Automatic differentiation would
compute a partial gradient of the shared recurrent kernel at every step. Here the kernel's gradient
is one product over the rows of all steps, and a step keeps only what its own gradient needs.
"""

from typing import Any

import keras
from keras import ops

from keras_seq._backend import read
from keras_seq.ops.windowed_cells import CELLS
from keras_seq.ops.written_gradient import once


def windowed_recurrence(
    cell, projected, recurrent_kernel, inner_bias, window, length, written_gradient
):
    """The last hidden state of every window.

    Args:
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        projected: (b, window - 1 + t, blocks * u) the projected inputs with all biases that can be
            added ahead; blocks as in `keras_seq.ops.windowed_cells`.
        recurrent_kernel: (u, blocks * u).
        inner_bias: (u,) the recurrent bias inside the reset gate of a GRU; `None` elsewhere.
        window: steps of a window.
        length: t, an integer or a scalar tensor.
        written_gradient: whether to use the gradient written here, which cannot be differentiated
            again.

    Returns:
        (b, t, u).
    """
    given = (projected, recurrent_kernel, inner_bias)
    tensors = [read(tensor) for tensor in given if tensor is not None]

    def forward(tensors):
        cells = CELLS[cell](*tensors[1:])
        inputs, kernels = (_parts(tensor, cells.bounds) for tensor in tensors[:2])
        saved: list = []
        state: Any = None
        for step in range(window):
            seen = [_rows(part[:, step : step + length]) for part in inputs]
            state, kept = cells.forward(seen, state, kernels)
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


def _parts(tensor, bounds):
    """The tensor cut along its last axis."""
    return ops.split(tensor, list(bounds), axis=-1) if bounds else [tensor]


def _backward(cells, tensors, saved, length, upstream):
    """The gradients of all tensors, from that of the output."""
    projected, kernel = tensors[:2]
    shape = ops.shape(projected)
    turned = [ops.transpose(part) for part in _parts(kernel, cells.bounds)]
    d_state: Any = cells.start(_rows(upstream))
    befores: list = []
    d_recurrents: list = [[] for _ in turned]
    d_projected: list = [None for _ in turned]
    for step, kept in reversed(list(enumerate(saved))):
        d_input, d_recurrent, d_state = cells.backward(kept, d_state, turned)
        if kept.before is not None:
            befores.append(kept.before)
            for place, part in enumerate(d_recurrent):
                d_recurrents[place].append(part)
        after = shape[1] - length - step
        for place, part in enumerate(d_input):
            part = ops.reshape(part, (shape[0], length, part.shape[-1]))
            part = ops.pad(part, [[0, 0], [step, after], [0, 0]])
            total = d_projected[place]
            d_projected[place] = part if total is None else total + part
    if befores:
        rows = ops.transpose(ops.concatenate(befores, axis=0))
        d_kernel = _joined([ops.matmul(rows, ops.concatenate(p, axis=0)) for p in d_recurrents])
    else:
        d_kernel = ops.zeros_like(kernel)
    results = [_joined(d_projected), ops.cast(d_kernel, kernel.dtype)]
    if len(tensors) > 2:
        results.append(cells.inner_bias_gradient())
    return tuple(results)


def _joined(parts):
    return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
