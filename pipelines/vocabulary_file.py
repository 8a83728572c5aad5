"""The text file of a vocabulary: one token a line."""

import codecs
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seq._reading import BrokenFileError, read_object, reading, regular
from keras_seq.pipelines.errors import DataError, MissingDataError

LEVELS = ("word", "character")
ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_MARK = codecs.BOM_UTF8
_PLAIN = {escaped: plain for plain, escaped in ESCAPES.items()}


def escape(token: bytes) -> bytes:
    """The token as one line of a vocabulary file."""
    for plain, escaped in ESCAPES.items():  # the backslash comes first
        token = token.replace(plain, escaped)
    return token


def unescape(line: bytes) -> bytes:
    """Inverse of `escape`; raises `ValueError` for a line that `escape` never gives."""
    if b"\\" not in line:
        return line
    out, position = bytearray(), 0
    while position < len(line):
        if line[position : position + 1] == b"\\":
            pair = line[position : position + 2]
            if pair not in _PLAIN:
                raise ValueError(f"unknown escape {pair!r}")
            out += _PLAIN[pair]
            position += 2
        else:
            out += line[position : position + 1]
            position += 1
    return bytes(out)


def file_content(tokens: list[bytes]) -> bytes:
    """The text file of these tokens."""
    return b"".join(escape(token) + b"\n" for token in tokens)


def read_tokens(path: Path, foreign: bool = False) -> list[bytes]:
    """Tokens of a vocabulary file.

    Args:
        path: the file.
        foreign: whether another program may have written it, and a byte order mark before the
            first token.

    Raises:
        DataError: for a missing file, an empty line, a token that comes twice or a bad escape.
    """
    lines: dict[bytes, int] = {}
    content = _content(path)
    if foreign and not content.startswith((_MARK + b"\n", _MARK + b"\r")):  # a token of its own
        content = content.removeprefix(_MARK)
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        place = f"line {number}"
        try:
            token = unescape(line.removesuffix(b"\r"))
        except ValueError as error:
            remedy = r"Write a backslash as \\, a line end as \n, a carriage return as \r."
            raise DataError(f"{error}.", path=path, place=place, remedy=remedy) from error
        if not token or token in lines:
            problem = f"the token of line {lines[token]} again." if token else "an empty line."
            raise DataError(
                problem, path=path, place=place, remedy="Keep one token a line, each once."
            )
        lines[token] = number
    return list(lines)


def _content(path: Path) -> bytes:
    remedy = "Give the path of a saved one."
    try:
        with reading(path, "a vocabulary", remedy):
            return regular(path, remedy).read_bytes()
    except FileNotFoundError:
        raise MissingDataError("no vocabulary file here.", path=path, remedy=remedy) from None
    except BrokenFileError as error:
        raise DataError(error.problem, path=path, remedy=error.remedy) from error


def description_file(path: Path) -> Path:
    """Where the description of a vocabulary file is."""
    return path.with_suffix(".json")


def description(tokens: list[bytes], level: str, space: bytes | None) -> bytes:
    """The `.json` file beside a vocabulary file."""
    settings = {
        "level": level,
        "space": None if space is None else space.decode(),
        "size": len(tokens),
        "sha256": hashlib.sha256(file_content(tokens)).hexdigest(),
    }
    return json.dumps({**settings, "settings_sha256": _digest(settings)}).encode() + b"\n"


def _digest(settings: Mapping[str, Any]) -> str:
    """A hash of the settings, without which a changed level would be believed."""
    kept = [settings.get(name) for name in ("level", "space", "size", "sha256")]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def read_description(path: Path) -> tuple[str, str | None] | None:
    """Level and space from the `.json` file beside `path`; `None` where there is none.

    Raises:
        DataError: where it is no such file, or `path` is not the file that it describes.
    """
    beside = description_file(path)
    if not beside.exists():
        return None
    content = _content(path)
    remedy = f"Remove it, or write both files again with `Vocabulary.save({path.name!r})`."
    try:
        settings = read_object(beside, "the description of a vocabulary", remedy)
    except BrokenFileError as error:
        raise DataError(
            f"not the description of a vocabulary: {error.problem}",
            path=beside,
            place=error.place,
            remedy=remedy,
        ) from error
    level, space = str(settings.get("level")), settings.get("space")
    fits = level in LEVELS and (space is None or (isinstance(space, str) and space))
    if not fits or settings.get("settings_sha256", _digest(settings)) != _digest(settings):
        raise DataError(
            f"not the description of a vocabulary, or changed: level={level!r}, space={space!r}.",
            path=beside,
            remedy=remedy,
        )
    if hashlib.sha256(content).hexdigest() != settings.get("sha256"):
        raise DataError(
            "the vocabulary is cut short or was changed after it was saved.",
            path=path,
            place=f"byte {len(content)}",
            remedy=f"Restore it; if the change is meant, remove {beside.name} beside it.",
        )
    listed = space is None or escape(space.encode(errors="replace")) in content.split(b"\n")
    if not listed or (space is not None and level != "character"):
        raise DataError(
            f"the space is {space!r}, which is no character of {path.name}.",
            path=beside,
            remedy=remedy,
        )
    return level, space
