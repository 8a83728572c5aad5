"""Counting in a graph: products of its operations, trips of its loops, results that are kept."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
# Operations whose results share the memory of their inputs.
_VIEWS = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "Snapshot")
_NOT_KEPT = ("Const", "ReadVariableOp", "VarHandleOp", "Placeholder", "Shape", "NoOp")
_FOLDED = {
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Cast": np.asarray,
    "Identity": np.asarray,
    "Max": lambda values, axes: np.max(values),
}


class Flops(NamedTuple):
    """Floating-point operations of matrix products and convolutions.

    Attributes:
        total: 2 for each multiplication with its addition.
        early: whether a loop that is counted with the most trips it can make may end before.
        trip: operations of one trip of the dearest such loop; 0 without one.
        trips: its most trips.
    """

    total: int = 0
    early: bool = False
    trip: int = 0
    trips: int = 0


def count_flops(operations: Iterable[Any]) -> Flops:
    """Counts the products of a graph whose shapes are known, loops and called functions included.

    A loop counts as often as it can be made at most, a branch as the dearer of the two. All that
    works element by element is left out.

    Args:
        operations: `tf.Operation`s of one graph.

    Raises:
        ValueError: for a product whose shape, or a loop whose number of trips, is not known.

    Example:

    >>> with tf.Graph().as_default() as graph:
    ...     product = tf.matmul(tf.zeros((2, 3)), tf.zeros((3, 5)))
    >>> count_flops(graph.get_operations()).total
    60
    """
    return _count(operations, {})


def _count(operations: Iterable[Any], captured: dict[str, Any]) -> Flops:
    total, early, inner = 0, False, Flops()
    for operation in operations:
        total += _product(operation)
        found = Flops()
        if operation.type in _CALLS:
            found = _inside(operation, operation.get_attr("f").name, captured)
        elif operation.type in _BRANCHES:
            branches = [_inside(operation, n, captured) for n in _branch_names(operation)]
            found = max(branches, key=lambda branch: branch.total)
        elif operation.type in _LOOPS:
            body = _inside(operation, operation.get_attr("body").name, captured)
            if body.total:
                trips, may_end = _trips(operation, captured)
                found = Flops(body.total * trips, body.early or may_end, body.trip, body.trips)
                if may_end:
                    found = found._replace(trip=body.total, trips=trips)
        total += found.total
        early = early or found.early
        if found.trip * found.trips > inner.trip * inner.trips:
            inner = found
    return Flops(total, early, inner.trip, inner.trips)


def _product(operation: Any) -> int:
    """Operations of one matrix product or convolution; 0 for anything else."""
    if operation.type in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        name = "transpose_a" if operation.type == "MatMul" else "adj_x"
        rows = _shape(operation.inputs[0], operation)
        shared = rows[-2] if operation.get_attr(name) else rows[-1]
        return 2 * shared * math.prod(_shape(operation.outputs[0], operation))
    if operation.type in ("Conv2D", "Conv3D"):
        kernel = _shape(operation.inputs[1], operation)
        return 2 * math.prod(kernel[:-1]) * math.prod(_shape(operation.outputs[0], operation))
    if operation.type == "Einsum" and len(operation.inputs) == 2:
        given = operation.get_attr("equation").decode().split("->")[0].split(",")
        sizes: dict[Any, int] = {}
        for letters, tensor in zip(given, operation.inputs, strict=True):
            shape = _shape(tensor, operation)
            names: list[Any] = list(letters.replace("...", ""))
            if "..." in letters:  # the axes between, counted from the last of them
                at, more = letters.index("..."), len(shape) - len(names)
                names[at:at] = range(-more, 0)
            for name, size in zip(names, shape, strict=True):
                sizes[name] = max(size, sizes.get(name, 1))
        return 2 * math.prod(sizes.values())
    return 0


def _shape(tensor: Any, operation: Any) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(
            f"The graph must have known shapes to be counted. Received: {tensor.shape} at "
            f"{operation.name}. Give batch and length as numbers."
        )
    return tensor.shape.as_list()


def _function(operation: Any, name: str) -> Any:
    """The graph of a function that an operation calls."""
    return operation.graph._get_function(name).graph


def _branch_names(operation: Any) -> list[str]:
    if operation.type.endswith("Case"):
        return [branch.name for branch in operation.get_attr("branches")]
    return [operation.get_attr(name).name for name in ("then_branch", "else_branch")]


def _given(operation: Any, graph: Any, captured: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a called function that are known, by name."""
    skipped = 1 if operation.type in _BRANCHES else 0
    pairs = zip(graph.inputs, list(operation.inputs)[skipped:], strict=False)
    values = {inner.name: _value(outer, captured) for inner, outer in pairs}
    return {name: value for name, value in values.items() if value is not None}


def _inside(operation: Any, name: str, captured: dict[str, Any]) -> Flops:
    graph = _function(operation, name)
    return _count(graph.get_operations(), _given(operation, graph, captured))


def _value(tensor: Any, captured: dict[str, Any]) -> Any:
    """The value of a tensor that follows from shapes and constants, or `None`."""
    if tensor.name in captured:
        return captured[tensor.name]
    if tensor.dtype not in (tf.int32, tf.int64, tf.bool):
        return None
    value = tf.get_static_value(tensor)
    if value is not None:
        return np.asarray(value)
    operation = tensor.op
    if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
        return np.asarray(operation.inputs[0].shape.as_list())
    if operation.type not in (*_FOLDED, "StridedSlice"):
        return None
    inputs = [_value(given, captured) for given in operation.inputs]
    if any(given is None for given in inputs):
        return None
    if operation.type == "StridedSlice":
        return _element(operation, *inputs)
    return np.asarray(_FOLDED[operation.type](*inputs))


def _element(operation: Any, values: Any, begin: Any, end: Any, stride: Any) -> Any:
    """One element of a list of numbers, as a size is taken from a shape; else `None`."""
    single = operation.get_attr("shrink_axis_mask") == 1 and begin.size == 1 and values.ndim == 1
    return np.asarray(values[int(begin[0])]) if single else None


def _trips(loop: Any, captured: dict[str, Any]) -> tuple[int, bool]:
    """The most trips of a loop that counts from 0, and whether it may end before."""
    condition = _function(loop, loop.get_attr("cond").name)
    given = _given(loop, condition, captured)
    limits, early = [], False
    for operation in condition.get_operations():
        if operation.type == "Less":
            counter, limit = operation.inputs
            begin = given.get(counter.name)
            free = {name: value for name, value in given.items() if name != counter.name}
            end = _value(limit, free)
            if begin is not None and end is not None and end.ndim == 0:
                limits.append(int(end) - int(begin))
                continue
        early = early or operation.type not in ("Placeholder", "Const", "LogicalAnd", "Identity")
    if not limits:
        raise ValueError(f"No number of trips is known of the loop {loop.name}.")
    return max(0, min(limits)), early


def bytes_kept(forward: set[str], operations: Iterable[Any]) -> int:
    """Bytes of the forward pass's results that the backward pass reads.

    Views share the memory of what they show. Of a loop, what its trips put aside counts.

    Args:
        forward: names of the operations of the forward pass.
        operations: all operations of the graph, those of the backward pass included.
    """
    kept: dict[str, int] = {}
    stacked = 0
    for operation in operations:
        if operation.name in forward:
            if operation.type in _LOOPS:
                stacked += _stacked(operation)
            continue
        for tensor in operation.inputs:
            source = _root(tensor)
            if source.op.name in forward and source.op.type not in _NOT_KEPT:
                kept[source.name] = _bytes(source)
    return stacked + sum(kept.values())


def _root(tensor: Any) -> Any:
    while tensor.op.type in _VIEWS and len(tensor.op.inputs):
        index = tensor.value_index if tensor.op.type == "IdentityN" else 0
        tensor = tensor.op.inputs[index]
    return tensor


def _bytes(tensor: Any) -> int:
    if not tensor.shape.is_fully_defined() or tensor.dtype in (tf.variant, tf.resource, tf.string):
        return 0
    return tensor.shape.num_elements() * tensor.dtype.size


def _stacked(loop: Any) -> int:
    """What the trips of a loop push onto lists for the backward pass."""
    body = _function(loop, loop.get_attr("body").name)
    pushed = {
        _root(operation.inputs[1]).name: _bytes(operation.inputs[1])
        for operation in body.get_operations()
        if operation.type == "TensorListPushBack"
    }
    if not pushed:
        return 0
    return sum(pushed.values()) * _trips(loop, {})[0]
