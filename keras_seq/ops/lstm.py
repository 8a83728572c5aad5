"""One step of an LSTM, and its gradient.

A convolution or a loop makes the pre-activations and says in which order their blocks stand.
"""

from typing import Any, NamedTuple

from keras import ops


class Gates(NamedTuple):
    """The four gates, before or after their activations, or gradients of them: (..., n) each."""

    input: Any
    forget: Any
    candidate: Any
    output: Any


class LSTMKept(NamedTuple):
    """What the gradient of a step needs."""

    gates: Gates  # after their activations; without a cell there is no forget gate
    cell: Any  # before the step
    bent: Any  # tanh of the cell after it


def lstm_step(pre: Gates, cell=None):
    """c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c').

    Hochreiter and Schmidhuber, *Long Short-Term Memory* (1997), with the forget gate of Gers et al.

    Args:
        pre: the pre-activations.
        cell: the cell before the step, or `None` for zero.

    Returns:
        The hidden value and the cell after the step, and what `lstm_step_gradient` needs.
    """
    i, g, o = ops.sigmoid(pre.input), ops.tanh(pre.candidate), ops.sigmoid(pre.output)
    if cell is None:
        f = None
        after = i * g
    else:
        f = ops.sigmoid(pre.forget)
        after = f * cell + i * g
    bent = ops.tanh(after)
    return o * bent, after, LSTMKept(Gates(i, f, g, o), cell, bent)


def lstm_step_gradient(kept: LSTMKept, d_hidden, d_cell=None):
    """The gradient of a step.

    Each product begins with an upstream gradient. A factor of saved values alone, such as 1 - i,
    would be computed as early as the forward pass, and held until now.

    Args:
        kept: from the step.
        d_hidden: gradient of the hidden value after the step.
        d_cell: gradient of the cell after the step, or `None` for zero.

    Returns:
        The gradients of the pre-activations, and of the cell before the step: `None` if there was
        none.
    """
    (i, f, g, o), cell, bent = kept
    d_bent = d_hidden * o
    d_output = d_bent * bent
    through = d_bent - d_output * bent
    d_cell = through if d_cell is None else d_cell + through
    d_candidate = d_cell * i
    d_input = d_candidate * g
    if cell is None:
        d_forget, d_before = ops.zeros_like(i), None
    else:
        d_before = d_cell * f
        d_forget = d_before * cell
        d_forget = d_forget - d_forget * f
    d_pre = Gates(
        d_input - d_input * i, d_forget, d_candidate - d_input * g, d_output - d_output * o
    )
    return d_pre, d_before
