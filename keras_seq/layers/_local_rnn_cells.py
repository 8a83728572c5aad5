"""The recurrent cells of `LocalRNN`, as functions of a projected input.

Each takes `x`, the projected input (..., blocks * u), the state (`None` for zero, where the
recurrent product is skipped), the recurrent kernel and the recurrent bias, and returns the state
after the step, whose first part is the output. `x` already holds the recurrent bias where that can
be added ahead, see `projection_bias`.
"""

from keras import ops

BLOCKS = {"gru": 3, "lstm": 4, "rnn": 1}  # r, z, n; i, f, g, o; one


def projection_bias(cell, bias, recurrent_bias):
    """The bias of the input projection, with what of the recurrent bias does not meet a gate."""
    if cell != "gru":
        return bias + recurrent_bias
    units = int(bias.shape[0]) // 3
    gates = recurrent_bias[: 2 * units]
    return bias + ops.concatenate([gates, ops.zeros_like(recurrent_bias[2 * units :])])


def gru_step(x, state, recurrent_kernel, recurrent_bias):
    """h' = (1 - z) ∘ n + z ∘ h with n = tanh(W x + b + r ∘ (U h + b'))."""
    units = int(recurrent_bias.shape[0]) // 3
    inner_bias = recurrent_bias[2 * units :]
    if state is None:
        r, z = ops.split(ops.sigmoid(x[..., : 2 * units]), 2, axis=-1)
        n = ops.tanh(x[..., 2 * units :] + r * inner_bias)
        return (n - z * n,)
    (h,) = state
    recurrent = ops.matmul(h, recurrent_kernel)
    r, z = ops.split(ops.sigmoid(x[..., : 2 * units] + recurrent[..., : 2 * units]), 2, axis=-1)
    n = ops.tanh(x[..., 2 * units :] + r * (recurrent[..., 2 * units :] + inner_bias))
    return (n + z * (h - n),)


def lstm_step(x, state, recurrent_kernel, recurrent_bias):
    """c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c')."""
    if state is not None:
        x = x + ops.matmul(state[0], recurrent_kernel)
    i, f, g, o = ops.split(x, 4, axis=-1)
    c = ops.sigmoid(i) * ops.tanh(g)
    if state is not None:
        c = c + ops.sigmoid(f) * state[1]
    return ops.sigmoid(o) * ops.tanh(c), c


def rnn_step(x, state, recurrent_kernel, recurrent_bias):
    """h' = tanh(W x + b + U h + b')."""
    if state is not None:
        x = x + ops.matmul(state[0], recurrent_kernel)
    return (ops.tanh(x),)


STEPS = {"gru": gru_step, "lstm": lstm_step, "rnn": rnn_step}
