"""The registry of search spaces: a family's file holds one function under `@family(name)`."""

from collections.abc import Callable
from typing import TypeVar

from keras_seq.tuning.parameters import Space
from keras_seq.tuning.spaces.ranges import rate, scaled
from keras_seq.tuning.spaces.settings import Settings

F = TypeVar("F", bound=Callable[[Settings], Space])

_FAMILIES: dict[str, Callable[[Settings], Space]] = {}


def family(name: str) -> Callable[[F], F]:
    """Registers the decorated function as the search space of a family's models.

    The function maps the settings of a recipe's model to the parameters of a search. It may name
    settings that not every model of the family takes: `space` leaves these out.

    Args:
        name: the family, as recipes have it.

    Raises:
        ValueError: if the family has a space already.
    """

    def decorate(function: F) -> F:
        if name in _FAMILIES:
            raise ValueError(
                f"`name` must be a family without a search space. Received: name={name!r}. "
                "Change the function that it has."
            )
        _FAMILIES[name] = function
        return function

    return decorate


def find(name: str) -> Callable[[Settings], Space]:
    """The space of a family; for one that has none, that of what most models have."""
    return _FAMILIES.get(name, _any_family)


def names() -> tuple[str, ...]:
    """The families that have a search space of their own."""
    return tuple(sorted(_FAMILIES))


def _any_family(settings: Settings) -> Space:
    """What most models have."""
    found: Space = {}
    for name in ("units", "levels", "layers"):
        if isinstance(settings[name], int):
            found[f"model.{name}"] = scaled(settings[name])
    for name in ("embedding_dropout", "input_dropout", "dropout", "output_dropout"):
        if isinstance(settings[name], float):
            found[f"model.{name}"] = rate(settings[name])
    return found
