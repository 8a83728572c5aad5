"""The recurrent cells of `LocalRNN` on rows, one row a position: a step, and its gradient.

Each takes `x`, the projected input (rows, blocks * u), the state (`None` for zero, where the
recurrent product is skipped) and the recurrent kernel, and returns the state after the step, whose
first part is the output, with what the gradient of the step needs. `x` already holds the recurrent
bias where that can be added ahead, see `projection_bias`. Input, kernel and their gradients are
tuples of parts: the blocks cut at `bounds`, so that no step has to cut them.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_seq.ops.lstm import Gates, lstm_step, lstm_step_gradient

BLOCKS = {"gru": 3, "lstm": 4, "rnn": 1}  # r, z, n; i, f, g, o; one


def projection_bias(cell, bias, recurrent_bias):
    """The bias of the input projection, with what of the recurrent bias does not meet a gate."""
    if cell != "gru":
        return bias + recurrent_bias
    units = int(bias.shape[0]) // 3
    gates = recurrent_bias[: 2 * units]
    return bias + ops.concatenate([gates, ops.zeros_like(recurrent_bias[2 * units :])])


class Kept(NamedTuple):
    """What the backward pass of a step needs; `before` is `None` at the first step."""

    before: Any
    values: tuple


class GRU:
    """h' = (1 - z) ∘ n + z ∘ h with n = tanh(x_n + r ∘ (U h + b')).

    Its parts are the two gates together and the candidate.
    """

    def __init__(self, kernel, inner_bias):
        self.kernel, self.inner_bias = kernel, inner_bias
        self.units = int(kernel.shape[0])
        self.bounds = [2 * self.units]

    def forward(self, x, state, kernels):
        x_gates, x_candidate = x
        if state is None:
            gates = ops.sigmoid(x_gates)
            r, z = ops.split(gates, 2, axis=-1)
            n = ops.tanh(x_candidate + r * self.inner_bias)
            return (n - z * n,), Kept(None, (gates, r, z, n, self.inner_bias))
        (h,) = state
        gates = ops.sigmoid(x_gates + ops.matmul(h, kernels[0]))
        r, z = ops.split(gates, 2, axis=-1)
        inner = ops.matmul(h, kernels[1]) + self.inner_bias
        n = ops.tanh(x_candidate + r * inner)
        return (n + z * (h - n),), Kept(h, (gates, r, z, n, inner))

    def start(self, upstream):
        self.d_inner = []
        return (upstream,)

    def backward(self, kept, d_state, turned):
        (dh,) = d_state
        gates, r, z, n, inner = kept.values
        d_kept = dh * z
        d_n = dh - d_kept
        d_n = d_n - d_n * n * n
        d_inner = d_n * r
        self.d_inner.append(d_inner)
        difference = -n if kept.before is None else kept.before - n
        d_gates = ops.concatenate([d_inner * inner, d_kept * difference], axis=-1)
        d_gates = d_gates - d_gates * gates
        d_input = (d_gates, d_n)
        if kept.before is None:
            return d_input, None, None
        d_recurrent = (d_gates, d_inner)
        return d_input, d_recurrent, (d_kept + _products(d_recurrent, turned),)

    def inner_bias_gradient(self):
        total = sum(ops.sum(part, axis=0) for part in self.d_inner)
        return ops.cast(total, self.inner_bias.dtype)


def _products(parts, kernels):
    """The sum of the products of each part with its kernel."""
    first, *rest = (ops.matmul(x, kernel) for x, kernel in zip(parts, kernels, strict=True))
    return sum(rest, start=first)


class LSTM:
    """c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c')."""

    bounds = ()

    def __init__(self, kernel):
        self.kernel = kernel
        self.units = int(kernel.shape[0])

    def forward(self, x, state, kernels):
        (x,) = x
        before, cell = (None, None) if state is None else state
        if before is not None:
            x = x + ops.matmul(before, kernels[0])
        h, c, kept = lstm_step(Gates(*ops.split(x, 4, axis=-1)), cell)
        return (h, c), Kept(before, kept)

    def start(self, upstream):
        return (upstream, None)

    def backward(self, kept, d_state, turned):
        d_gates, d_cell = lstm_step_gradient(kept.values, *d_state)
        d_input = ops.concatenate(d_gates, axis=-1)
        if kept.before is None:
            return (d_input,), None, None
        return (d_input,), (d_input,), (ops.matmul(d_input, turned[0]), d_cell)


class RNN:
    """h' = tanh(x + U h)."""

    bounds = ()

    def __init__(self, kernel):
        self.kernel = kernel
        self.units = int(kernel.shape[0])

    def forward(self, x, state, kernels):
        (x,) = x
        if state is None:
            h = ops.tanh(x)
            return (h,), Kept(None, (h,))
        h = ops.tanh(x + ops.matmul(state[0], kernels[0]))
        return (h,), Kept(state[0], (h,))

    def start(self, upstream):
        return (upstream,)

    def backward(self, kept, d_state, turned):
        (dh,) = d_state
        (h,) = kept.values
        d_input = dh - dh * h * h
        if kept.before is None:
            return (d_input,), None, None
        return (d_input,), (d_input,), (ops.matmul(d_input, turned[0]),)


CELLS = {"gru": GRU, "lstm": LSTM, "rnn": RNN}
