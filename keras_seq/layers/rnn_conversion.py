"""Recurrent layers of Keras as trellis networks."""

import numbers

import keras
import numpy as np

from keras_seq.ops.trellis.gates import GRUGates, LSTMGates, RNNGates

# For each type: the blocks of Keras' kernels and biases in the order of our gates' blocks.
_LSTM_BLOCKS = (0, 3, 2, 1)  # Keras: input, forget, candidate, output


def trellis_from_rnn(cls, layers, horizon: int, **kwargs):
    """The trellis network of a stack of recurrent layers; see `TrellisNet.from_rnn`.

    Args:
        cls: the class to make.
        layers: a built recurrent layer, or a list of layers of one type.
        horizon: inputs that an output depends on.
        **kwargs: further arguments of the constructor.

    Raises:
        ValueError: on layers that are no such stack, and on options without a counterpart.
    """
    layers = list(layers) if isinstance(layers, list | tuple) else [layers]
    if not isinstance(horizon, numbers.Integral) or horizon < 1:
        raise ValueError(
            f"`horizon` must be an integer of at least 1. Received: horizon={horizon}."
        )
    _check_layers(layers)
    gates = _gates_of(layers)
    widths = tuple(int(layer.units) for layer in layers)
    kwargs.setdefault("dtype", layers[0].dtype_policy)
    trellis = cls(
        units=sum(widths[:-1]),
        output_units=widths[-1],
        levels=horizon + len(layers) - 1,
        activation=gates,
        groups=widths,
        **kwargs,
    )
    features = int(layers[0].cell.kernel.shape[0])
    trellis.build((None, None, features))
    for index, layer in enumerate(layers):
        recurrent, below, bias = _weights_of(layer)
        trellis.kernels_recurrent[index].assign(recurrent)
        trellis.kernels_below[index].assign(below)
        trellis.biases[index].assign(bias)
    return trellis


def _check_layers(layers):
    kinds = (keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM)
    if not layers or type(layers[0]) not in kinds:
        raise ValueError(
            "`layers` must be a SimpleRNN, GRU or LSTM layer of Keras, or a list of them. "
            f"Received: {[type(layer).__name__ for layer in layers]}."
        )
    names = [type(layer).__name__ for layer in layers]
    if len(set(names)) > 1:
        raise ValueError(
            "The layers of a stack must be of one type, since all levels of a trellis network "
            f"share their non-linearity. Received: {names}."
        )
    below = None
    for layer in layers:
        if not layer.built:
            raise ValueError(f"Layer {layer.name!r} has no weights yet. Call it once first.")
        if layer.go_backwards:
            raise ValueError(
                f"Layer {layer.name!r} runs backwards, and a trellis network is causal. "
                "Reverse the sequence before and after it instead."
            )
        if layer.dropout or layer.recurrent_dropout:
            raise ValueError(
                f"Layer {layer.name!r} has dropout, which has no counterpart here. Make the layer "
                "without dropout; give `hidden_dropout` to `from_rnn` to train with dropout."
            )
        if isinstance(layer, keras.layers.GRU) and not layer.reset_after:
            raise ValueError(
                f"Layer {layer.name!r} is a GRU with `reset_after=False`: its candidate depends on "
                "a product with the reset hidden state, which no convolution of the level below "
                "gives. Only `reset_after=True` can be a trellis network."
            )
        features = int(layer.cell.kernel.shape[0])
        if below is not None and features != below:
            raise ValueError(
                f"Layer {layer.name!r} takes {features} features, but the layer below it gives "
                f"{below}. List the layers from the first to the last."
            )
        below = int(layer.units)


def _gates_of(layers):
    def gates(layer):
        if isinstance(layer, keras.layers.LSTM):
            return LSTMGates(layer.activation, layer.recurrent_activation)
        if isinstance(layer, keras.layers.GRU):
            return GRUGates(layer.activation, layer.recurrent_activation)
        return RNNGates(layer.activation)

    first = gates(layers[0])
    for layer in layers[1:]:
        if gates(layer).get_config() != first.get_config():
            raise ValueError(
                "The layers of a stack must have the same activations, since all levels of a "
                f"trellis network share them. Received: {first.get_config()} and "
                f"{gates(layer).get_config()} in layer {layer.name!r}."
            )
    return first


def _weights_of(layer):
    """Recurrent kernel, input kernel and bias of a layer in the order of our blocks."""
    cell, units = layer.cell, int(layer.units)
    kernel = keras.ops.convert_to_numpy(cell.kernel)
    recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel)
    if isinstance(layer, keras.layers.GRU):
        bias = np.zeros((2, 3 * units), kernel.dtype)
        if cell.use_bias:
            bias = keras.ops.convert_to_numpy(cell.bias)
        merged = bias[0] + bias[1]
        gates, candidates = merged[: 2 * units], (bias[0, 2 * units :], bias[1, 2 * units :])
        return recurrent, kernel, np.concatenate([gates, *candidates])
    bias = keras.ops.convert_to_numpy(cell.bias) if cell.use_bias else np.zeros(kernel.shape[1:])
    if isinstance(layer, keras.layers.LSTM):

        def reorder(array):
            blocks = np.split(array, 4, axis=-1)
            return np.concatenate([blocks[i] for i in _LSTM_BLOCKS], axis=-1)

        return reorder(recurrent), reorder(kernel), reorder(bias)
    return recurrent, kernel, bias
