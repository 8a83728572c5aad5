"""How a causal layer reads a batch of rows: which steps, in which order, and what it hands out."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_seq.layers.recorded_attention import record_of_steps
from keras_seq.ops.packing import (
    Packing,
    check_mask,
    is_packed,
    last_valid,
    lengths_of,
    mark_packed,
)

# Of time, in further results; a solution is a dict of its own.
_AXES = {
    "return_branch": 1,
    "return_auxiliary": 2,
    "return_probabilities": None,
    "return_solution": None,
}
_FOR_EACH_STEP = ("initial_guess",)  # further arguments with values for the steps of x


def over_rows(call: Callable) -> Callable:
    """The `call` of a causal layer, for masks and for the options of the base class.

    A masked step is left out: the valid steps of each row go to its front before the call, and
    their outputs to their places after it. The call gets `mask` in that order, true first, if it
    takes one, and owes the state after the last valid step of each row.

    Args:
        call: `call(self, x, initial_state, return_state, training, masks)`, perhaps with `mask`.
    """
    signature = inspect.signature(call)
    takes_mask = "mask" in signature.parameters
    names = list(signature.parameters)[1:]

    @functools.wraps(call)
    def run(self, *args, **kwargs):
        if type(self).call is not run:  # that of a base class, through `super`
            return call(self, *args, **kwargs)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x, mask = given.pop(names[0]), given.pop("mask", None)
        if mask is None and self.order == FORWARDS:
            return call(self, x, **given)
        bound = functools.partial(call, self)
        return read_rows(bound, x, mask, takes_mask, self, given, self.order)

    if not takes_mask:
        run.__signature__ = _with_mask(signature)  # type: ignore[attr-defined]
    return run


class Order(NamedTuple):
    """In which order a layer reads a row, and what it hands out.

    Attributes:
        go_backwards: read from the last step to the first.
        lookahead: steps after its own that an output has seen.
        return_sequences: hand out the outputs of all steps, or that of the last valid one.
        zero_output_for_mask: zeros at masked steps, or the last valid output before them.
    """

    go_backwards: bool = False
    lookahead: int = 0
    return_sequences: bool = True
    zero_output_for_mask: bool = False


FORWARDS = Order()


class Reading:
    """The order in which the steps of a batch are read: valid steps alone, one direction.

    Args:
        mask: (b, t), true at valid steps; `None` where all are.
        go_backwards: whether the last step is read first.

    Attributes:
        mask: in that order, true first.
        packing: what moved the steps; `None` where it was in this form.
    """

    def __init__(self, mask: Any, go_backwards: bool):
        self._go_backwards = go_backwards
        if mask is not None and go_backwards:
            mask = ops.flip(mask, axis=1)
        self.packing = None
        if mask is not None and not is_packed(mask):
            self.packing = Packing(mask)
            mask = self.packing.mask
        self.mask = mask

    def put(self, values):
        """Values (b, t, ...) of all steps, as they are read."""
        if self._go_backwards:
            values = ops.flip(values, axis=1)
        return values if self.packing is None else self.packing.pack(values)

    def back(self, values):
        """Values as they are read, in their places; zeros at masked steps."""
        if self.packing is not None:
            values = self.packing.unpack(values, zeros=True)
        return ops.flip(values, axis=1) if self._go_backwards else values


def read_rows(
    call: Callable,
    x: Any,
    mask: Any,
    takes_mask: bool,
    owner: keras.layers.Layer,
    given: dict[str, Any],
    order: Order = FORWARDS,
) -> Any:
    """A call of any layer of the contract, for the valid steps of each row.

    Args:
        call: the layer or its call, of `x` and what is given.
        x: (b, t, ...), or a nest of such tensors.
        mask: (b, t), true at valid steps; `None` where all are.
        takes_mask: whether the call takes `mask`, with the valid steps first.
        owner: the layer, for messages.
        given: further arguments of the call.
        order: of reading.
    """
    if mask is not None:
        check_mask(mask, keras.tree.flatten(x)[0])
    reading = Reading(mask, order.go_backwards)
    x, mask, packing = _each(reading.put, x), reading.mask, reading.packing
    whole = given.get("initial_state") is None and not given.get("return_state")
    ahead = order.lookahead if whole else 0
    for name in _FOR_EACH_STEP:
        if given.get(name) is not None:
            _check_lookahead(ahead, name)
            given = {**given, name: reading.put(given[name])}
    read = mask
    if ahead:
        x = _each(lambda part: _longer(part, ahead), x)
        read = None if mask is None else _further(mask, ahead)
    noted = contextlib.nullcontext()
    if packing is not None:
        noted = record_of_steps(packing.unpack_pairs, ops.shape(packing.mask)[1])
    with noted:
        results, state = _call(call, x, read, takes_mask, owner, given)

    def placed(outputs):
        outputs = outputs[:, ahead:] if ahead else outputs
        if not order.return_sequences:
            if mask is None:
                return outputs[:, -1]
            return last_valid(outputs, mask, ops.zeros_like(outputs[:, 0]))
        return outputs if packing is None else packing.unpack(outputs, order.zero_output_for_mask)

    handed = []
    for axis, result in results:
        if axis is not None:
            handed.append(_at(axis, result, placed))
        elif isinstance(result, dict):
            _check_lookahead(ahead, "return_solution")
            handed.append({**result, "equilibrium": reading.back(result["equilibrium"])})
        elif ahead or not order.return_sequences:
            raise ValueError(
                "`return_probabilities` must be False with `lookahead`, and with "
                "`return_sequences=False`. Received: return_probabilities=True."
            )
        else:
            handed.append(result if packing is None else packing.unpack_pairs(result))
    handed += state
    return handed[0] if len(handed) == 1 else tuple(handed)


def _call(call, x, mask, takes_mask: bool, owner, given):
    """The results of a call with the axes of time, and the state, as a list of one or none."""
    wants_state = bool(given.get("return_state"))
    if mask is not None and not takes_mask and wants_state:
        raise ValueError(
            f"`mask` must be left out where a {type(owner).__name__} (layer {owner.name!r}) is "
            "asked for its state: its `call` takes no `mask`, so that it cannot give the state "
            "after the last valid step of each row. Give its `call` the argument, or "
            "leave `return_state` out."
        )
    results = call(x, **given, **({"mask": mask} if takes_mask else {}))
    results = list(results) if isinstance(results, tuple) else [results]
    state = [results.pop()] if wants_state else []
    asked = [axis for name, axis in _AXES.items() if given.get(name)]
    return list(zip([1, *asked], results, strict=True)), state


def _check_lookahead(ahead: int, name: str) -> None:
    """Refuses what is for the steps of x where further ones are read."""
    if ahead:
        raise ValueError(
            f"`{name}` must be left out with `lookahead`, which reads steps behind those of x. "
            f"Received: lookahead={ahead}. Or give x these steps, zeros, and a state."
        )


def _longer(x, steps: int):
    """(b, t, ...) with further steps of zeros."""
    return ops.pad(x, [[0, 0], [0, steps], *([0, 0] for _ in x.shape[2:])])


def _further(mask, steps: int):
    """A packed mask whose rows are longer by some steps, valid ones."""
    places = ops.arange(ops.shape(mask)[1] + steps, dtype="int32")
    return mark_packed(places < ops.expand_dims(lengths_of(mask) + steps, 1))


def _at(axis: int, tensor, function):
    """A function of (b, t, ...) for a tensor with time at another axis."""
    if axis == 1:
        return function(tensor)
    result = function(ops.moveaxis(tensor, axis, 1))
    lost = len(result.shape) < len(tensor.shape)
    return result if lost else ops.moveaxis(result, 1, axis)


def _each(function, x):
    return keras.tree.map_structure(function, x)


def _with_mask(signature: inspect.Signature) -> inspect.Signature:
    """A signature with `mask=None` as its last argument, before a `**` one."""
    parameters = list(signature.parameters.values())
    rest = parameters.pop() if parameters[-1].kind is parameters[-1].VAR_KEYWORD else None
    mask = inspect.Parameter("mask", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters, mask, *([rest] if rest else [])])
