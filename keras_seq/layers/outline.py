"""What a layer's method `outline` is made of: its parts in order, for diagrams."""

from typing import Any, NamedTuple


class Part(NamedTuple):
    """An operation that has no layer of its own.

    Attributes:
        title: its name.
        weights: its variables.
        facts: settings, as `name value`.
    """

    title: str
    weights: tuple[Any, ...] = ()
    facts: tuple[str, ...] = ()


class Residual(NamedTuple):
    """Parts in a row with a residual connection: their input is added to their output.

    Attributes:
        parts: layers and `Part`s.
        through: what the input passes on its way around them; empty for nothing.
    """

    parts: tuple[Any, ...]
    through: str = ""


def sublayer(norm: Any, layer: Any, first: bool) -> tuple[Any, ...]:
    """A layer with its normalisation and its residual connection.

    Args:
        norm: the normalisation.
        layer: a layer or `Part`.
        first: whether the normalisation comes before it, within the connection, or after the sum.
    """
    return (Residual((norm, layer)),) if first else (Residual((layer,)), norm)
