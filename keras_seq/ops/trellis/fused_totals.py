"""The sums of the written-out gradient of a trellis."""

from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.trellis.fused_inputs import FOLDED_ROWS, FusedInputs
from keras_seq.ops.trellis.plan import TrellisPlan

_PRODUCT_ROWS = 2048  # rows of one product of the kernel's gradient; more gain nothing


class FusedTotals:
    """The sums that the backward pass builds up; in float32 where the pass is in less."""

    def __init__(self, plan: TrellisPlan, inputs: FusedInputs):
        self.plan = plan
        self.inputs = inputs
        rows, channels = inputs.kernel.shape
        parts = FOLDED_ROWS if inputs.folded else plan.kernel_size
        pieces = ops.reshape(inputs.kernel, (parts, rows // parts, channels))
        # Transposed once, and in a form that no optimizer turns into a product with a transposed
        # factor: that one is 10% slower.
        self.transposed_kernel = ops.reshape(ops.transpose(pieces, (2, 0, 1)), (channels, rows))
        some = next(iter(inputs.injections.values()))
        length = (some.shape[0] or 8) * (some.shape[1] or 64)
        self.levels_a_product = -(-_PRODUCT_ROWS // length)
        self.waiting = []
        self.kernel = None
        self.injections = {}
        self.past = {}

    def _wide(self, tensor):
        low = tensor.dtype in ("bfloat16", "float16")
        return ops.cast(tensor, "float32") if low else tensor

    def add_injection(self, level, gradient):
        key = self.plan.dilations[level] if self.plan.injected[level] else None
        self.injections[key] = _sum(self.injections.get(key), self._wide(gradient))

    def add_input_kernel(self, seen, d_pre):
        """The share of a folded input's rows in the kernel, of a level that sees nothing else."""
        rows = [ops.reshape(x, (-1, x.shape[-1])) for x in (seen, d_pre)]
        part = self._wide(ops.matmul(ops.transpose(rows[0]), rows[1]))
        self.kernel = _sum(self.kernel, ops.pad(part, [[self.plan.hidden_rows, 0], [0, 0]]))

    def add_kernel(self, seen, d_pre):
        self.waiting.append((seen, d_pre))
        if len(self.waiting) == self.levels_a_product:
            self._sum_waiting()

    def _sum_waiting(self):
        if not self.waiting:
            return
        seen, d_pre = (
            ops.concatenate([ops.reshape(x, (-1, x.shape[-1])) for x in pieces], axis=0)
            for pieces in zip(*self.waiting, strict=True)
        )
        self.waiting = []
        part = self._wide(ops.matmul(ops.transpose(seen), d_pre))
        self.kernel = _sum(self.kernel, part)

    def keep_pace(self, gradient):
        """The gradient itself, but only once the sums are made.

        A graph executor puts off what no level waits for, and would then hold the terms of all
        levels in memory.
        """
        if self.kernel is None or self.waiting:
            return gradient
        return not_before(gradient, self.kernel, *self.injections.values())

    def add_past(self, name, level, steps, d_delayed):
        """What a delayed sequence owes to the given past; `steps` of it were used."""
        if not self.inputs.hidden_past or not steps:
            return
        part = shift.delay_past_gradient(d_delayed, steps)
        longest = self.plan.padding(level) if name == "hidden" else self.plan.dilations[level]
        if steps < longest:
            part = ops.pad(part, [[0, 0], [longest - steps, 0], [0, 0]])
        self._add_to_past(name, level, part)

    def add_next_past(self, name, level, steps, upstream, d_below):
        """What the returned past owes to the sequence below; returns that one's gradient."""
        if not steps:
            return d_below
        d_past, d_sequence = shift.last_gradient(upstream, d_below, steps, self.inputs.valid)
        if d_past is not None and self.inputs.hidden_past:
            self._add_to_past(name, level, d_past)
        return d_below + d_sequence

    def _add_to_past(self, name, level, part):
        key = (name, level)
        self.past[key] = self.past[key] + part if key in self.past else part

    def gradients(self):
        """The gradients in the order of the inputs."""
        self._sum_waiting()
        inputs = self.inputs
        kernel = ops.zeros_like(inputs.kernel) if self.kernel is None else self.kernel
        result = inputs._replace(
            kernel=ops.cast(kernel, inputs.kernel.dtype),
            injections={
                dilation: ops.cast(self.injections[dilation], tensor.dtype)
                for dilation, tensor in inputs.injections.items()
            },
            bias_only=None
            if inputs.bias_only is None
            else ops.cast(ops.sum(self.injections[None], axis=(0, 1)), inputs.bias_only.dtype),
            mask=None if inputs.mask is None else ops.zeros_like(inputs.mask),
            valid=None if inputs.valid is None else ops.zeros_like(inputs.valid),
            hidden_past=self._past_gradients("hidden", inputs.hidden_past),
            cell_past=self._past_gradients("cell", inputs.cell_past),
        )
        return tuple(result.tensors())

    def _past_gradients(self, name, given):
        return [
            self.past[name, level] if (name, level) in self.past else ops.zeros_like(tensor)
            for level, tensor in enumerate(given)
        ]


def _sum(total, part):
    return part if total is None else total + part


def not_before(tensor, *others):
    """The tensor itself, but only once the others are there.

    The zero that is added hangs on the other tensors, and no optimizer sees that it is constant.
    """
    corners = [ops.reshape(other[(slice(0, 1),) * len(other.shape)], ()) for other in others]
    zero = sum(ops.minimum(ops.square(corner), 0) for corner in corners)
    return tensor + ops.cast(zero, tensor.dtype)
