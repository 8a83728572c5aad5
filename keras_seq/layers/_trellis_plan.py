"""The static description of a trellis: which level does what."""

from typing import NamedTuple

from keras import ops


class TrellisPlan(NamedTuple):
    """Sizes and switches of a trellis, all known before the call. Levels count from 0 here.

    Attributes:
        kernel_size: taps k of the convolution.
        dilations: the dilation of each level.
        injected: whether the input enters each level.
        collected: the levels whose outputs are auxiliary outputs.
        width: channels of the hidden sequence.
        output_units: the last channels, which are the output.
    """

    kernel_size: int
    dilations: tuple[int, ...]
    injected: tuple[bool, ...]
    collected: tuple[int, ...]
    width: int
    output_units: int

    @property
    def levels(self) -> int:
        return len(self.dilations)

    def padding(self, level: int) -> int:
        """Past steps that the convolution of a level sees."""
        return (self.kernel_size - 1) * self.dilations[level]

    @property
    def hidden_steps(self) -> int:
        """Steps of the packed hidden part of the exact state."""
        return sum(self.padding(level) for level in range(self.levels))

    @property
    def cell_steps(self) -> int:
        """Steps of the packed cell part of the exact state."""
        return sum(self.dilations)

    @property
    def input_steps(self) -> int:
        """Steps of the input part of the exact state."""
        return (self.kernel_size - 1) * max(self.dilations)

    def unpack_hidden(self, packed):
        """Cuts `(b, hidden_steps, width)` into the padding of each level."""
        return _unpack(packed, [self.padding(level) for level in range(self.levels)])

    def unpack_cell(self, packed):
        """Cuts `(b, cell_steps, width)` into the padding of each level."""
        return _unpack(packed, list(self.dilations))


def _unpack(packed, lengths):
    pieces, start = [], 0
    for length in lengths:
        pieces.append(packed[:, start : start + length])
        start += length
    return pieces


def taps(padded, kernel_size: int, dilation: int):
    """The k shifted views of a sequence, oldest tap first.

    Args:
        padded: `(b, (k-1) * dilation + t, d)`.

    Returns:
        A list of k tensors `(b, t, d)`; the last one is the current step.
    """
    views = []
    for tap in range(kernel_size):
        after = (kernel_size - 1 - tap) * dilation
        views.append(padded[:, tap * dilation : -after if after else None])
    return views


def windows(padded, kernel_size: int, dilation: int):
    """The taps side by side, `(b, t, k * d)`: one matrix product is then the convolution."""
    views = taps(padded, kernel_size, dilation)
    return views[0] if len(views) == 1 else ops.concatenate(views, axis=-1)
