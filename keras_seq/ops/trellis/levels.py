"""The levels of a trellis with any gates and kernel, differentiated by the backend."""

import math

import keras
from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.products import matrix_product
from keras_seq.ops.trellis.plan import TrellisPlan


class DenseProduct:
    """A level with a dense kernel.

    Args:
        plan: the trellis.
        gates: its gates.
    """

    distinct_levels = 1  # how many of the first levels are like no other

    def __init__(self, plan: TrellisPlan, gates):
        self.plan = plan
        self.gates = gates

    def step(self, level, weights, injection, z, hidden_past, mask, cell):
        """One level.

        Args:
            level: its index.
            weights: a list with the kernel, `(k * width, blocks * width)`.
            injection: what the input adds, `(b, t, blocks * width)`, or a bias alone.
            z: the hidden sequence of the level below.
            hidden_past: its past, or `None` for zeros.
            mask: the dropout mask of the convolution's hidden input, or `None`.
            cell: the delayed cell sequence of the level below.

        Returns:
            The hidden and the cell sequence.
        """
        plan, dilation = self.plan, self.plan.dilations[level]
        (kernel,) = weights
        masked, masked_past = masked_pair(z, hidden_past, mask)
        if level > 0:
            seen = shift.windows(masked, plan.kernel_size, dilation, masked_past)
            pre = matrix_product(seen, kernel) + injection
        elif hidden_past is not None and plan.padding(level):
            # Below the first level all is zero but the past, which the first steps see.
            reach = plan.padding(level)
            seen = shift.windows(masked, plan.kernel_size, dilation, masked_past)[:, :reach]
            head = matrix_product(seen, kernel) + injection[:, :reach]
            pre = ops.concatenate([head, injection[:, reach:]], axis=1)
        else:
            pre = injection
        return self.gates(pre, previous_hidden(plan, level, z, hidden_past), cell)


def masked_pair(z, past, mask):
    """A sequence and its past times a mask that is constant in time; either may be `None`."""
    if mask is None:
        return z, past
    return z * mask, None if past is None else past * mask


def previous_hidden(plan: TrellisPlan, level: int, z, past):
    """The hidden sequence of the level below, one dilation in the past; `None` with one tap."""
    if plan.kernel_size == 1:
        return None
    dilation = plan.dilations[level]
    return shift.delay(z, dilation, None if past is None else past[:, -dilation:])


def run_levels(
    plan: TrellisPlan,
    product,
    weights,
    injections,
    bias_only,
    hidden_past=None,
    cell_past=None,
    mask=None,
    stretches: int = 1,
    return_past: bool = False,
    unroll: bool = True,
):
    """Runs all levels.

    Args:
        plan: the trellis.
        product: a `DenseProduct` or a `GroupProduct`.
        weights: a list of the tensors that `product` uses.
        injections: a dict from dilation to the injected input (bias included), `(b, t, channels)`.
        bias_only: what levels without injection get instead, `(channels,)`.
        hidden_past: for each level the past of its hidden input, or `None` for zeros.
        cell_past: likewise of its cell sequence.
        mask: the dropout mask of the hidden input, or `None`.
        stretches: how many stretches of levels the backward pass computes again; 1 for none.
        return_past: whether to return the past for the next call.
        unroll: whether to repeat the levels in the graph. If not, all cycles of dilations and
            injections but the first are loops, where neither past nor collected levels differ.

    Returns:
        The final hidden and cell sequence, the list of collected outputs, and the lists of the next
        hidden and cell past (empty unless asked for).
    """
    state = _Call(plan, product, weights, injections, bias_only, mask, hidden_past, cell_past)
    some = next(iter(injections.values()))
    shape = ops.shape(some)
    z = c = ops.zeros((shape[0], shape[1], plan.width), some.dtype)
    if unroll:
        ends = [(first, end, 1) for first, end in plan.stretches(stretches)]
    else:
        ends = plan.loops(product.distinct_levels)
    collected, next_hidden, next_cell = [], [], []
    for first, end, repeats in ends:
        run = state.stretch(first, end, return_past)
        if stretches > 1:
            run = keras.remat(run)
        tensors = state.tensors(first, end)
        if repeats == 1:
            z, c, *rest = run(z, c, *tensors)
            count = sum(first <= level < end for level in plan.collected)
            collected += rest[:count]
            if return_past:
                next_hidden += rest[count : count + end - first]
                next_cell += rest[count + end - first :]
        else:

            def body(z, c, run=run, tensors=tensors):
                return tuple(run(z, c, *tensors)[:2])

            z, c = _repeat(body, repeats, (z, c))
            if end - 1 + (repeats - 1) * (end - first) in plan.collected:
                collected.append(z[..., -plan.output_units :])
    return z, c, collected, next_hidden, next_cell


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

    def __init__(self, plan, product, weights, injections, bias_only, mask, hidden_past, cell_past):
        self.plan = plan
        self.product = product
        self.fixed = {"weight": list(weights), "injection": list(injections.values())}
        self.fixed["bias"] = [] if all(plan.injected) else [bias_only]
        self.fixed["mask"] = [] if mask is None else [mask]
        self.dilations = list(injections)
        self.hidden_past, self.cell_past = hidden_past or [], cell_past or []

    def tensors(self, first, end):
        """The arguments of a stretch; a captured tensor would get no gradient from `remat`."""
        past = [*self.hidden_past[first:end], *self.cell_past[first:end]]
        return [*(x for group in self.fixed.values() for x in group), *past]

    def stretch(self, first, end, return_past):
        """The pure function of levels first to end-1."""
        plan = self.plan

        def run(z, c, *tensors):
            rest = list(tensors)
            fixed = {name: [rest.pop(0) for _ in group] for name, group in self.fixed.items()}
            mask = fixed["mask"][0] if fixed["mask"] else None
            hidden_past = rest[: end - first] or [None] * (end - first)
            cell_past = rest[end - first :] or [None] * (end - first)
            collected, next_hidden, next_cell = [], [], []
            for level, hidden, cell in zip(range(first, end), hidden_past, cell_past, strict=True):
                dilation = plan.dilations[level]
                if return_past:
                    next_hidden.append(shift.last(z, plan.padding(level), hidden))
                    next_cell.append(shift.last(c, dilation, cell))
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
