"""Ranges around the value that a recipe has."""

from typing import Any

from keras_seq.tuning.parameters import Choice, Float

RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0)
DOUBLING = (0.5, 1.0, 2.0)
MULTIPLE = 8  # widths are multiples of it, where the recipe's own is one


def scaled(value: int, ratios: tuple[float, ...] = RATIOS, multiple: int = 1) -> Choice:
    """A choice of whole numbers around a value, all of them multiples of a number."""
    sizes = {max(multiple, round(value * ratio / multiple) * multiple) for ratio in ratios}
    return Choice(tuple(sorted({*sizes, value})), default=value)


def width(value: int, multiple: int = MULTIPLE, **options: Any) -> Choice:
    """A choice of widths, multiples of a number if the recipe's own is one."""
    if value % multiple:
        multiple = 1
    choice = scaled(value, multiple=multiple)
    return Choice(choice.values, default=value, **options)


def one_of(value: Any, others: tuple, **options: Any) -> Choice:
    """A choice among some values and the recipe's own."""
    values = others if value in others else (value, *others)
    if isinstance(value, int | float) and not isinstance(value, bool):
        values = tuple(sorted(values))
    return Choice(values, default=value, **options)


def on_or_off(value: Any, **options: Any) -> Choice:
    """A choice of `False` and `True`."""
    return Choice((False, True), default=bool(value), **options)


def rate(value: float | None, highest: float = 0.6, **options: Any) -> Float:
    """A rate of dropout from 0; `None` is 0."""
    value = float(value or 0.0)
    return Float(0.0, max(highest, value), default=value, **options)
