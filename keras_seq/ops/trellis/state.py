"""The two kinds of state: the last steps of every level, or the last vectors of the last level."""

from typing import Any, NamedTuple

from keras import ops

from keras_seq.ops.trellis.plan import TrellisPlan

STATE_KINDS = ("exact", "history")


class Past(NamedTuple):
    """What came before the first step; `None` for zeros."""

    input: Any  # (b, steps, d)
    hidden: list | None  # of the hidden sequence below each level, (b, (k-1) d_l, width)
    cell: list | None  # of the cell sequence below each level, (b, d_l, width)


def kind_of(state) -> str:
    """The kind of a state, by its structure."""
    if isinstance(state, dict):
        return "exact"
    if isinstance(state, list | tuple) and len(state) == 2:
        return "history"
    raise ValueError(
        "`initial_state` must be a dict (exact) or a pair [h, c] (history), as from "
        f"`get_initial_state`. Received: {type(state).__name__}."
    )


def zero_state(plan: TrellisPlan, kind: str, batch_size, input_features: int, dtype: str):
    """The state before the first step."""
    if kind == "history":
        return [ops.zeros((batch_size, plan.width), dtype) for _ in range(2)]
    return {
        "hidden": ops.zeros((batch_size, plan.hidden_steps, plan.width), dtype),
        "cell": ops.zeros((batch_size, plan.cell_steps, plan.width), dtype),
        "input": ops.zeros((batch_size, plan.input_steps, input_features), dtype),
    }


def past_of(plan: TrellisPlan, state) -> Past:
    """The past of each level that a state stands for."""
    if state is None:
        return Past(None, None, None)
    if isinstance(state, dict):
        paddings = [plan.padding(level) for level in range(plan.levels)]
        hidden, cell = _cut(state["hidden"], paddings), _cut(state["cell"], plan.dilations)
        return Past(state["input"], hidden, cell)
    h, c = (vector[:, None] for vector in state)
    hidden = {d: ops.repeat(h, (plan.kernel_size - 1) * d, axis=1) for d in {*plan.dilations}}
    cell = {d: ops.repeat(c, d, axis=1) for d in {*plan.dilations}}
    return Past(None, [hidden[d] for d in plan.dilations], [cell[d] for d in plan.dilations])


def packed(parts: list):
    """The parts of all levels side by side, as the exact state holds them; `None` for no parts."""
    return ops.concatenate(parts, axis=1) if parts else None


def _cut(sequences, lengths) -> list:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(sequences[:, start : start + length])
        start += length
    return pieces
