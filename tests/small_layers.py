"""Small settings of every public layer, for tests of what all of them promise."""

import inspect

import keras
import numpy as np
import pytest

from keras_seq import layers
from keras_seq._frozen_parts import FrozenParts
from keras_seq.layers.causal_layer import CausalLayer

WIDTH = 8  # of the input


def equilibrium(cell, **options):
    """A `DeepEquilibrium` of a cell that takes a few steps, which need not be enough."""
    return layers.DeepEquilibrium(cell, solver="fixed_point", max_steps=3, **options)


CAUSAL = {
    "LSTM": lambda **options: layers.LSTM(6, **options),
    "PRU": lambda **options: layers.PRU(8, groups=2, **options),
    "PRU, pyramidal": lambda **options: layers.PRU(8, context_transform="pyramidal", **options),
    "RecurrentStack": lambda **options: layers.RecurrentStack(
        [layers.PRU(8, groups=2, name="below"), layers.LSTM(6, name="above")], **options
    ),
    "KerasRecurrent": lambda **options: layers.KerasRecurrent(keras.layers.GRU(6), **options),
    "KerasRecurrent, cells": lambda **options: layers.KerasRecurrent(
        keras.layers.RNN([keras.layers.LSTMCell(6), keras.layers.GRUCell(5)]), **options
    ),
    "SelfAttention": lambda **options: layers.SelfAttention(2, **options),
    "SelfAttention, span": lambda **options: layers.SelfAttention(2, span=3, **options),
    "TransformerBlock": lambda **options: layers.TransformerBlock(2, **options),
    "Transformer": lambda **options: layers.Transformer(6, levels=2, heads=2, **options),
    "Transformer, span": lambda **options: layers.Transformer(
        8, levels=2, heads=2, span=4, **options
    ),
    "RTransformerBlock": lambda **options: layers.RTransformerBlock(3, heads=2, **options),
    "RTransformer": lambda **options: layers.RTransformer(
        6, levels=2, window=3, heads=2, span=4, **options
    ),
    "LocalRNN": lambda **options: layers.LocalRNN(6, window=3, **options),
    "TCN": lambda **options: layers.TCN(6, levels=2, **options),
    "TemporalBlock": lambda **options: layers.TemporalBlock(6, kernel_size=2, **options),
    "TransformerXL": lambda **options: layers.TransformerXL(
        2, heads=2, inner_units=12, memory_length=4, **options
    ),
    "TrellisNet": lambda **options: layers.TrellisNet(4, 3, levels=3, **options),
    "TrellisNet, history": lambda **options: layers.TrellisNet(
        4, 3, levels=3, state="history", **options
    ),
    "DeepEquilibrium": lambda **options: equilibrium(layers.DEQTrellisCell(4, 3), **options),
    "DeepEquilibrium, attention": lambda **options: equilibrium(
        layers.DEQTransformerCell(8, heads=2, inner_units=12, memory_length=6), **options
    ),
}

# Their inputs, all but the first axes; `z` of a cell goes before.
PARTS = {
    "AdaptiveSoftmax": lambda **options: layers.AdaptiveSoftmax(20, cutoffs=[5], **options),
    "DEQTransformerCell": lambda **options: layers.DEQTransformerCell(
        8, heads=2, inner_units=12, **options
    ),
    "DEQTrellisCell": lambda **options: layers.DEQTrellisCell(2, 2, **options),
    "FeedForward": lambda **options: layers.FeedForward(12, **options),
    "GroupedLinear": lambda **options: layers.GroupedLinear(6, groups=2, **options),
    "MixtureOfSoftmaxes": lambda **options: layers.MixtureOfSoftmaxes(
        20, experts=2, embedding_dim=4, tied=False, **options
    ),
    "PRUCell": lambda **options: layers.PRUCell(8, **options),
    "PyramidalTransform": lambda **options: layers.PyramidalTransform(8, **options),
    "RelativeAttention": lambda **options: layers.RelativeAttention(2, **options),
    "TiedSoftmax": lambda **options: layers.TiedSoftmax(20, tied=False, **options),
    "UnbiasedLayerNormalization": lambda **options: layers.UnbiasedLayerNormalization(**options),
}


def each_of(names) -> list:
    """The names as parameters of a test; variants of a layer are slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if "," in name else name for name in names]


def call_part(layer, x):
    """The output of one of `PARTS` for an input (b, t, d)."""
    if isinstance(layer, layers.PRUCell):
        hidden = np.ones((len(x), layer.units), "float32")
        return layer(x[:, 0], [hidden, hidden])[0]
    if isinstance(layer, layers.DEQTransformerCell | layers.DEQTrellisCell):
        return layer(np.full((*x.shape[:-1], 8), 0.5, "float32"), x)
    return layer(x)


def public_layers() -> set[str]:
    """The names of all public layers that take floats and have weights or state."""
    found = {name: getattr(layers, name) for name in layers.__all__}
    abstract = {CausalLayer, layers.SoftmaxHead}
    without = {"AdaptiveEmbedding", "EmbeddingDropout", "VariationalDropout"}
    return {
        name
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, FrozenParts) and value not in abstract
    } - without


def sequence(length: int = 5, seed: int = 0, batch: int = 2) -> np.ndarray:
    """A random input (b, t, d) of all layers here."""
    return np.random.default_rng(seed).normal(size=(batch, length, WIDTH)).astype("float32")
