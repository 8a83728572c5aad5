"""Where in a checkpoint the weights are: state dicts, nested checkpoints, whole modules."""

import reprlib
from typing import Any

from keras_seq.convert.pickle_machine import Record, UnsafePickleError
from keras_seq.convert.torch_objects import Tensor

_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_DEPTH = 64


def find_state(root: Any) -> dict[str, Tensor]:
    """Finds the weights in what a file holds.

    Args:
        root: the unpickled content: dictionaries, lists, records and tensors.

    Returns:
        The tensors by name.

    Raises:
        UnsafePickleError: there are none.
    """
    state = _search(root, 0)
    if state is None:
        kind = f"a `{root.symbol}`" if isinstance(root, Record) else f"a {type(root).__name__}"
        keys = f" with keys {reprlib.repr(list(root))}" if isinstance(root, dict) else ""
        raise UnsafePickleError(
            f"it holds {kind}{keys}, neither a state dict nor a module; save model.state_dict()"
        )
    return state


def _search(value: Any, depth: int) -> dict[str, Tensor] | None:
    if depth > 3:
        return None
    if isinstance(value, Record):
        return _module_state(value) if _is_module(value) else None
    if isinstance(value, list | tuple):
        return _merge([_search(item, depth + 1) for item in value])
    if not isinstance(value, dict):
        return None
    for key in _KEYS:
        found = _search(value.get(key), depth + 1)
        if found:
            return found
    state = {
        str(name): tensor
        for name, item in value.items()
        if (tensor := _as_tensor(item)) is not None
    }
    if state:
        return state
    found = [state for item in value.values() if (state := _search(item, depth + 1))]
    return found[0] if len(found) == 1 else None


def _merge(states: list[dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    """Of a list such as [model, criterion, optimizer]: the weights of all its modules."""
    merged: dict[str, Tensor] = {}
    for state in states:
        if state and not set(state) & set(merged):
            merged.update(state)
    return merged or None


def _as_tensor(value: Any) -> Tensor | None:
    """The tensor of a value; parameters of PyTorch before 0.4 keep theirs in a tuple."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Record) and value.symbol.name in ("Parameter", "Variable"):
        state = value.state
        if isinstance(state, dict):
            state = tuple(state.values())
        if isinstance(state, tuple):
            return next((item for item in state if isinstance(item, Tensor)), None)
    return None


def _is_module(record: Record) -> bool:
    return isinstance(record.state, dict) and isinstance(record.state.get("_modules"), dict)


def _module_state(root: Record) -> dict[str, Tensor]:
    """What `root.state_dict()` would return: parameters and persistent buffers, depth first."""
    state: dict[str, Tensor] = {}

    def walk(record: Record, prefix: str, depth: int) -> None:
        if depth > _DEPTH:
            raise UnsafePickleError(f"modules are nested more than {_DEPTH} deep at `{prefix}`")
        hidden = record.state.get("_non_persistent_buffers_set") or ()
        for group in ("_parameters", "_buffers"):
            for name, item in (record.state.get(group) or {}).items():
                tensor = _as_tensor(item)
                if tensor is not None and not (group == "_buffers" and name in hidden):
                    state[f"{prefix}{name}"] = tensor
        for name, child in record.state["_modules"].items():
            if isinstance(child, Record) and _is_module(child):
                walk(child, f"{prefix}{name}.", depth + 1)

    walk(root, "", 0)
    return state
