"""`--set key=value`: changes to a recipe."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from keras_seq.cli.errors import UsageError, usage

FIXED = (
    "name",
    "family",
    "task",
    "summary",
    "paper",
    "notes",
    "reported",
    "parameters",
    "variants",
)
OPEN = ("data.options", "optimizer.options")  # what they hold is known to pipeline and optimizer


def apply_settings(recipe, settings: Iterable[str]):
    """The recipe with `key=value` changes.

    A value is read as JSON, and as a string if it is none. A key is dotted, as `Recipe.replace`
    takes it, or the last part of such a key where only one ends with it: `units` for `model.units`.

    Raises:
        UsageError: for an unknown or ambiguous key, or a value that does not fit.
    """
    known = known_keys(recipe)
    changed = None  # the last setting of the optimizer
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value. Received: {setting!r}.")
        full = _full_key(key.strip(), known)
        value = _value(text)
        _check_type(full, value, known.get(full))
        with usage(ValueError, KeyError, of=f"--set {setting}: "):
            recipe = recipe.replace(**{full: value})
        if full.startswith("optimizer."):
            changed = setting
    if changed is not None:
        _check_optimizer(recipe, changed)
    return recipe


def _check_optimizer(recipe, setting: str) -> None:
    """Makes the optimizer, which knows its own options, before any data are read."""
    from keras_seq.training.building import build_optimizer

    with usage(ValueError, TypeError, of=f"--set {setting}: "):
        build_optimizer(recipe.optimizer, length=recipe.data.length)


def known_keys(recipe) -> dict[str, Any]:
    """Every key that may be set → its value in the recipe; `None` where it has none there."""
    keys: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        if field.name in FIXED:
            continue
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                item = getattr(value, inner.name)
                if isinstance(item, Mapping):
                    prefix = f"{field.name}.{inner.name}"
                    keys |= {f"{prefix}.{name}": entry for name, entry in item.items()}
                else:
                    keys[f"{field.name}.{inner.name}"] = item
        elif field.name == "model":
            keys |= {f"model.{name}": value.get(name) for name in _builder_settings(recipe)}
        else:
            keys[field.name] = value
    return keys


def _builder_settings(recipe) -> list[str]:
    """The settings that the zoo's builder takes."""
    from keras_seq.zoo import registry

    return list(dict.fromkeys([*recipe.model, *registry.settings_of(recipe.name)]))


def _full_key(key: str, known: Mapping[str, Any]) -> str:
    from keras_seq.zoo.settings import FORMER

    name = key.removeprefix("model.")
    if name in FORMER and f"model.{FORMER[name][0]}" in known:
        return f"model.{name}"
    if key in known or key in OPEN or key.startswith(tuple(f"{prefix}." for prefix in OPEN)):
        return key
    matches = [full for full in known if full.endswith(f".{key}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"--set {key} is ambiguous: it could be {' or '.join(matches)}.")
    ends = {full: full for full in known} | {full.split(".")[-1]: full for full in known}
    near = difflib.get_close_matches(key, ends, n=4, cutoff=0.5)
    near = list(dict.fromkeys(ends[name] for name in near))
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"--set {key}: no such setting.{hint} `keras-seq describe` lists all.")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _check_type(key: str, value: Any, former: Any) -> None:
    """Refuses what can not be meant: words for numbers, numbers for lists."""
    if former is None or value is None:
        return
    number = (int, float)
    if isinstance(former, bool):
        fits = isinstance(value, bool)
    elif isinstance(former, number):
        fits = isinstance(value, (*number, list)) and not isinstance(value, bool)
    elif isinstance(former, str):
        fits = isinstance(value, str)
    else:
        return
    if not fits:
        kind = {bool: "true or false", str: "a string"}.get(type(former), "a number")
        raise UsageError(f"--set {key} takes {kind}. Received: {value!r}.")
