"""Small ones of every public layer, for tests of what all of them promise: see `tests/small`."""

import inspect

import numpy as np
import pytest
from small import CAUSAL as CAUSAL
from small import DROPPING
from small import EXACT as EXACT
from small import PARTS as PARTS

from keras_seq import layers
from keras_seq._frozen_parts import FrozenParts
from keras_seq.layers import CausalLayer, EquilibriumCell

WIDTH = 8  # of the input


def each_of(names) -> list:
    """The names as parameters of a test; variants of a layer are slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if "," in name else name for name in names]


def dropping(name: str):
    """A layer of `CAUSAL` with every kind of dropout that it can have."""
    if name in DROPPING:
        return DROPPING[name]()
    arguments = inspect.signature(type(CAUSAL[name]())).parameters.values()
    rates = [a.name for a in arguments if "dropout" in a.name and type(a.default) is float]
    return CAUSAL[name](**dict.fromkeys(rates, 0.5), **({"seed": 1} if rates else {}))


def call_part(layer, x):
    """The output of one of `PARTS` for an input (b, t, d)."""
    if isinstance(layer, layers.PRUCell):
        hidden = np.ones((len(x), layer.units), "float32")
        return layer(x[:, 0], [hidden, hidden])[0]
    if isinstance(layer, EquilibriumCell):
        return layer(np.full((*x.shape[:-1], 8), 0.5, "float32"), x)
    return layer(x)


def public_layers() -> set[str]:
    """The names of all public layers that take floats and have weights or state."""
    found = {name: getattr(layers, name) for name in layers.__all__}
    abstract = {CausalLayer, EquilibriumCell, layers.SoftmaxHead}
    without = {"AdaptiveEmbedding", "EmbeddingDropout", "VariationalDropout"}
    return {
        name
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, FrozenParts) and value not in abstract
    } - without


def sequence(length: int = 5, seed: int = 0, batch: int = 2) -> np.ndarray:
    """A random input (b, t, d) of all layers here."""
    return np.random.default_rng(seed).normal(size=(batch, length, WIDTH)).astype("float32")
