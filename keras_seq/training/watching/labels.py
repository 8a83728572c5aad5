"""Tokens as people can read them."""

_SEEN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def label(token: bytes | str) -> str:
    """A token in one field of one line, with what can not be seen made visible.

    Args:
        token: a token of a vocabulary; bytes that are no UTF-8 are written as numbers.

    Example:

    >>> label(b"a b\\xff")
    'a␣b\\\\xff'
    """
    text = token if isinstance(token, str) else token.decode("utf-8", "backslashreplace")
    text = "".join(_SEEN.get(letter, letter) for letter in text)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or "(empty)"
