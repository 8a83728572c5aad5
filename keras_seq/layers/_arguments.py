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
