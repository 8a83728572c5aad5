"""The reference pages: every public name of a part of the package, from its docstrings.

`markdown_of("keras_seq.layers")` is a page's text. It needs no site generator, so that a test can
hold it. The docstrings are Markdown with sections (`Args:`, `Raises:`, ...), as Keras writes them.
"""

import enum
import importlib
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

SECTION = re.compile(r"^(Args|Attributes|Call arguments|Raises|Returns|Yields|Output shape):$")
ENTRY = re.compile(r"^(\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*): +(.*)$")
LISTED = ("Args", "Attributes", "Call arguments", "Raises")


def parts() -> list[str]:
    """The public sub-packages, by name."""
    package = importlib.import_module("keras_seq")
    return [f"keras_seq.{name}" for name in package.__all__ if not name.startswith("_")]


def names_of(part: str) -> list[str]:
    """The public names of a sub-package; those of the zoo's builders come after the others."""
    module = importlib.import_module(part)
    names = list(getattr(module, "__all__", ()))
    if part == "keras_seq.zoo":
        names = [name for name in names if name not in module.names()] + list(module.names())
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def public_names() -> dict[str, str]:
    """What a page may call a public name, and the name in full.

    A name counts with its package. Alone it counts if no other part of the package and no part of
    Keras has it, and if it is no plain word.
    """
    import keras

    known: dict[str, str] = {}
    alone: dict[str, list[str]] = {}
    for part in parts():
        for name in names_of(part):
            full = f"{part}.{name}"
            known[full] = known[full.removeprefix("keras_seq.")] = full
            alone.setdefault(name, []).append(full)
    of_keras = {name for part in vars(keras).values() for name in dir(part)}
    for name, fulls in alone.items():
        plain = name.islower() and "_" not in name
        if len(fulls) == 1 and not plain and name not in of_keras:
            known[name] = fulls[0]
    return known


def markdown_of(part: str) -> str:
    """The reference of a sub-package as MyST Markdown: a table of its names, then each of them."""
    module = importlib.import_module(part)
    names = names_of(part)
    lines = ["| name | what it is |", "| --- | --- |"]
    lines += [
        f"| [`{name}`](#{part}.{name}) | {summary(getattr(module, name))} |" for name in names
    ]
    text = "\n".join(lines)
    bodies = (entry(part, name, getattr(module, name)) for name in names)
    return "\n\n".join([text, f"```{{py:currentmodule}} {part}\n```", *bodies])


def summary(value: Any) -> str:
    """The first sentence of a docstring, in one line."""
    if not callable(value):
        return f"A `{type(value).__name__}`."
    first = " ".join(own_docstring(value).split("\n\n")[0].split()).replace("|", "\\|")
    return re.split(r"(?<=[^.][^.][.:]) (?=[A-Z`])", first)[0].rstrip(":")


def own_docstring(value: Any) -> str:
    """The docstring that a class or function has itself; one that it inherits is not its own."""
    own = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    return inspect.cleandoc(own or "")


def entry(part: str, name: str, value: Any) -> str:
    """One public name with all that it documents."""
    if inspect.isclass(value):
        return class_entry(name, value)
    if callable(value):
        return directive("function", name + signature(value), body(own_docstring(value)), 4)
    return directive("data", name, f"`{value!r}`", 4)


def class_entry(name: str, cls: type) -> str:
    made = "" if issubclass(cls, enum.Enum) or cls.__init__ is object.__init__ else signature(cls)
    parts = [base_of(cls), body(own_docstring(cls))]
    if issubclass(cls, enum.Enum):
        parts.append("\n".join(f"- `{item.name}` = {item.value!r}" for item in cls))
    parts += [member_entry(name, member) for name, member in members_of(cls)]
    return directive("class", name + made, "\n\n".join(filter(None, parts)), 8)


def base_of(cls: type) -> str:
    """A line on the first base class that says something; empty for none."""
    base = cls.__mro__[1]
    if base.__name__ in ("object", "Protocol", "Enum", "NamedTuple", "tuple"):
        return ""
    path = getattr(base, "public_path", None)
    if path is None and base.__module__.startswith("keras.src"):
        return f"A Keras `{base.__name__}`."
    return f"A [`{base.__name__}`](#{path})." if path else ""


def members_of(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class documents itself, in their order."""
    for name, member in vars(cls).items():
        inner = getattr(member, "__func__", member)
        documented = getattr(inner, "__doc__", None) and not inspect.isclass(inner)
        if name.startswith("_") or not documented:
            continue
        if isinstance(member, property) or inspect.isfunction(inner):
            yield name, member


def member_entry(name: str, member: Any) -> str:
    text = body(inspect.cleandoc(member.__doc__ or ""))
    text = f":no-contents-entry:\n\n{text}"
    if isinstance(member, property):
        return directive("property", name, text, 4)
    options = {classmethod: "classmethod", staticmethod: "staticmethod"}
    option = options.get(type(member))
    text = f":{option}:\n{text}" if option else text
    bound = not isinstance(member, staticmethod)
    return directive(
        "method", name + signature(getattr(member, "__func__", member), bound), text, 4
    )


def directive(kind: str, argument: str, text: str, depth: int) -> str:
    fence = "`" * depth
    return f"{fence}{{py:{kind}}} {argument}\n{text}\n{fence}"


def signature(value: Any, bound: bool = False) -> str:
    """`(name: type = default, ...)` on one line."""
    if inspect.isclass(value):  # Keras' `__new__` would hide the arguments
        value, bound = value.__init__, True
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    written, kinds = [], inspect.Parameter
    shown = list(found.parameters.values())[1 if bound else 0 :]
    for index, parameter in enumerate(shown):
        before = [other.kind for other in shown[:index]]
        if parameter.kind is kinds.KEYWORD_ONLY and not {
            kinds.VAR_POSITIONAL,
            kinds.KEYWORD_ONLY,
        } & set(before):
            written.append("*")
        stars = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = stars + parameter.name
        typed = parameter.annotation is not kinds.empty
        if typed:
            text += f": {type_name(parameter.annotation)}"
        if parameter.default is not kinds.empty:
            text += f"{' = ' if typed else '='}{value_name(parameter.default)}"
        written.append(text)
    result = found.return_annotation
    arrow = "" if result in (found.empty, None) else f" -> {type_name(result)}"
    return f"({', '.join(written)}){arrow}"


def type_name(annotation: Any) -> str:
    """A type as it was written, without the modules that it comes from."""
    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    text = annotation.__name__ if plain else str(annotation)
    return re.sub(r"\b(?:[a-zA-Z_]\w*\.)+(?=[a-zA-Z_])", "", text.strip("'\"")).replace("~", "")


def value_name(value: Any) -> str:
    """A default value; `...` for one that has no short name."""
    text = getattr(value, "__name__", None) or repr(value)
    return "..." if "<" in text or len(text) > 60 else text


def body(text: str) -> str:
    """A docstring as Markdown: its sections become lists, its examples blocks."""
    lines, out, index = text.splitlines(), [], 0
    while index < len(lines):
        line = lines[index]
        section = SECTION.match(line)
        if section and index + 1 < len(lines) and lines[index + 1].startswith("    "):
            end = index + 1
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
                end += 1
            inner = inspect.cleandoc("\n" + "\n".join(lines[index + 1 : end])).splitlines()
            listed = section[1] in LISTED
            out += ["", f"**{section[1]}**", "", *(entries(inner) if listed else inner), ""]
            index = end
        elif line.startswith(">>> "):
            end = index
            while end < len(lines) and lines[end].strip():
                end += 1
            out += ["", "```pycon", *lines[index:end], "```", ""]
            index = end
        elif line in ("Example:", "Examples:"):
            out, index = [*out, f"**{line[:-1]}**"], index + 1
        else:
            out, index = [*out, line], index + 1
    return "\n".join(out).strip("\n")


def entries(lines: Iterable[str]) -> list[str]:
    """`name: text` with the lines that go on below it, as a list."""
    out = []
    for line in lines:
        found = ENTRY.match(line)
        if found:
            out.append(f"- `{found[1]}`: {found[2]}")
        else:
            out.append(f"  {line.strip()}" if line.strip() else "")
    return out
