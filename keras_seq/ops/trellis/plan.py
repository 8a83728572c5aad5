"""The static description of a trellis: which level does what."""

from typing import NamedTuple

from keras_seq.ops.trellis.gates import TrellisGates


class TrellisPlan(NamedTuple):
    """Sizes and switches of a trellis, all known before the call. LevelOutputs count from 0 here.

    Attributes:
        kernel_size: taps k of the convolution.
        dilations: the dilation of each level.
        injected: whether the input enters each level.
        collected: the levels whose outputs are auxiliary outputs.
        width: channels of the hidden sequence.
        output_units: the last channels, which are the output.
        gates: what follows the product of each level.
        groups: widths of the groups of a mixed-group kernel, or `None` for a dense one.
        centred: whether the convolutions see later steps too, as with `padding="same"`.
    """

    kernel_size: int
    dilations: tuple[int, ...]
    injected: tuple[bool, ...]
    collected: tuple[int, ...]
    width: int
    output_units: int
    gates: TrellisGates
    groups: tuple[int, ...] | None = None
    centred: bool = False

    @property
    def levels(self) -> int:
        return len(self.dilations)

    @property
    def receptive_field(self) -> int:
        """Input steps that an output depends on, its own included."""
        if self.centred:
            first, *rest = self.dilations
            behind = self.behind(first) + sum(max(self.behind(d), d) for d in rest)
            return behind + 1 + self.lead
        if self.groups is not None:  # one level a group is spent on the way to the next group
            upper = sorted(self.dilations[1:])
            return 1 + sum(upper[len(self.groups) - 1 :])
        reach = max(self.kernel_size - 1, 1)  # of the cell where there is one tap only
        return 1 + self.padding(0) + reach * sum(self.dilations[1:])

    @property
    def hidden_rows(self) -> int:
        """Channels of a window of the hidden sequence."""
        return self.kernel_size * self.width

    def padding(self, level: int) -> int:
        """Past steps that the convolution of a level sees, later ones included if centred."""
        return (self.kernel_size - 1) * self.dilations[level]

    def ahead(self, dilation: int) -> int:
        """Steps after its own that a convolution of this dilation sees."""
        steps = (self.kernel_size - 1) * dilation
        return steps - steps // 2 if self.centred else 0

    def behind(self, dilation: int) -> int:
        """Steps before its own that it sees."""
        return (self.kernel_size - 1) * dilation - self.ahead(dilation)

    @property
    def lead(self) -> int:
        """Input steps after its own that an output depends on."""
        return sum(map(self.ahead, self.dilations))

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

    @property
    def injected_dilations(self) -> tuple[int, ...]:
        """The dilations at which the input is injected, each once."""
        pairs = zip(self.dilations, self.injected, strict=True)
        return tuple(dict.fromkeys(dilation for dilation, used in pairs if used))

    def stretches(self, count: int) -> list[tuple[int, int]]:
        """Cuts the levels into so many stretches, as pairs of first level and end."""
        bounds = [round(i * self.levels / count) for i in range(count + 1)]
        return list(zip(bounds, bounds[1:], strict=False))

    def loops(self, distinct: int = 1) -> list[tuple[int, int, int]]:
        """The levels as loops: triples of first level, end, and how often these levels repeat.

        A loop covers whole cycles of dilations and injections, and no collected level but its last.

        Args:
            distinct: how many of the first levels are like no other.
        """
        pairs = list(zip(self.dilations, self.injected, strict=True))
        period = next(p for p in range(1, self.levels + 1) if pairs[p:] == pairs[:-p])
        result = [(0, min(distinct, self.levels), 1)]
        first = result[0][1]
        for end in sorted({level + 1 for level in self.collected} | {self.levels}):
            if end <= first:
                continue
            repeats = (end - first) // period
            if repeats > 1:
                result.append((first, first + period, repeats))
                first += repeats * period
            if first < end:
                result.append((first, end, 1))
            first = end
        return result
