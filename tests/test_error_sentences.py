"""What errors have in common: a sentence that says what was received ends in a full stop."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    file
    for part in ("keras_seq", "zoo", "pipelines", "tuning")
    for file in (ROOT / part).rglob("*.py")
]


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of errors that are raised, with `{}` for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = node.exc.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield node.lineno, text.value
            elif isinstance(text, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in text.values)
                yield node.lineno, "".join(str(part) for part in parts)


def test_what_was_received_ends_in_a_full_stop():
    found = []
    for file in FILES:
        for line, text in texts_of(ast.parse(file.read_text())):
            if "Received" in text.rsplit(". ", 1)[-1]:
                found.append(text)
                assert text.endswith((".", "{}", "?")), f"{file.relative_to(ROOT)}:{line}: {text!r}"
                assert not text.endswith("={}"), f"{file.relative_to(ROOT)}:{line}: {text!r}"
    assert len(found) > 100
