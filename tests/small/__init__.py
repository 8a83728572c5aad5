"""Small settings of every family: what the tests ask for that all families pass.

Each file of this folder holds one `SMALL`, and all of them are found: a new family is a new file.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_seq import layers

Makers = Mapping[str, Callable[..., Any]]
Changes = Mapping[str, dict[str, Any]]

# With it a language model trains on a tiny text in a moment.
TINY_TEXT = {
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "data.options": {"cache_dir": False},
    "epochs": 2,
    "jit_compile": False,
}


@dataclass(frozen=True)
class Small:
    """What is small of a family.

    Attributes:
        causal: name of a causal layer → what makes one for inputs of width 8. A comma in the name
            goes before what is particular to a variant.
        parts: the same of the family's other layers with weights.
        exact: what else makes the outputs of a causal layer those of its equations.
        dropping: what makes a causal layer with every kind of dropout, where giving a rate to each
            of its arguments for one does not.
        exported: name of a zoo model → settings with which it is exported and served.
        trained: name of a language model → changes of its recipe with which it trains on one
            device and on two, and gives the same; without dropout.
        solved: settings with which an equilibrium of the family is solved so far that what is left
            is rounding.
    """

    causal: Makers = field(default_factory=dict)
    parts: Makers = field(default_factory=dict)
    exact: Changes = field(default_factory=dict)
    dropping: Makers = field(default_factory=dict)
    exported: Changes = field(default_factory=dict)
    trained: Changes = field(default_factory=dict)
    solved: Mapping[str, Any] = field(default_factory=dict)


def equilibrium(cell, **options):
    """A `DeepEquilibrium` of a cell that takes a few steps, which need not be enough."""
    return layers.DeepEquilibrium(cell, **{"solver": "fixed_point", "max_steps": 3, **options})


def on_a_tiny_text(name: str) -> dict[str, Any]:
    """Changes of a recipe with which a small model trains on a tiny text in a moment."""
    return {**TINY_TEXT, **TRAINED[name]}


def asked_names(request) -> list[str]:
    """What the tests that take a fixture are about: their parameters `name`, of those that run."""
    items = [item for item in request.session.items if request.fixturename in item.fixturenames]
    return [item.callspec.params["name"] for item in items]


def _every(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for small in FOUND.values():
        twice = set(found) & set(getattr(small, kind))
        assert not twice, f"two files of tests/small have {kind}: {twice}"
        found |= getattr(small, kind)
    return found


FOUND: dict[str, Small] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").SMALL
    for module in pkgutil.iter_modules(__path__)
}
CAUSAL: Makers = _every("causal")
PARTS: Makers = _every("parts")
EXACT: Changes = _every("exact")
DROPPING: Makers = _every("dropping")
EXPORTED: Changes = _every("exported")
TRAINED: Changes = _every("trained")
