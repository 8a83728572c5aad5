"""What a layer says of itself for diagrams: its parts in order, its settings, what it repeats."""

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


class Outlined:
    """Mixin of layers that say what a diagram shows of them.

    Attributes:
        facts: settings that it names besides sizes, activation, normalisation and dropout.
    """

    facts: tuple[str, ...] = ()

    @property
    def loop(self) -> str:
        """What is repeated with the same weights, in words; empty if nothing is."""
        return ""

    def outline(self) -> tuple[Any, ...] | None:
        """Layers, `Part`s and `Residual`s in order; `None` for the layers within, as called."""
        return None
