"""The size of a model."""

import math
from collections.abc import Iterable
from typing import Any


def count_numbers(weights: Iterable[Any]) -> int:
    """How many numbers some weights hold together."""
    return sum(math.prod(weight.shape) for weight in weights)


def count_parameters(model) -> int:
    """Trainable parameters of a built model."""
    return count_numbers(model.trainable_variables)
