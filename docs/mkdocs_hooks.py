"""What mkdocs does to a page before it is rendered."""

import re


def on_page_markdown(markdown: str, **_) -> str:
    """Leaves the language alone after a fence: "python notest" is a word to the tests only."""
    return re.sub(r"^( *```\w+) +notest *$", r"\1", markdown, flags=re.M)
