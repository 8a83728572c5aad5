"""What the builders share: one example a line of text."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds


def line_info(builder: Any, description: str, homepage: str, citation: str) -> Any:
    """`DatasetInfo` of a data set of lines whose order is kept."""
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        homepage=homepage,
        citation=citation,
        disable_shuffling=True,
    )


def read_lines(path: Any) -> Iterator[bytes]:
    """Lines of a file without their line ends."""
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")
