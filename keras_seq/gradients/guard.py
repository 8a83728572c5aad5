"""Cells as functions of z, with gradients that hold no values that are not finite."""

from typing import Any

import keras

from keras_seq._backend import is_variable, read
from keras_seq.gradients import _backend


class GuardedCell:
    """A cell as a function of z whose gradients to weights and context are finite.

    Entries that are not finite become zero. Numbers forward, and finite gradients, are not changed.
    The weights are read once, so that loops and branches around the function hold tensors alone.
    Other state of the cell, such as the seed of a dropout, is read afresh by every application and
    stays as it is: all applications see the same. `advance_state` moves it on.

    Args:
        run: `run(z, context)`, which calls the cell.
        cell: the layer whose weights are guarded.
        context: a nest of tensors, or of variables, which are read once, too.
        guard: `False` to let all gradients pass.
    """

    def __init__(self, run: Any, cell: Any, context: Any, guard: bool = True):
        self._run = run
        self._weights = _backend.read_weights(cell.trainable_variables, guard)
        self._others = _backend.outer_values(cell.non_trainable_variables)
        context = keras.tree.map_structure(_read, context)
        self._context = keras.tree.map_structure(_guarded, context) if guard else context

    def __call__(self, z):
        if self._weights is None:
            return self._run(z, self._context)
        with keras.StatelessScope([*self._weights, *self._others]):
            return self._run(z, self._context)

    @property
    def tensors(self) -> list:
        """What gradients flow to besides z: values of the weights, and tensors of the context."""
        values = [value for _, value in self._weights or ()]
        return [*values, *filter(_floating, keras.tree.flatten(self._context))]


def _read(part):
    return read(part) if is_variable(part) else part


def _floating(tensor):
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


def _guarded(tensor):
    return _backend.finite_gradient(tensor) if _floating(tensor) else tensor


def advance_state(run: Any, cell: Any, z: Any, context: Any):
    """Lets the cell's seeds and other state that is not trained move on, by one application.

    Args:
        run: `run(z, context)`, which calls the cell.
        cell: the layer.
        z: any iterate; a graph computes of the application only what the state needs.
        context: a nest of tensors.
    """
    variables = cell.non_trainable_variables
    if not variables or _backend.read_weights(variables, False) is None:
        return
    with keras.StatelessScope(_backend.outer_values(cell.variables)) as scope:
        run(z, context)
    for variable in variables:
        update = scope.get_current_value(variable)
        if update is not None:
            variable.assign(update)
