"""What the fields of a recipe must be: one check of types and ranges, for documents and changes."""

import dataclasses
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_seq import optimizers

DEPTH = 20  # of what a setting may hold
LARGEST = 2**63  # whole numbers are below it


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    text: str


_POSITIVE = _Rule(lambda value: value > 0, "positive")
_NOT_NEGATIVE = _Rule(lambda value: value >= 0, "at least 0")
_NAMED = _Rule(bool, "a name, not an empty string")
_FRACTION = _Rule(lambda value: 0 <= value < 1, "in [0, 1)")
_EPOCHS = _Rule(lambda value: all(epoch > 0 for epoch in value), "epochs, counted from 1")
_SEED = _Rule(lambda value: 0 <= value < 2**32, "in [0, 2**32)")

# By the dotted key of a field; a `None` that the type allows is in every range.
_RULES = {
    **dict.fromkeys(("name", "family", "monitor", "data.name", "reported.metric"), _NAMED),
    **dict.fromkeys(("data.batch_size", "data.eval_batch_size", "data.length"), _POSITIVE),
    **dict.fromkeys(("epochs", "early_stopping", "optimizer.global_clipnorm"), _POSITIVE),
    **dict.fromkeys(("optimizer.learning_rate", "optimizer.l2", "data.history"), _NOT_NEGATIVE),
    **dict.fromkeys(("schedule.patience", "schedule.minimum", "schedule.delay"), _NOT_NEGATIVE),
    **dict.fromkeys(("parameters", "stop_nonmonotone"), _NOT_NEGATIVE),
    "schedule.factor": _POSITIVE,
    "schedule.warmup": _FRACTION,
    "schedule.milestones": _EPOCHS,
    "seed": _SEED,
}


def checked(hint: Any, value: Any, key: str) -> Any:
    """A value as a recipe holds it.

    Args:
        hint: the type of its field.
        value: the value. Numbers of NumPy become Python's, whole numbers where numbers are wanted
            become `float`, and what a mapping holds becomes what JSON has.
        key: the dotted key of the field.

    Raises:
        ValueError: if it is not of this type, or out of range.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if typing.get_origin(hint) is Mapping and isinstance(value, Mapping):
        value = _plain(value, key)
    if not _conforms(value, hint):
        raise ValueError(f"`{key}` must be {_described(hint)}. Received: {key}={value!r:.200}.")
    if float in (hint, *typing.get_args(hint)) and isinstance(value, int):
        value = float(value)
    if typing.get_origin(hint) is tuple:
        value = tuple(value)
    rule = _RULES.get(key)
    if rule is not None and value is not None and not rule.holds(value):
        raise ValueError(f"`{key}` must be {rule.text}. Received: {key}={value!r}.")
    if key == "optimizer.name":
        find_optimizer(str(value))
    if key == "precision":
        _check_precision(str(value))
    return value


def find_optimizer(name: str) -> type[keras.optimizers.Optimizer]:
    """The optimizer of a name.

    Raises:
        ValueError: if there is none.
    """
    known = {name: getattr(optimizers, name) for name in optimizers.__all__}
    known = {n: c for n, c in known.items() if issubclass(c, keras.optimizers.Optimizer)}
    if name not in known:
        raise ValueError(
            f"`optimizer.name` must be one of: {', '.join(known)}. "
            f"Received: optimizer.name={name!r}."
        )
    return known[name]


def check_model(settings: Mapping[str, Any], builder: Callable[..., Any]) -> None:
    """Refuses settings of a model that its builder does not take, of another type, or too few.

    Raises:
        ValueError: for the first such setting.
    """
    hints = _parameters(builder)
    parameters = inspect.signature(builder).parameters.values()
    absent = [p.name for p in parameters if p.default is p.empty and p.name not in settings]
    if absent:
        raise ValueError(f"`model` lacks settings: {', '.join(absent)}.")
    for name, value in settings.items():
        if name not in hints:
            known = ", ".join(hints)
            raise ValueError(f"`model.{name}` is no setting of this model. Known: {known}.")
        checked(hints[name], value, f"model.{name}")


def check_optimizer(name: str, options: Mapping[str, Any], whole: bool) -> None:
    """Refuses options that an optimizer does not take, or of another type.

    Args:
        name: the optimizer's.
        options: its options.
        whole: whether they are meant for this optimizer; else, as where its name has been changed
            before its options, those that it does not know may be another's.

    Raises:
        ValueError: for the first such option.
    """
    cls = find_optimizer(name)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base) and base is not object:
            hints |= _parameters(base.__init__)
    for fixed in ("self", "learning_rate", "l2", "global_clipnorm", "nominal_length"):
        hints.pop(fixed, None)
    for option, value in options.items():
        key = f"optimizer.options.{option}"
        if option in hints:
            checked(hints[option], value, key)
        elif whole:
            known = ", ".join(hints)
            raise ValueError(f"`{key}` is no option of {name}. Known: {known}.")


@functools.cache
def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's arguments by name: as they are noted, else as their defaults'."""
    noted = typing.get_type_hints(function)
    found: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        kind, own = type(parameter.default), parameter.annotation
        guessed = kind if kind in (bool, float, str) else Any
        hint = guessed if own is parameter.empty or isinstance(own, str) else own
        found[parameter.name] = noted.get(parameter.name, hint)
    return found


def _check_precision(name: str) -> None:
    try:
        keras.dtype_policies.DTypePolicy(name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`precision` must be a dtype policy of Keras, for example 'float32' or "
            f"'mixed_bfloat16'. Received: precision={name!r}."
        ) from error


def _conforms(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_conforms(value, kind) for kind in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and all(_conforms(v, arguments[0]) for v in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _conforms(v, arguments[1]) for v in value.values()
        )
    if hint is float:
        return _is_number(value)
    if hint is str:
        return isinstance(value, str) and _is_text(value)
    if hint is int:
        return type(value) is int and abs(value) < LARGEST
    if hint in (bool, type(None)):
        return type(value) is hint
    return not isinstance(hint, type) or isinstance(value, hint)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _described(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is Literal:
        return f"one of: {', '.join(map(repr, typing.get_args(hint)))}"
    return f"of type {_name(hint)}"


def _name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_name, arguments))
    if origin in (tuple, list, Sequence):
        return f"list of {_name(arguments[0])}"
    if origin is Mapping:
        return "mapping"
    if hint is type(None):
        return "None"
    return getattr(hint, "__name__", str(hint))


def _plain(value: Any, key: str, depth: int = 0) -> Any:
    """A value of JSON, as it comes back from there."""
    if isinstance(value, np.generic):
        value = value.item()
    if depth > DEPTH:
        raise ValueError(f"`{key}` must not be nested more than {DEPTH} deep.")
    if isinstance(value, Mapping):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            raise ValueError(f"`{key}` must have names as keys. Received the key {wrong[0]!r}.")
        return {name: _plain(item, f"{key}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key, depth + 1) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool) or _conforms(value, int | float):
        return value
    if isinstance(value, str) and _is_text(value):
        return value
    raise ValueError(
        f"`{key}` must be something that JSON has: a finite number, a string, true, false, null, a "
        f"list or an object. Received: {key}={value!r:.200}."
    )


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must differ: of two values, one would be lost."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"`{name}` comes twice in one object.")
        found[name] = value
    return found


def from_fields(cls: Any, values: Any, where: str) -> Any:
    """Builds a dataclass from the values of JSON.

    Args:
        cls: the dataclass.
        values: its fields by name.
        where: the dotted key of it, empty for the whole.

    Raises:
        ValueError: for a field that is unknown, missing, of another type or out of range.
    """
    label = where or "recipe"
    if not isinstance(values, Mapping):
        raise ValueError(f"`{label}` must be an object. Received: {label}={values!r:.200}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"`{label}` has unknown fields: {', '.join(unknown)}. Known: {', '.join(hints)}."
        )
    absent = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in values
        and field.default is field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ValueError(f"`{label}` lacks fields: {', '.join(absent)}.")
    arguments = {}
    for name, value in values.items():
        key, hint = f"{where}.{name}" if where else name, hints[name]
        build = from_fields if dataclasses.is_dataclass(hint) else None
        arguments[name] = build(hint, value, key) if build else checked(hint, value, key)
    return cls(**arguments)
