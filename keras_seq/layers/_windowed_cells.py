"""The recurrent cells of `LocalRNN` on rows, one row a position: a step, and its gradient.

Each takes `x`, the projected input (rows, blocks * u), and the state (`None` for zero, where the
recurrent product is skipped), and returns the state after the step, whose first part is the output,
with what the gradient of the step needs. `x` already holds the recurrent bias where that can be
added ahead, see `projection_bias`.
"""

from typing import Any, NamedTuple

from keras import ops

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
    """h' = (1 - z) ∘ n + z ∘ h with n = tanh(x_n + r ∘ (U h + b'))."""

    def __init__(self, kernel, inner_bias):
        self.kernel, self.inner_bias = kernel, inner_bias
        self.units = int(kernel.shape[0])

    def forward(self, x, state):
        split = 2 * self.units
        if state is None:
            r, z = ops.split(ops.sigmoid(x[:, :split]), 2, axis=-1)
            n = ops.tanh(x[:, split:] + r * self.inner_bias)
            return (n - z * n,), Kept(None, (r, z, n, self.inner_bias))
        (h,) = state
        recurrent = ops.matmul(h, self.kernel)
        r, z = ops.split(ops.sigmoid(x[:, :split] + recurrent[:, :split]), 2, axis=-1)
        inner = recurrent[:, split:] + self.inner_bias
        n = ops.tanh(x[:, split:] + r * inner)
        return (n + z * (h - n),), Kept(h, (r, z, n, inner))

    def start(self, upstream):
        self.d_inner = []
        return (upstream,)

    def backward(self, kept, d_state, turned):
        (dh,) = d_state
        r, z, n, inner = kept.values
        d_kept = dh * z
        d_n = dh - d_kept
        d_n = d_n - d_n * n * n
        d_inner = d_n * r
        self.d_inner.append(d_inner)
        d_r = d_inner * inner
        d_r = d_r - d_r * r
        d_z = -d_kept * n if kept.before is None else d_kept * (kept.before - n)
        d_z = d_z - d_z * z
        d_input = ops.concatenate([d_r, d_z, d_n], axis=-1)
        if kept.before is None:
            return d_input, None, None
        d_recurrent = ops.concatenate([d_r, d_z, d_inner], axis=-1)
        return d_input, d_recurrent, (d_kept + ops.matmul(d_recurrent, turned),)

    def inner_bias_gradient(self):
        total = sum(ops.sum(part, axis=0) for part in self.d_inner)
        return ops.cast(total, self.inner_bias.dtype)


class LSTM:
    """c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c')."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.units = int(kernel.shape[0])

    def forward(self, x, state):
        if state is not None:
            x = x + ops.matmul(state[0], self.kernel)
        i, f, g, o = ops.split(x, 4, axis=-1)
        i, g, o = ops.sigmoid(i), ops.tanh(g), ops.sigmoid(o)
        if state is None:
            before, f, cell = None, None, None
            c = i * g
        else:
            before, cell = state
            f = ops.sigmoid(f)
            c = f * cell + i * g
        bent = ops.tanh(c)
        return (o * bent, c), Kept(before, (i, f, g, o, cell, bent))

    def start(self, upstream):
        return (upstream, None)

    def backward(self, kept, d_state, turned):
        dh, dc = d_state
        i, f, g, o, cell, bent = kept.values
        d_bent = dh * o
        d_o = d_bent * bent
        through = d_bent - d_o * bent
        dc = through if dc is None else dc + through
        d_g = dc * i
        d_i = d_g * g
        d_f = ops.zeros_like(i)
        if cell is not None:
            d_f = dc * f * cell
            d_f = d_f - d_f * f
        d_input = ops.concatenate([d_i - d_i * i, d_f, d_g - d_i * g, d_o - d_o * o], axis=-1)
        if cell is None:
            return d_input, None, None
        return d_input, d_input, (ops.matmul(d_input, turned), dc * f)


class RNN:
    """h' = tanh(x + U h)."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.units = int(kernel.shape[0])

    def forward(self, x, state):
        if state is None:
            h = ops.tanh(x)
            return (h,), Kept(None, (h,))
        h = ops.tanh(x + ops.matmul(state[0], self.kernel))
        return (h,), Kept(state[0], (h,))

    def start(self, upstream):
        return (upstream,)

    def backward(self, kept, d_state, turned):
        (dh,) = d_state
        (h,) = kept.values
        d_input = dh - dh * h * h
        if kept.before is None:
            return d_input, None, None
        return d_input, d_input, (ops.matmul(d_input, turned),)


CELLS = {"gru": GRU, "lstm": LSTM, "rnn": RNN}
