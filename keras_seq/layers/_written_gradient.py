"""Gradients that layers write out by hand."""

from keras import ops


def once(function, layer: str):
    """Makes a gradient of a function without arguments; differentiating it again is refused.

    Args:
        function: computes the gradients from tensors that it holds.
        layer: the name of the layer, for the error.

    Returns:
        A function that takes every tensor that the gradients depend on.
    """

    @ops.custom_gradient
    def run(*tensors):
        results = function()

        def refuse(*arguments, upstream=None):
            raise NotImplementedError(
                f"The gradient that {layer} uses in training has no derivative of its own. For "
                "second derivatives call the layer with `training=False`."
            )

        return results, refuse

    return run
