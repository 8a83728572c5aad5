"""Cells as functions of z, with gradients that hold no values that are not finite."""

import keras

from keras_seq.gradients import _backend


def guard_gradients(run, cell, context, guard: bool = True):
    """A cell as a function of z whose gradients to weights and context are finite.

    Entries that are not finite become zero. Numbers forward, and finite gradients, are not changed.
    The weights are read once, so that loops and branches around the function hold tensors alone.
    Other state of the cell, such as the seed of a dropout, is read afresh by every application and
    stays as it is: all applications see the same. `advance_state` moves it on.

    Args:
        run: `run(z, context)`, which calls the cell.
        cell: the layer whose weights are guarded.
        context: a nest of tensors.
        guard: `False` to let all gradients pass.

    Returns:
        A function of z.
    """

    def protect(tensor):
        floating = keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
        return _backend.finite_gradient(tensor) if floating else tensor

    weights = _backend.read_weights(cell.trainable_variables, guard)
    if guard:
        context = keras.tree.map_structure(protect, context)

    def apply(z):
        if weights is None:
            return run(z, context)
        with keras.StatelessScope(weights):
            return run(z, context)

    return apply


def advance_state(run, cell, z, context):
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
    with keras.StatelessScope() as scope:
        run(z, context)
    for variable in variables:
        update = scope.get_current_value(variable)
        if update is not None:
            variable.assign(update)
