"""Gradients that are written out and have no derivative of their own."""

from collections.abc import Callable

from keras import ops

ONCE = (
    "A second derivative through an equilibrium is not supported: its gradient has no derivative "
    'of its own. Use `gradient="unrolled"`.'
)


def once(function: Callable, message: str):
    """Makes a gradient of a function without arguments; differentiating it again is refused.

    Args:
        function: computes the gradients from tensors that it holds.
        message: what the error says.

    Returns:
        A function that takes every tensor that the gradients depend on. Eagerly an outer tape sees
        through those only: one that is left out counts as a constant, and a second derivative is
        wrong where it should be refused.
    """

    @ops.custom_gradient
    def run(*tensors):
        del tensors
        results = function()

        def refuse(*arguments, upstream=None):
            raise NotImplementedError(message)

        return results, refuse

    return run
