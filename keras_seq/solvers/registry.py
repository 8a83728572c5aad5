"""Solvers by name or configuration."""

import inspect

import keras

from keras_seq.solvers.anderson import Anderson
from keras_seq.solvers.broyden import Broyden
from keras_seq.solvers.fixed_point import FixedPoint
from keras_seq.solvers.solver import Solver

NAMES: dict[str, type[Solver]] = {
    "anderson": Anderson,
    "broyden": Broyden,
    "fixed_point": FixedPoint,
}


def get(identifier: Solver | str | dict) -> Solver:
    """A solver from its name, its configuration, or itself.

    Args:
        identifier: `"fixed_point"`, `"anderson"`, `"broyden"`; a dict with the name under `name`
            and options beside it, such as `{"name": "anderson", "memory": 4}`; what Keras'
            `serialize_keras_object` made of a solver; or a `Solver`.

    Raises:
        ValueError: on an unknown name or option, or another kind of object.

    Example:

    >>> from keras_seq import solvers
    >>> solvers.get({"name": "anderson", "memory": 4}).memory
    4
    """
    if isinstance(identifier, Solver):
        return identifier
    if isinstance(identifier, dict) and "class_name" in identifier:
        solver = keras.saving.deserialize_keras_object(identifier)
        if isinstance(solver, Solver):
            return solver
    name, options = identifier, {}
    if isinstance(identifier, dict):
        options = dict(identifier)
        name = options.pop("name", None)
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(
            f"A solver must be one of {sorted(NAMES)}, a configuration such as "
            f'{{"name": "broyden", "memory": 10}}, or a `Solver`. Received: {identifier!r}.'
        )
    cls = NAMES[name]
    known = list(inspect.signature(cls).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"`{name}` has the options {known}. Received: {unknown}.")
    return cls(**options)
