"""The levels of a trellis with any gates and kernel, differentiated by the backend."""

import math
from typing import Any

import keras
from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.trellis.call import LevelOutputs, TrellisCall, injections
from keras_seq.ops.trellis.dense import DenseProduct
from keras_seq.ops.trellis.groups import GroupProduct
from keras_seq.ops.trellis.state import packed


def run_levels(call: TrellisCall, stretches: int = 1, unroll: bool = True) -> LevelOutputs:
    """Runs all levels, one after the other.

    Args:
        call: what they work on.
        stretches: how many stretches of levels the backward pass computes again; 1 for none.
        unroll: whether to repeat the levels in the graph. If not, all cycles of dilations and
            injections but the first are loops, where neither past nor collected levels differ.
    """
    plan = call.plan
    if plan.groups is None:
        product: Any = DenseProduct(plan)
    else:
        product = GroupProduct(plan, plan.groups)
    state = _Call(call, product)
    some = state.fixed["injection"][0]
    shape = ops.shape(some)
    z = c = ops.zeros((shape[0], shape[1], plan.width), some.dtype)
    own_past = call.return_past or call.input_past is not None  # of each level
    if unroll or own_past:
        ends = [(first, end, 1) for first, end in plan.stretches(stretches)]
    else:
        ends = plan.loops(product.distinct_levels)
    collected, next_hidden, next_cell = [], [], []
    for first, end, repeats in ends:
        run = state.stretch(first, end)
        if stretches > 1:
            run = keras.remat(run)
        tensors = state.tensors(first, end)
        if repeats == 1:
            z, c, *rest = run(z, c, *tensors)
            count = sum(first <= level < end for level in plan.collected)
            collected += rest[:count]
            if call.return_past:
                next_hidden += rest[count : count + end - first]
                next_cell += rest[count + end - first :]
        else:

            def body(z, c, run=run, tensors=tensors):
                return tuple(run(z, c, *tensors)[:2])

            z, c = _repeat(body, repeats, (z, c))
            if end - 1 + (repeats - 1) * (end - first) in plan.collected:
                collected.append(z[..., -plan.output_units :])
    return LevelOutputs(z, c, collected, packed(next_hidden), packed(next_cell))


def _repeat(body, repeats, start):
    """Applies a function a fixed number of times in a loop that can be differentiated."""

    def step(index, *carried):
        return (index + 1, *body(*carried))

    _, *end = ops.while_loop(
        lambda index, *carried: index < repeats, step, (0, *start), maximum_iterations=repeats
    )
    return end


class _Call:
    """The tensors of one call, and the pure functions of its stretches of levels."""

    def __init__(self, call: TrellisCall, product):
        self.plan, self.product, self.return_past = call.plan, product, call.return_past
        injected, past = injections(call), call.past
        self.dilations = list(injected)
        self.fixed = {"weight": list(call.kernels.hidden), "injection": list(injected.values())}
        self.fixed["bias"] = [] if all(self.plan.injected) else [call.kernels.bias]
        self.fixed["mask"] = [] if call.mask is None else [call.mask]
        self.fixed["valid"] = [] if call.valid is None else [call.valid]
        self.hidden_past, self.cell_past = past.hidden or [], past.cell or []

    def tensors(self, first, end):
        """The arguments of a stretch; a captured tensor would get no gradient from `remat`."""
        past = [*self.hidden_past[first:end], *self.cell_past[first:end]]
        return [*(x for group in self.fixed.values() for x in group), *past]

    def stretch(self, first, end):
        """The pure function of levels first to end-1."""
        plan = self.plan

        def run(z, c, *tensors):
            rest = list(tensors)
            fixed = {name: [rest.pop(0) for _ in group] for name, group in self.fixed.items()}
            mask = fixed["mask"][0] if fixed["mask"] else None
            valid = fixed["valid"][0] if fixed["valid"] else None
            hidden_past = rest[: end - first] or [None] * (end - first)
            cell_past = rest[end - first :] or [None] * (end - first)
            collected, next_hidden, next_cell = [], [], []
            for level, hidden, cell in zip(range(first, end), hidden_past, cell_past, strict=True):
                dilation = plan.dilations[level]
                if self.return_past:
                    next_hidden.append(shift.last(z, plan.padding(level), hidden, valid))
                    next_cell.append(shift.last(c, dilation, cell, valid))
                if plan.centred and valid is not None:
                    z = z * ops.expand_dims(valid, 2)  # else what stands behind them is seen
                if plan.injected[level]:
                    injection = fixed["injection"][self.dilations.index(dilation)]
                else:
                    injection = fixed["bias"][0]
                z, c = self.product.step(
                    level,
                    fixed["weight"],
                    injection,
                    z,
                    hidden,
                    mask,
                    shift.delay(c, dilation, cell),
                )
                if level in plan.collected:
                    collected.append(z[..., -plan.output_units :])
            return z, c, *collected, *next_hidden, *next_cell

        return run


def stretch_count(levels: int) -> int:
    """About the root of the levels, so that what stretches keep and what one needs balance."""
    return max(1, math.isqrt(levels))
