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

from keras_seq._backend import read
from keras_seq.ops import time_shift as shift
from keras_seq.ops.lstm import Gates, LSTMKept, lstm_step, lstm_step_gradient
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.call import LevelOutputs, TrellisCall
from keras_seq.ops.trellis.fused_inputs import FusedInputs, fused_inputs
from keras_seq.ops.trellis.fused_totals import FusedTotals, not_before
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.trellis.state import packed
from keras_seq.ops.written_gradient import once


class _Saved(NamedTuple):
    """What the backward pass of one level needs."""

    seen: Any  # what the product saw, (b, t, channels); None if all of it is zero
    gates: LSTMKept


def run_fused_levels(call: TrellisCall, stretches: int = 1) -> LevelOutputs:
    """Runs all levels of a dense LSTM trellis.

    The gradient holds for all inputs but the masks, which count as constants. It cannot be
    differentiated again.

    Args:
        call: what they work on.
        stretches: how many stretches of levels the backward pass computes again; 1 for none.
    """
    plan = call.plan
    inputs = fused_inputs(call)

    @ops.custom_gradient
    def run(*tensors):
        levels = _FusedLevels(plan, inputs.like(tensors), call.return_past)
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
    count, kept = len(plan.collected), plan.levels if call.return_past else 0
    hidden, cell = rest[count : count + kept], rest[count + kept :]
    return LevelOutputs(z, c, rest[:count], packed(hidden), packed(cell))


class _FusedLevels:
    """Forward and backward pass of a call; holds nothing but the call's inputs and outputs."""

    def __init__(self, plan: TrellisPlan, inputs: FusedInputs, return_past: bool):
        self.plan = plan
        self.inputs = inputs
        self.return_past = return_past
        self.collected, self.next_hidden, self.next_cell = [], [], []

    def forward(self, first, end, z, c, again=False):
        """LevelOutputs first to end-1; `again` if only the saved values are wanted."""
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
        injections = {d: not_before(tensor, gradient) for d, tensor in injections.items()}
        inputs = self.inputs._replace(injections=injections)
        return _FusedLevels(self.plan, inputs, self.return_past)

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
        valid = self.inputs.valid
        self.next_hidden.append(shift.last(z, self.plan.padding(level), hidden, valid))
        self.next_cell.append(shift.last(c, self.plan.dilations[level], cell, valid))

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
            z = self._before_the_end(z)
        seen, pre = self._pre_activations(level, z, hidden_past)
        i, o, g, f = ops.split(pre, 4, axis=-1)
        z, c, kept = lstm_step(Gates(i, f, g, o), past_cell)
        return z, c, _Saved(seen, kept)

    def _before_the_end(self, sequence):
        """A sequence with zeros behind the last valid steps, where a convolution sees these."""
        if not self.plan.centred or self.inputs.valid is None:
            return sequence
        return sequence * ops.expand_dims(self.inputs.valid, 2)

    def _pre_activations(self, level, z, hidden_past):
        """What the product of a level saw, and the pre-activations: equation 11."""
        plan, inputs, dilation = self.plan, self.inputs, self.plan.dilations[level]
        injection = inputs.injections[dilation] if plan.injected[level] else inputs.bias_only
        ahead = plan.ahead(dilation)
        if self.inputs.folded:
            if z is None:
                return injection, matrix_product(injection, inputs.kernel[plan.hidden_rows :])
            seen = shift.windows(z, plan.kernel_size, dilation, hidden_past, injection, ahead)
            return seen, matrix_product(seen, inputs.kernel)
        if z is None:
            return None, injection
        seen = shift.windows(z, plan.kernel_size, dilation, hidden_past, ahead=ahead)
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
        totals = FusedTotals(plan, inputs)
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
        (i, f, g, o), d_cell = lstm_step_gradient(saved.gates, dz, dc)
        d_pre = ops.concatenate([i, o, g, f], axis=-1)
        if not self.inputs.folded:
            totals.add_injection(level, d_pre)
        if d_cell is None:
            if self.inputs.folded:
                totals.add_input_kernel(saved.seen, d_pre)
                kernel = totals.transposed_kernel[:, plan.hidden_rows :]
                totals.add_injection(level, matrix_product(d_pre, kernel))
            return dz, dc
        totals.add_past("cell", level, dilation, d_cell)
        if level == 0 and not self.inputs.folded:
            d_pre = d_pre[:, : plan.padding(level)]
        totals.add_kernel(saved.seen, d_pre)
        d_seen = matrix_product(d_pre, totals.transposed_kernel)
        if self.inputs.folded:
            bounds = [tap * plan.width for tap in range(1, plan.kernel_size + 1)]
            *views, d_input = ops.split(d_seen, bounds, axis=-1)
            totals.add_injection(level, d_input)
        else:
            views = ops.split(d_seen, plan.kernel_size, axis=-1)
        below = None
        for tap, view in enumerate(views):
            view = view if mask is None else view * mask
            steps = (plan.kernel_size - 1 - tap) * dilation - plan.ahead(dilation)
            totals.add_past("hidden", level, steps, view)
            if level == 0:
                continue
            view = shift.delay_gradient(view, steps)
            below = view if below is None else below + view
        if level == 0:  # nothing below
            return dz, dc
        return self._before_the_end(below), shift.delay_gradient(d_cell, dilation)
