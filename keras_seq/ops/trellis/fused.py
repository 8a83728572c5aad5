"""The levels of a dense LSTM trellis with a written-out gradient: faster, and far smaller.

Automatic differentiation makes one partial gradient of the shared kernel a level and keeps all of
them until they are summed. Here the kernel's gradient is one product over the rows of several
levels at a time, added up as the backward pass goes down, and a level keeps only what its own
gradient needs. With several stretches a level keeps nothing: the backward pass computes a stretch
again from the hidden and cell sequence it started from.

A narrow input is folded into the levels: its taps stand beside those of the hidden sequence, and
one product of a level makes both. A wide one is projected once, and the projection is added.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq._backend import read
from keras_seq.ops import time_shift as shift
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.written_gradient import once

_PRODUCT_ROWS = 2048  # rows of one product of the kernel's gradient; more gain nothing
_FOLDED_SHARE = 12  # how many times as wide as a folded input the hidden windows are at least
_FOLDED_ROWS = 8  # the rows of a kernel with a folded input are a multiple of it


class _Inputs(NamedTuple):
    """All tensors of a call."""

    kernel: Any  # (k * width, 4 * width), or with further rows for the channels of `folded`
    injections: dict  # dilation -> (b, t, 4 * width), or with a folded input (b, t, channels)
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

    seen: Any  # what the product saw, (b, t, channels); None if all of it is zero
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
    folded: bool = False,
):
    """Runs all levels of a dense LSTM trellis; see `run_levels` for arguments and results.

    With `folded`, what `folded_input` returns stands in the places of `kernel` and `injections`.
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
        levels = _FusedLevels(plan, inputs.like(tensors), return_past, folded)
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

    z, c, *rest = run(*map(read, inputs.tensors()))
    count, past = len(plan.collected), plan.levels if return_past else 0
    return z, c, rest[:count], rest[count : count + past], rest[count + past :]


def folds_input(plan: TrellisPlan, input_features: int) -> bool:
    """Whether the input is narrow enough to be computed again at every level.

    The added products then cost less than adding a projection at every level would.
    """
    channels = plan.kernel_size * input_features + 1
    return all(plan.injected) and _FOLDED_SHARE * channels <= plan.kernel_size * plan.width


def folded_input(plan: TrellisPlan, x, past, kernel_hidden, kernel_input, bias):
    """The kernel of hidden sequence, input and bias, and the channels that it expects of the input.

    Args:
        plan: the trellis.
        x: the input, `(b, t, d)`.
        past: its past steps, or `None` for zeros.
        kernel_hidden: `(k * width, channels)`.
        kernel_input: `(k * d, channels)`.
        bias: `(channels,)`.

    Returns:
        The kernel, and for each dilation the taps of the input with a channel of ones beside them.
        Channels of zeros fill the rows of a product up to a round number.
    """
    rows = kernel_hidden.shape[0] + kernel_input.shape[0] + 1
    more = -rows % _FOLDED_ROWS
    kernel = ops.concatenate(
        [kernel_hidden, kernel_input, bias[None], ops.zeros((more, bias.shape[0]), bias.dtype)]
    )
    shape = ops.shape(x)
    ones = ops.ones((shape[0], shape[1], 1), x.dtype)
    beside = ops.pad(ones, [[0, 0], [0, 0], [0, more]])
    return kernel, {
        dilation: shift.windows(x, plan.kernel_size, dilation, past, beside)
        for dilation in plan.injected_dilations
    }


class _FusedLevels:
    """Forward and backward pass of a call; holds nothing but the call's inputs and outputs."""

    def __init__(self, plan: TrellisPlan, inputs: _Inputs, return_past: bool, folded: bool):
        self.plan = plan
        self.inputs = inputs
        self.return_past = return_past
        self.folded = folded
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
        return _FusedLevels(self.plan, inputs, self.return_past, self.folded)

    def _past(self, level):
        if not self.inputs.hidden_past:
            return None, None
        return self.inputs.hidden_past[level], self.inputs.cell_past[level]

    def _zeros(self):
        some = next(iter(self.inputs.injections.values()))
        return ops.zeros((*ops.shape(some)[:2], self.plan.width), some.dtype)

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
        past_cell = None
        if z is not None:
            past_cell = shift.delay(c, dilation, cell_past)
            if mask is not None:
                z = z * mask
                hidden_past = None if hidden_past is None else hidden_past * mask
        seen, pre = self._pre_activations(level, z, hidden_past)
        i, o, g, f = ops.split(pre, 4, axis=-1)
        i, o, g, f = ops.sigmoid(i), ops.sigmoid(o), ops.tanh(g), ops.sigmoid(f)
        cell = i * g if past_cell is None else f * past_cell + i * g
        bent = ops.tanh(cell)
        return o * bent, cell, _Saved(seen, past_cell, (i, o, g, f), bent)

    def _pre_activations(self, level, z, hidden_past):
        """What the product of a level saw, and the pre-activations: equation 11."""
        plan, inputs, dilation = self.plan, self.inputs, self.plan.dilations[level]
        injection = inputs.injections[dilation] if plan.injected[level] else inputs.bias_only
        if self.folded:
            if z is None:
                return injection, matrix_product(injection, inputs.kernel[plan.hidden_rows :])
            seen = shift.windows(z, plan.kernel_size, dilation, hidden_past, injection)
            return seen, matrix_product(seen, inputs.kernel)
        if z is None:
            return None, injection
        seen = shift.windows(z, plan.kernel_size, dilation, hidden_past)
        if level > 0:
            pre = matrix_product(seen, inputs.kernel) + injection
        else:  # all but the first steps see zeros
            reach = plan.padding(level)
            seen = seen[:, :reach]
            head = matrix_product(seen, inputs.kernel) + injection[:, :reach]
            pre = ops.concatenate([head, injection[:, reach:]], axis=1)
        return seen, pre

    def backward(self, kept, stretches, upstream):
        """The gradients of all inputs, from those of all outputs."""
        plan, inputs = self.plan, self.inputs
        totals = _Totals(plan, inputs, self.folded)
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
        if not self.folded:
            totals.add_injection(level, d_pre)
        if saved.past_cell is None:
            if self.folded:
                totals.add_input_kernel(saved.seen, d_pre)
                kernel = totals.transposed_kernel[:, plan.hidden_rows :]
                totals.add_injection(level, matrix_product(d_pre, kernel))
            return dz, dc
        totals.add_past("cell", level, dilation, d_cell)
        if level == 0 and not self.folded:
            d_pre = d_pre[:, : plan.padding(level)]
        totals.add_kernel(saved.seen, d_pre)
        d_seen = matrix_product(d_pre, totals.transposed_kernel)
        if self.folded:
            bounds = [tap * plan.width for tap in range(1, plan.kernel_size + 1)]
            *views, d_input = ops.split(d_seen, bounds, axis=-1)
            totals.add_injection(level, d_input)
        else:
            views = ops.split(d_seen, plan.kernel_size, axis=-1)
        below = None
        for tap, view in enumerate(views):
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

    def __init__(self, plan: TrellisPlan, inputs: _Inputs, folded: bool):
        self.plan = plan
        self.inputs = inputs
        rows, channels = inputs.kernel.shape
        parts = _FOLDED_ROWS if folded else plan.kernel_size
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
        return _after(gradient, self.kernel, *self.injections.values())

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
                dilation: ops.cast(self.injections[dilation], tensor.dtype)
                for dilation, tensor in inputs.injections.items()
            },
            bias_only=None
            if inputs.bias_only is None
            else ops.cast(ops.sum(self.injections[None], axis=(0, 1)), inputs.bias_only.dtype),
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


def _after(tensor, *others):
    """The tensor itself, but only once the others are there.

    The zero that is added hangs on the other tensors, and no optimizer sees that it is constant.
    """
    corners = [ops.reshape(other[(slice(0, 1),) * len(other.shape)], ()) for other in others]
    zero = sum(ops.minimum(ops.square(corner), 0) for corner in corners)
    return tensor + ops.cast(zero, tensor.dtype)
