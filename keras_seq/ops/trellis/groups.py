"""The mixed-group kernel of a trellis: the sparse kernel of Theorem 1."""

from keras import ops

from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.dense import masked_pair, previous_hidden
from keras_seq.ops.trellis.plan import TrellisPlan


class GroupProduct:
    """A level with a mixed-group kernel.

    Group g sees its own previous step and the current step of group g-1; group 1 sees the injected
    input instead. Group g stays zero in its first g-1 levels, where nothing has reached it yet: a
    step of its biases alone would put a foreign value before the window's start.

    Args:
        plan: the trellis; its kernel has two taps.
        groups: the widths of the groups.
    """

    def __init__(self, plan: TrellisPlan, groups: tuple[int, ...]):
        self.plan = plan
        self.groups = groups
        self.distinct_levels = len(groups)

    def step(self, level, weights, injection, z, hidden_past, mask, cell):
        """One level; see `DenseProduct.step`. `weights` are a matrix and a bias for each group."""
        raw = previous_hidden(self.plan, level, z, hidden_past)
        past = self._split(raw if mask is None else raw * mask)
        below = self._split(masked_pair(z, None, mask)[0])
        raw, cells = self._split(raw), self._split(cell)
        hidden, new_cells = [], []
        for g in range(len(self.groups)):
            if g > level:
                hidden.append(ops.zeros_like(past[g]))
                new_cells.append(ops.zeros_like(past[g]))
                continue
            matrix, bias = weights[2 * g], weights[2 * g + 1]
            if g == 0:
                pre = matrix_product(past[0], matrix) + injection
            else:
                seen = ops.concatenate([past[g], below[g - 1]], axis=-1)
                pre = matrix_product(seen, matrix) + bias
            h, c = self.plan.gates(pre, raw[g], cells[g])
            hidden.append(h)
            new_cells.append(c)
        return ops.concatenate(hidden, axis=-1), ops.concatenate(new_cells, axis=-1)

    def _split(self, sequence):
        pieces, start = [], 0
        for width in self.groups:
            pieces.append(sequence[..., start : start + width])
            start += width
        return pieces
