"""Shifts of a sequence in time, and their gradients.

All take sequences `(b, t, d)` of known or unknown length, also shorter than the shift.
"""

from keras import ops

from keras_seq.ops.packing import last_steps, lengths_of, take_steps


def _longer(sequence, steps: int) -> bool:
    """Whether the sequence is known to be longer than this many steps."""
    length = sequence.shape[1]
    return isinstance(length, int) and length > steps


def _pad(sequence, before: int, after: int):
    return ops.pad(sequence, [[0, 0], [before, after], [0, 0]])


def delay(sequence, steps: int, past=None):
    """The sequence so many steps later, `(b, t, d)`, beginning with `past` (or zeros).

    Args:
        sequence: `(b, t, d)`.
        steps: the shift; with a negative one it comes earlier, with zeros at its end.
        past: the steps that came before, `(b, steps, d)`, or `None` for zeros.
    """
    if not steps:
        return sequence
    if steps < 0:
        return delay_gradient(sequence, -steps)
    if past is not None:
        return ops.concatenate([past, sequence], axis=1)[:, :-steps]
    if _longer(sequence, steps):
        return _pad(sequence[:, :-steps], steps, 0)
    return _pad(sequence, steps, 0)[:, :-steps]


def delay_gradient(upstream, steps: int):
    """The gradient of `delay` with respect to the sequence."""
    if not steps:
        return upstream
    if steps < 0:
        return delay(upstream, -steps)
    if _longer(upstream, steps):
        return _pad(upstream[:, steps:], 0, steps)
    return _pad(upstream, 0, steps)[:, steps:]


def delay_past_gradient(upstream, steps: int):
    """The gradient of `delay` with respect to the past, `(b, steps, d)`."""
    if _longer(upstream, steps):
        return upstream[:, :steps]
    return _pad(upstream, 0, steps)[:, :steps]


def last(sequence, steps: int, past=None, valid=None):
    """The last steps of past and sequence together, `(b, steps, d)`: the past of the next call.

    Args:
        sequence: `(b, t, d)`.
        steps: how many.
        past: `(b, steps, d)`, or `None` for zeros.
        valid: `(b, t)`, true at the first steps of each row that count; `None` where all do.
    """
    if not steps:
        return sequence[:, :0]
    if valid is not None:
        joined = _pad(sequence, steps, 0) if past is None else ops.concatenate([past, sequence], 1)
        return last_steps(joined, valid, steps)
    if _longer(sequence, steps):
        return sequence[:, -steps:]
    if past is None:
        return _pad(sequence, steps, 0)[:, -steps:]
    return ops.concatenate([past, sequence], axis=1)[:, -steps:]


def last_gradient(upstream, sequence, steps: int, valid=None):
    """The gradients of `last` with respect to the past and the sequence.

    Args:
        upstream: `(b, steps, d)`.
        sequence: any tensor of the sequence's shape `(b, t, d)`.
        steps: the steps taken.
        valid: as in `last`.

    Returns:
        `(b, steps, d)`, or `None` if it is known to be zero, and `(b, t, d)`.
    """
    if valid is not None:
        length = ops.shape(sequence)[1]
        places = ops.arange(steps + length, dtype="int32") - ops.expand_dims(lengths_of(valid), 1)
        taken = ops.logical_and(places >= 0, places < steps)
        both = take_steps(upstream, ops.clip(places, 0, steps - 1))
        both = ops.where(ops.expand_dims(taken, 2), both, ops.zeros_like(both))
        return both[:, :steps], both[:, steps:]
    if _longer(sequence, steps):
        return None, _pad(upstream, sequence.shape[1] - steps, 0)
    both = ops.concatenate([ops.zeros_like(sequence), upstream], axis=1)
    return both[:, :steps], both[:, steps:]


def windows(sequence, kernel_size: int, dilation: int, past=None, beside=None, ahead: int = 0):
    """The k taps of a convolution side by side, oldest first.

    One matrix product with a kernel `(k * d, channels)` is then the convolution.

    Args:
        sequence: `(b, t, d)`.
        kernel_size: taps k.
        dilation: steps between two taps.
        past: the steps before, `(b, (k-1) * dilation, d)` or more, or `None` for zeros.
        beside: further channels to append, `(b, t, e)`, or `None`.
        ahead: how far the last tap is ahead of its step; 0 for a causal convolution.

    Returns:
        `(b, t, k * d + e)`.
    """
    if kernel_size == 1 and beside is None:
        return sequence
    views = []
    for tap in range(kernel_size):
        steps = (kernel_size - 1 - tap) * dilation - ahead
        own = None if past is None or not steps else past[:, -steps:]
        views.append(delay(sequence, steps, own))
    if beside is not None:
        views.append(beside)
    return ops.concatenate(views, axis=-1)
