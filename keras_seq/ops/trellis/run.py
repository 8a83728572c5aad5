"""A call of a trellis: what all levels share is prepared, they are run, the state is packed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from keras_seq.ops import time_shift as shift
from keras_seq.ops.lost_steps import finite_steps, marked, only, seen_lost
from keras_seq.ops.packing import last_valid
from keras_seq.ops.trellis.call import LevelOutputs, TrellisCall
from keras_seq.ops.trellis.fused import run_fused_levels
from keras_seq.ops.trellis.kernels import Kernels
from keras_seq.ops.trellis.levels import run_levels, stretch_count
from keras_seq.ops.trellis.plan import TrellisPlan
from keras_seq.ops.trellis.step import run_step


class TrellisResults(NamedTuple):
    """Outputs `(b, t, output_units)`, auxiliary outputs `(b, m, t, output_units)`, next state."""

    outputs: Any
    auxiliary: Any
    state: Any


def run_trellis(
    plan: TrellisPlan,
    kernels: Kernels,
    x,
    state=None,
    mask=None,
    next_kind: str | None = None,
    with_auxiliary: bool = False,
    training: bool | None = None,
    unroll: bool = True,
    rematerialize: bool = False,
    valid=None,
) -> TrellisResults:
    """Runs a trellis.

    Args:
        plan: the trellis.
        kernels: its kernels in this call.
        x: the input `(b, t, d)`.
        state: the state before the first step, of either kind; `None` for zeros.
        mask: the dropout mask of the convolution's hidden input, `(b, 1, width)`, or `None`.
        next_kind: the kind of state to return; `None` for none.
        with_auxiliary: whether the auxiliary outputs are wanted.
        training: whether gradients will be taken, once.
        unroll: repeat the levels in the graph, or loop over them.
        rematerialize: compute most levels again for the backward pass.
        valid: `(b, t)`, true at the first steps of each row, which count, with zeros in x behind
            them; `None` where all do.
    """
    finite, lost = x, None
    if x.shape[1] != 1:  # a single step sees the state, and what is lost there marks it
        steps = finite_steps(x)
        finite = only(steps, x)
        if plan.lead:  # of the steps after it a query sees as many
            steps = ops.pad(steps, [[0, 0], [0, plan.lead]], constant_values=True)
        lost = seen_lost(steps, plan.lead, ops.shape(x)[1], plan.receptive_field)
    kind = kernels.bias.dtype
    if mask is not None:
        mask = ops.cast(mask, kind)
    exact = next_kind == "exact"
    counted = None if valid is None or not (exact or plan.centred) else ops.cast(valid, kind)
    call = TrellisCall(plan, kernels, finite, state, mask, return_past=exact, valid=counted)
    levels = choose_runner(call, training, unroll, rematerialize)(call)

    def seen(part, count):
        return part if count is None else marked(part, count)

    auxiliary = None
    if with_auxiliary:
        each = None if lost is None else lost[:, None]
        auxiliary = seen(ops.stack(levels.collected, axis=1), each)

    def last(sequence, before=None):
        if valid is None:
            return sequence[:, -1:]
        before = ops.zeros_like(sequence[:, 0]) if before is None else before
        return ops.expand_dims(last_valid(sequence, valid, before), 1)

    after, next_state = None if lost is None else last(lost), None
    if exact:
        next_state = {
            "hidden": seen(levels.next_hidden, after),
            "cell": seen(levels.next_cell, after),
            "input": shift.last(x, plan.input_steps, call.input_past, call.valid),
        }
    elif next_kind == "history":
        pairs = zip((levels.hidden, levels.cell), state or (None, None), strict=True)
        next_state = [seen(last(z, before), after)[:, 0] for z, before in pairs]
    outputs = seen(levels.hidden[..., -plan.output_units :], lost)
    return TrellisResults(outputs, auxiliary, next_state)


def choose_runner(
    call: TrellisCall, training, unroll: bool, rematerialize: bool
) -> Callable[[TrellisCall], LevelOutputs]:
    """The way to run the levels, by what is known before they run.

    One step of an exact state has a way of its own. Training has one with a written-out gradient,
    for a dense kernel and gates that have it. All else is run level by level.
    """
    plan = call.plan
    dense = plan.groups is None
    if dense and isinstance(call.state, dict) and call.x.shape[1] == 1 and plan.kernel_size > 1:
        return run_step
    stretches = stretch_count(plan.levels) if rematerialize and training else 1
    if dense and training and unroll and plan.gates.has_gradient:
        return partial(run_fused_levels, stretches=stretches)
    return partial(run_levels, stretches=stretches, unroll=unroll)
