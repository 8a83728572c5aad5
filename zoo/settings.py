"""The settings of builders: keyword arguments, each with a type and a line in the docstring.

Builders of one family share most settings. Those of the core stand once, in a function `core_of`,
and builders that hand them on are decorated with `takes_settings_of(core_of)`.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def settings_in(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings that a builder takes, by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def takes_settings_of(builder: Callable[..., Any], *names: str) -> Callable[[Function], Function]:
    """Names settings of `builder` in signature and docstring of a function that hands them on.

    The function takes them as `**settings`. What it names itself stays its own.

    Args:
        builder: whose keyword-only arguments are settings.
        *names: which of them; all if none is named.
    """

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        parameters = {n: p for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
        texts = documented(function)
        offered, said = inspect.signature(builder).parameters, documented(builder)
        for name in names or offered:
            if offered[name].kind is inspect.Parameter.KEYWORD_ONLY and name not in parameters:
                parameters[name] = offered[name]
                texts[name] = said.get(name, "")
        vars(function)["__signature__"] = own.replace(parameters=list(parameters.values()))
        before = (inspect.getdoc(function) or "").partition("Args:\n")[0]
        function.__doc__ = "\n".join([f"{before}Args:", *argument_lines(texts)])
        return function

    return decorate


def split_settings(
    settings: Mapping[str, Any], builder: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that `builder` takes, and the others."""
    known = settings_in(builder)
    taken = {name: value for name, value in settings.items() if name in known}
    return taken, {name: value for name, value in settings.items() if name not in known}


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function says of each argument that it names."""
    texts: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(function) or "").partition("Args:\n")[2].splitlines():
        if not line.startswith(" " * 4):
            break
        if line.startswith(" " * 5):
            texts[name] += f" {line.strip()}"
        else:
            name, _, text = line.strip().partition(": ")
            texts[name] = text
    return {name: text for name, text in texts.items() if not name.startswith("*")}


def argument_lines(texts: Mapping[str, str]) -> list[str]:
    """The lines of a docstring's section on arguments."""
    return [
        textwrap.fill(f"{name}: {text}", 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, text in texts.items()
    ]


FORMER = {"normalize_first": ("norm_order", {True: "pre", False: "post"})}


def with_todays_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of today, for recipes and calls that have earlier ones.

    Raises:
        ValueError: for a value that an earlier name never had.
    """
    renamed = dict(settings)
    for former in FORMER.keys() & renamed.keys():
        (name, values), value = FORMER[former], renamed.pop(former)
        if not isinstance(value, bool):
            raise ValueError(
                f"`{former}` must be True or False. Received: "
                f"{former}={value!r}. It is called `{name}` now."
            )
        renamed[name] = values[value]
    return renamed
