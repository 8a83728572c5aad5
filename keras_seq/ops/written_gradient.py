"""Gradients that layers write out by hand."""

from keras_seq import gradients


def once(function, layer: str):
    """`keras_seq.gradients.once` with the words for a layer.

    Args:
        function: computes the gradients from tensors that it holds.
        layer: the name of the layer, for the error.

    Returns:
        A function that takes every tensor that the gradients depend on.
    """
    return gradients.once(
        function,
        f"The gradient that {layer} uses in training has no derivative of its own. For second "
        "derivatives call the layer with `training=False`.",
    )
