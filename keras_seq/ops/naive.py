"""What the fast functions here compute, written to be read: short, slow, of known sizes.

Each has the arguments and the results of the function of its name. Tests compare the two, values
and gradients; those of the naive ones come from the backend.
"""

from typing import Any

from keras import ops

from keras_seq._random import DrawnSeed, bernoulli_mask
from keras_seq.ops.seeded_dropout import seed_of_place


def gated_recurrence(projected, kernel, hidden, cell):
    """An LSTM step after step; see `keras_seq.ops.gated_recurrence`."""
    outputs = []
    for step in projected:
        f, g, i, o = ops.split(step + ops.matmul(hidden, kernel), 4, axis=-1)
        cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(g)
        hidden = ops.sigmoid(o) * ops.tanh(cell)
        outputs.append(hidden)
    return ops.stack(outputs), cell


def windowed_recurrence(
    cell, projected, recurrent_kernel, inner_bias, window, length, written_gradient=False
):
    """A recurrence of its own for each window; see `keras_seq.ops.windowed_recurrence`."""
    nothing = ops.zeros((projected.shape[0], recurrent_kernel.shape[0]), projected.dtype)
    outputs = []
    for first in range(length):
        h = c = nothing
        for place in range(first, first + window):
            x, from_h = projected[:, place], ops.matmul(h, recurrent_kernel)
            if cell == "rnn":
                h = ops.tanh(x + from_h)
            elif cell == "lstm":
                i, f, g, o = ops.split(x + from_h, 4, axis=-1)
                c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
                h = ops.sigmoid(o) * ops.tanh(c)
            else:
                (x_r, x_z, x_n), (h_r, h_z, h_n) = ops.split(x, 3, -1), ops.split(from_h, 3, -1)
                r, z = ops.sigmoid(x_r + h_r), ops.sigmoid(x_z + h_z)
                n = ops.tanh(x_n + r * (h_n + inner_bias))
                h = (1 - z) * n + z * h
        outputs.append(h)
    return ops.stack(outputs, axis=1)


def attend(
    query, key, value, valid, causal, span, rate, seed, written_gradient=False, in_blocks=False
):
    """All probabilities in one tensor; see `keras_seq.ops.causal_attention`."""
    length, total = query.shape[2], key.shape[2]
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    distance = ops.arange(total - length, total)[:, None] - ops.arange(total)[None]
    seen = ops.ones((1, 1, length, total), "bool")
    if causal:
        seen = ops.logical_and(seen, distance >= 0)
    if causal and span is not None:
        seen = ops.logical_and(seen, distance < span)
    if valid is not None:
        seen = ops.logical_and(seen, valid[:, None, None] > 0)
    probabilities = ops.softmax(ops.where(seen, scores, -float("inf")))
    dropped = probabilities
    if seed is not None and rate:
        drawn = DrawnSeed(seed_of_place(seed, 0))
        dropped = dropped * bernoulli_mask(dropped.shape, rate, drawn, query.dtype)
    return ops.matmul(dropped, value), [] if written_gradient else [probabilities]


def cluster_nll(hidden, targets, tokens, start, count, weights, max_logits, dtype):
    """The logits of all tokens at once; see `keras_seq.ops.cluster_nll`."""
    table, bias, projection = weights
    states = hidden if projection is None else ops.matmul(hidden, projection)
    logits = ops.matmul(states, ops.transpose(table))
    logits = ops.cast(logits if bias is None else logits + bias, dtype)
    members = ops.scatter(
        tokens[start : start + count, None], ops.ones((count,), dtype), (hidden.shape[0],)
    )
    own = ops.one_hot(ops.where(members > 0, targets, 0), table.shape[0], dtype=dtype)
    return -members * ops.sum(own * ops.log_softmax(logits), axis=-1)


def shift(scores, length, total):
    """Key after key from its distance; see `keras_seq.ops.relative_positions`."""
    rows: list[Any] = []
    for query in range(length):
        distances = [query + total - length - key for key in range(total)]
        # A key in the future has no score; any will do.
        columns = [total - max(distance, 0) for distance in distances]
        rows.append(ops.take(scores[..., query, :], ops.convert_to_tensor(columns), axis=-1))
    return ops.stack(rows, axis=-2)


def halves(x):
    """Every other feature; see `keras_seq.ops.halves`."""
    return x[..., ::2], x[..., 1::2]


def delay(sequence, steps, past=None):
    """The sequence after its past, cut at its length; see `keras_seq.ops.time_shift`."""
    if past is None:
        past = ops.zeros((sequence.shape[0], steps, sequence.shape[2]), sequence.dtype)
    return ops.concatenate([past, sequence], axis=1)[:, : sequence.shape[1]]
