"""The levels of a dense LSTM trellis with a written-out gradient: faster, and far smaller.

Automatic differentiation makes one partial gradient of the shared kernel a level and keeps all of
them until they are summed. Here the kernel's gradient is one product over the rows of several
levels at a time, added up as the backward pass goes down, and a level keeps only what its own
gradient needs. With several stretches a level keeps nothing: the backward pass computes a stretch
again from the hidden and cell sequence it started from.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq.layers import _time_shift as shift
from keras_seq.layers._products import matrix_product
from keras_seq.layers._trellis_plan import TrellisPlan
from keras_seq.layers._written_gradient import once

_PRODUCT_ROWS = 2048  # rows of one product of the kernel's gradient; more gain nothing


class _Inputs(NamedTuple):
    """All tensors of a call."""

    kernel: Any  # (k * width, 4 * width)
    injections: dict  # dilation -> (b, t, 4 * width)
    bias_only: Any  # (4 * width,), or None if the input enters every level
    mask: Any  # (b, 1, width) or None
    hidden_past: list  # of each level; empty for zeros
    cell_past: list

    def tensors(self):
        optional = [x for x in (self.bias_only, self.mask) if x is not None]
        return [
            self.kernel,
            *self.injections.values(),
            *optional,
            *self.hidden_past,
            *self.cell_past,
        ]

    def like(self, tensors):
        """The same structure with other tensors."""
        rest = list(tensors)
        return _Inputs(
            kernel=rest.pop(0),
            injections={dilation: rest.pop(0) for dilation in self.injections},
            bias_only=None if self.bias_only is None else rest.pop(0),
            mask=None if self.mask is None else rest.pop(0),
            hidden_past=[rest.pop(0) for _ in self.hidden_past],
            cell_past=[rest.pop(0) for _ in self.cell_past],
        )


class _Saved(NamedTuple):
    """What the backward pass of one level needs."""

    seen: Any  # the windows of the hidden input, (b, t, k * width); None if all of them are zero
    past_cell: Any  # None if zero
    gates: tuple  # input, output, candidate and forget gate
    bent: Any  # tanh of the cell


def run_fused_levels(
    plan: TrellisPlan,
    kernel,
    injections,
    bias_only,
    hidden_past=None,
    cell_past=None,
    mask=None,
    stretches: int = 1,
    return_past: bool = False,
):
    """Runs all levels of a dense LSTM trellis; see `run_levels` for arguments and results.

    The gradient holds for all inputs but the mask, which counts as a constant. It cannot be
    differentiated again.
    """
    inputs = _Inputs(
        kernel=kernel,
        injections=injections,
        bias_only=None if all(plan.injected) else bias_only,
        mask=mask,
        hidden_past=hidden_past or [],
        cell_past=cell_past or [],
    )

    @ops.custom_gradient
    def run(*tensors):
        levels = _FusedLevels(plan, inputs.like(tensors), return_past)
        kept, z, c = [], None, None
        for first, end in plan.stretches(stretches):
            start = (z, c)
            z, c, saved = levels.forward(first, end, z, c)
            kept.append(start if stretches > 1 else saved)

        def gradient(*arguments, upstream=None):
            # TensorFlow gives one argument an output, JAX one with all of them.
            given = keras.tree.flatten(arguments if upstream is None else upstream)
            backward = once(lambda: levels.backward(kept, stretches, given), "TrellisNet")
            return backward(*tensors, *given)

        return (z, c, *levels.collected, *levels.next_hidden, *levels.next_cell), gradient

    z, c, *rest = run(*inputs.tensors())
    count, past = len(plan.collected), plan.levels if return_past else 0
    return z, c, rest[:count], rest[count : count + past], rest[count + past :]


class _FusedLevels:
    """Forward and backward pass of a call; holds nothing but the call's inputs and outputs."""

    def __init__(self, plan: TrellisPlan, inputs: _Inputs, return_past: bool):
        self.plan = plan
        self.inputs = inputs
        self.return_past = return_past
        self.collected, self.next_hidden, self.next_cell = [], [], []

    def forward(self, first, end, z, c, again=False):
        """Levels first to end-1; `again` if only the saved values are wanted."""
        saved = []
        for level in range(first, end):
            if self.return_past and not again:
                self._take_past(level, z, c)
            z, c, keep = self._level(level, z, c)
            saved.append(keep)
            if level in self.plan.collected and not again:
                self.collected.append(z[..., -self.plan.output_units :])
        return z, c, saved

    def _after(self, gradient):
        """The same pass, but only once the gradient is there.

        This keeps an optimizer from moving a recomputation to the forward pass, or from merging it
        with what was computed there.
        """
        injections = self.inputs.injections
        injections = {d: _after(tensor, gradient) for d, tensor in injections.items()}
        inputs = self.inputs._replace(injections=injections)
        return _FusedLevels(self.plan, inputs, self.return_past)

    def _past(self, level):
        if not self.inputs.hidden_past:
            return None, None
        return self.inputs.hidden_past[level], self.inputs.cell_past[level]

    def _zeros(self):
        some = next(iter(self.inputs.injections.values()))
        return ops.zeros_like(some[..., : self.plan.width])

    def _take_past(self, level, z, c):
        hidden, cell = self._past(level)
        z, c = (self._zeros(), self._zeros()) if z is None else (z, c)
        self.next_hidden.append(shift.last(z, self.plan.padding(level), hidden))
        self.next_cell.append(shift.last(c, self.plan.dilations[level], cell))

    def _level(self, level, z, c):
        """One level: equations 11 and 12. `z` is `None` below the first level."""
        plan, inputs = self.plan, self.inputs
        dilation, mask = plan.dilations[level], inputs.mask
        hidden_past, cell_past = self._past(level)
        if z is None and hidden_past is not None:
            z = c = self._zeros()
        seen = past_cell = None
        if z is not None:
            past_cell = shift.delay(c, dilation, cell_past)
            if mask is not None:
                z = z * mask
                hidden_past = None if hidden_past is None else hidden_past * mask
            seen = shift.windows(z, plan.kernel_size, dilation, hidden_past)
        if plan.injected[level]:
            pre = inputs.injections[dilation]
        else:
            pre = inputs.bias_only
        if seen is not None and level > 0:
            pre = matrix_product(seen, inputs.kernel) + pre
        elif seen is not None:  # all but the first steps see zeros
            reach = plan.padding(level)
            seen = seen[:, :reach]
            head = matrix_product(seen, inputs.kernel) + pre[:, :reach]
            pre = ops.concatenate([head, pre[:, reach:]], axis=1)
        i, o, g, f = ops.split(pre, 4, axis=-1)
        i, o, g, f = ops.sigmoid(i), ops.sigmoid(o), ops.tanh(g), ops.sigmoid(f)
        cell = i * g if past_cell is None else f * past_cell + i * g
        bent = ops.tanh(cell)
        return o * bent, cell, _Saved(seen, past_cell, (i, o, g, f), bent)

    def backward(self, kept, stretches, upstream):
        """The gradients of all inputs, from those of all outputs."""
        plan, inputs = self.plan, self.inputs
        totals = _Totals(plan, inputs)
        dz, dc, *rest = upstream
        count = len(plan.collected)
        d_collected = dict(zip(plan.collected, rest, strict=False))
        past = rest[count:]
        for index, (first, end) in reversed(list(enumerate(plan.stretches(stretches)))):
            saved = list(kept[index])  # a persistent tape may come again
            if stretches > 1:
                z, c = saved
                _, _, saved = self._after(dz).forward(first, end, z, c, again=True)
            for level in reversed(range(first, end)):
                if level in d_collected:
                    rest_of_width = plan.width - plan.output_units
                    dz = dz + ops.pad(d_collected[level], [[0, 0], [0, 0], [rest_of_width, 0]])
                dz, dc = self._level_gradient(level, saved.pop(), dz, dc, totals)
                dz = totals.keep_pace(dz)
                if past:
                    dz = totals.add_next_past("hidden", level, plan.padding(level), past[level], dz)
                    dc = totals.add_next_past(
                        "cell", level, plan.dilations[level], past[plan.levels + level], dc
                    )
        return totals.gradients()

    def _level_gradient(self, level, saved: _Saved, dz, dc, totals):
        """From the gradients of a level's hidden and cell sequence to those of the level below."""
        plan, dilation, mask = self.plan, self.plan.dilations[level], self.inputs.mask
        (i, o, g, f), bent = saved.gates, saved.bent
        # Each product begins with an upstream gradient. A factor of saved values alone, such as
        # 1 - i, would be computed as early as the forward pass, and held until now.
        d_bent = dz * o
        output = d_bent * bent
        dc = dc + (d_bent - output * bent)
        candidate = dc * i
        input_ = candidate * g
        d_cell = dc * f
        if saved.past_cell is None:
            d_forget = ops.zeros_like(i)
        else:
            forget = d_cell * saved.past_cell
            d_forget = forget - forget * f
        d_pre = ops.concatenate(
            [input_ - input_ * i, output - output * o, candidate - input_ * g, d_forget], axis=-1
        )
        totals.add_pre_activations(level, d_pre)
        if saved.seen is None:
            return dz, dc
        totals.add_past("cell", level, dilation, d_cell)
        if level == 0:
            d_pre = d_pre[:, : plan.padding(level)]
        totals.add_kernel(saved.seen, d_pre)
        d_seen = matrix_product(d_pre, totals.transposed_kernel)
        below = None
        for tap, view in enumerate(ops.split(d_seen, plan.kernel_size, axis=-1)):
            view = view if mask is None else view * mask
            steps = (plan.kernel_size - 1 - tap) * dilation
            totals.add_past("hidden", level, steps, view)
            if level == 0:
                continue
            view = shift.delay_gradient(view, steps)
            below = view if below is None else below + view
        if level == 0:  # nothing below
            return dz, dc
        return below, shift.delay_gradient(d_cell, dilation)


class _Totals:
    """The sums that the backward pass builds up; in float32 where the pass is in less."""

    def __init__(self, plan: TrellisPlan, inputs: _Inputs):
        self.plan = plan
        self.inputs = inputs
        kernel = inputs.kernel
        rows, channels = kernel.shape
        taps = ops.reshape(kernel, (plan.kernel_size, rows // plan.kernel_size, channels))
        # Transposed once, and in a form that no optimizer turns into a product with a transposed
        # factor: that one is 10% slower.
        self.transposed_kernel = ops.reshape(ops.transpose(taps, (2, 0, 1)), (channels, rows))
        some = next(iter(inputs.injections.values()))
        length = (some.shape[0] or 8) * (some.shape[1] or 64)
        self.levels_a_product = -(-_PRODUCT_ROWS // length)
        self.waiting = []
        self.kernel = None
        self.pre = {}
        self.past = {}

    def _wide(self, tensor):
        low = tensor.dtype in ("bfloat16", "float16")
        return ops.cast(tensor, "float32") if low else tensor

    def add_pre_activations(self, level, d_pre):
        key = self.plan.dilations[level] if self.plan.injected[level] else None
        self.pre[key] = _sum(self.pre.get(key), self._wide(d_pre))

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
        for total in (self.kernel, *self.pre.values()):
            gradient = _after(gradient, total)
        return gradient

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
        d_past, d_sequence = shift.last_gradient(upstream, d_below, steps)
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
        result = _Inputs(
            kernel=ops.cast(kernel, inputs.kernel.dtype),
            injections={
                dilation: ops.cast(self.pre[dilation], tensor.dtype)
                for dilation, tensor in inputs.injections.items()
            },
            bias_only=None
            if inputs.bias_only is None
            else ops.cast(ops.sum(self.pre[None], axis=(0, 1)), inputs.bias_only.dtype),
            mask=None if inputs.mask is None else ops.zeros_like(inputs.mask),
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


def _after(tensor, other):
    """The tensor itself, but only once another one is there.

    The zero that is added hangs on the other tensor, and no optimizer sees that it is constant.
    """
    corner = ops.reshape(other[(slice(0, 1),) * len(other.shape)], ())
    return tensor + ops.cast(ops.minimum(ops.square(corner), 0), tensor.dtype)
