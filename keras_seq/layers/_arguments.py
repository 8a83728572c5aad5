"""Checks of constructor arguments that several layers share."""


def check_integer(name: str, value, least: int = 1) -> int:
    """Returns an integer argument after a check of its type and size."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}."
        )
    return value


def check_choice(name: str, value, choices: tuple[str, ...]) -> str:
    """Returns a string argument after a check that it is one of the choices."""
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
    return value


def last_axis(name: str, shape) -> int:
    """The size of the last axis of a shape, which must be known."""
    if len(shape) < 2 or shape[-1] is None:
        raise ValueError(
            "The input must have shape (..., d) with d known. "
            f"Received: {name}={tuple(shape)}. Give the layer before a fixed width."
        )
    return int(shape[-1])
