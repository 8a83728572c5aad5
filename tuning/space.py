"""Search spaces as data: checks, JSON, and what a trial's values mean for a recipe."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seq import _files
from keras_seq._reading import read_object, reading
from keras_seq.tuning.parameters import Choice, Float, Int, Parameter
from keras_seq.zoo import Recipe

KINDS = {"choice": Choice, "int": Int, "float": Float}
SWITCH = "switch."
TUNER = "tuner/"  # KerasTuner's own values


def setting_of(name: str) -> str | None:
    """The setting that a parameter's name stands for; `None` for a switch."""
    return None if name.startswith(SWITCH) else name.partition("@")[0]


def in_order(space: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The space with every parameter after those that it depends on.

    Raises:
        ValueError: for an empty space, or conditions that can not be met.
    """
    if not space:
        raise ValueError("A search space must have at least one parameter. Received: none.")
    for name, parameter in space.items():
        if not isinstance(parameter, Choice | Int | Float):
            raise ValueError(
                f"`{name}` of the search space must be a Choice, an Int or a Float. "
                f"Received: {parameter!r}."
            )
        for parent, values in parameter.when.items():
            _check_condition(space, name, parent, values)
    ordered: dict[str, Parameter] = {}
    left = dict(space)
    while left:
        ready = [name for name, parameter in left.items() if set(parameter.when) <= set(ordered)]
        if not ready:
            raise ValueError(
                f"Conditions of the search space must not go in circles: {', '.join(left)}."
            )
        for name in ready:
            ordered[name] = left.pop(name)
    return ordered


def _check_condition(space, name: str, parent: str, values: tuple) -> None:
    other = space.get(parent)
    if not isinstance(other, Choice) or isinstance(other.values[0], float):
        raise ValueError(
            f"`when` of `{name}` must name choices of strings, booleans or whole numbers of the "
            f"same space. Received: {parent!r}."
        )
    if not values or not set(values) <= set(other.values):
        raise ValueError(
            f"`when` of `{name}` must name values of `{parent}`: {other.values}. "
            f"Received: {values}."
        )


def apply(recipe: Recipe, space: Mapping[str, Parameter], values: Mapping[str, Any]) -> Recipe:
    """The recipe with a trial's values.

    Options of the recipe's optimizer are left out where another optimizer takes its place.

    Raises:
        ValueError: for a value that does not fit.
    """
    changes = changes_of(space, values)
    former = recipe.optimizer.name
    if changes.get("optimizer.name", former) != former:
        recipe = recipe.replace(**{"optimizer.options": {}})
    return recipe.replace(**changes)


def changes_of(space: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values as changes of a recipe."""
    changes: dict[str, Any] = {}
    for name, parameter in space.items():
        if name not in values:
            continue
        value = parameter.tidy(values[name])
        if isinstance(parameter, Choice):
            changes |= parameter.sets.get(str(value), {})
        setting = setting_of(name)
        for key in [*([] if setting is None else [setting]), *parameter.also]:
            changes[key] = value
    return changes


def to_json(space: Mapping[str, Parameter]) -> dict[str, Any]:
    """The space as plain JSON values."""
    document = {}
    for name, parameter in space.items():
        (kind,) = (key for key, cls in KINDS.items() if isinstance(parameter, cls))
        entries = dataclasses.asdict(parameter).items()
        filled = {key: value for key, value in entries if value not in (None, {}, ())}
        document[name] = {"kind": kind, **filled}
    return document


def from_json(document: Any) -> dict[str, Parameter]:
    """The space that `to_json` turned into JSON values.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(document, Mapping):
        raise ValueError("A search space must be a JSON object: setting → parameter.")
    space = {}
    for name, entry in document.items():
        if not isinstance(entry, Mapping) or entry.get("kind") not in KINDS:
            raise ValueError(
                f"`{name}` of the search space must be an object whose `kind` is one of: "
                f"{', '.join(KINDS)}. Received: {entry!r}."
            )
        arguments = {key: value for key, value in entry.items() if key != "kind"}
        try:
            space[name] = KINDS[entry["kind"]](**arguments)
        except TypeError as error:
            raise ValueError(f"`{name}` of the search space: {error}.") from None
    return in_order(space)


def save_space(space: Mapping[str, Parameter], path: str | Path) -> None:
    """Writes a search space as JSON, for people to change and `load_space` to read.

    Args:
        space: setting → parameter.
        path: the file.
    """
    _files.write_json(path, to_json(in_order(space)))


def load_space(path: str | Path) -> dict[str, Parameter]:
    """Reads a search space from a JSON file.

    Args:
        path: a file as `save_space` writes it.

    Raises:
        ValueError: if the file holds none.
    """
    remedy = "Write it as `save_space` does."
    space = read_object(path, "a search space", remedy)
    with reading(path, "a search space", remedy):
        return from_json(space)
