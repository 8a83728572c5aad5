"""The text file of a vocabulary: one token a line."""

import hashlib
import json
from pathlib import Path

from keras_seq.pipelines.errors import DataError, MissingDataError

ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
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


def read_tokens(path: Path) -> list[bytes]:
    """Tokens of a vocabulary file.

    Raises:
        DataError: for a missing file, an empty line, a token that comes twice or a bad escape.
    """
    if not path.is_file():
        raise MissingDataError(
            "no vocabulary file here.", path=path, remedy="Give the path of a saved one."
        )
    lines: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
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


def description(tokens: list[bytes], level: str, space: bytes | None) -> bytes:
    """The `.json` file beside a vocabulary file."""
    settings = {
        "level": level,
        "space": None if space is None else space.decode(),
        "size": len(tokens),
        "sha256": hashlib.sha256(file_content(tokens)).hexdigest(),
    }
    return json.dumps(settings).encode() + b"\n"


def read_description(path: Path) -> tuple[str, str | None] | None:
    """Level and space from the `.json` file beside `path`; `None` where there is none.

    Raises:
        DataError: where it is no such file, or `path` is not the file that it describes.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file() or not path.is_file():
        return None
    try:
        settings = json.loads(beside.read_bytes())
        level, space, digest = settings["level"], settings["space"], settings["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not the description of a vocabulary ({type(error).__name__}: {error}).",
            path=beside,
            remedy=f"Remove it, or write both files again with `Vocabulary.save({path.name!r})`.",
        ) from error
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(
            "the vocabulary is cut short or was changed after it was saved.",
            path=path,
            place=f"byte {len(content)}",
            remedy=f"Restore it; if the change is meant, remove {beside.name} beside it.",
        )
    return level, space
