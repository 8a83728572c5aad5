"""Every layer takes a batch without rows, as a device gets of an uneven last batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import layers
from keras_seq.layers.equilibrium_gradients import Option

T, D, V = 6, 8, 20
IDS, VECTORS = (T,), (T, D)


def _cell_step(cell):
    return keras.layers.RNN(cell, return_sequences=True)


def _head(head, tied=False):
    """A head's losses and log-probabilities, as a layer of hidden values."""

    class Head(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.head = head

        def build(self, shape):
            self.head.build(shape)

        def call(self, x, training=None):
            targets = ops.zeros(ops.shape(x)[:2], "int32")
            return self.head(x, training=training), self.head.nll(x, targets, training=training)

    return Head()


def _dropped(dropout):
    class Dropped(keras.layers.Layer):
        def call(self, x, training=None):
            ids = ops.zeros(ops.shape(x)[:2], "int32")
            return dropout(x, ids, training=training)

    return Dropped()


def _equilibrium(cell, **options):
    return layers.DeepEquilibrium(cell, jacobian_weight=0.1, jacobian_frequency=1.0, **options)


def _gates(gates):
    return layers.TrellisNet(8, 8, 2, activation=gates, hidden_dropout=0.1, weight_dropout=0.1)


# A layer with every public class in it, and the shape of its input without the batch.
CASES = {
    "AdaptiveEmbedding": (lambda: layers.AdaptiveEmbedding(V, D, cutoffs=[5, 9], div_value=2), IDS),
    "AdaptiveSoftmax": (
        lambda: _head(
            layers.AdaptiveSoftmax(
                V, cutoffs=[5, 9], div_value=2, embedding_dim=D, form="projected", tied=False
            )
        ),
        VECTORS,
    ),
    "DEQTransformerCell": (
        lambda: _equilibrium(layers.DEQTransformerCell(D, 2, 16, 3, hidden_dropout=0.1)),
        VECTORS,
    ),
    "DEQTrellisCell": (lambda: _equilibrium(layers.DEQTrellisCell(4, 3)), VECTORS),
    "DeepEquilibrium": (
        lambda: _equilibrium(layers.DEQTrellisCell(4, 3), solver="anderson"),
        VECTORS,
    ),
    "EmbeddingDropout": (lambda: _dropped(layers.EmbeddingDropout(0.5, V)), VECTORS),
    "FeedForward": (lambda: layers.FeedForward(16, dropout=0.1), VECTORS),
    "GRUGates": (lambda: _gates(layers.GRUGates()), VECTORS),
    "GroupedLinear": (lambda: layers.GroupedLinear(6, groups=2), VECTORS),
    "KerasRecurrent": (lambda: layers.KerasRecurrent(keras.layers.GRU(4)), VECTORS),
    "LSTM": (lambda: layers.LSTM(5, weight_dropout=0.1), VECTORS),
    "LSTMGates": (lambda: _gates(layers.LSTMGates()), VECTORS),
    "LocalRNN": (lambda: layers.LocalRNN(5, window=3), VECTORS),
    "MixtureOfSoftmaxes": (
        lambda: _head(layers.MixtureOfSoftmaxes(V, experts=2, embedding_dim=D, tied=False)),
        VECTORS,
    ),
    "PRU": (lambda: layers.PRU(8, groups=2, weight_dropout=0.1), VECTORS),
    "PRUCell": (lambda: _cell_step(layers.PRUCell(8, groups=2)), VECTORS),
    "PyramidalTransform": (lambda: layers.PyramidalTransform(8, levels=2), VECTORS),
    "RNNGates": (lambda: _gates(layers.RNNGates()), VECTORS),
    "RTransformer": (
        lambda: layers.RTransformer(D, 2, window=3, heads=2, dropout=0.1, span=4),
        VECTORS,
    ),
    "RTransformerBlock": (
        lambda: layers.RTransformerBlock(window=3, heads=2, dropout=0.1),
        VECTORS,
    ),
    "RecurrentStack": (
        lambda: layers.RecurrentStack([layers.PRU(8), layers.LSTM(6)], dropout=0.3),
        VECTORS,
    ),
    "RelativeAttention": (lambda: layers.RelativeAttention(2, dropout=0.1), VECTORS),
    "SelfAttention": (lambda: layers.SelfAttention(2, span=4, dropout=0.1), VECTORS),
    "TCN": (lambda: layers.TCN(6, 3, dropout=0.1), VECTORS),
    "TemporalBlock": (lambda: layers.TemporalBlock(6, 3, 2, dropout=0.1), VECTORS),
    "TiedSoftmax": (lambda: _head(layers.TiedSoftmax(V, tied=False)), VECTORS),
    "Transformer": (lambda: layers.Transformer(D, 2, heads=2, dropout=0.1), VECTORS),
    "TransformerBlock": (lambda: layers.TransformerBlock(heads=2, dropout=0.1), VECTORS),
    "TransformerXL": (lambda: layers.TransformerXL(2, 2, 16, memory_length=3), VECTORS),
    "TrellisNet": (
        lambda: layers.TrellisNet(
            6, D, 3, auxiliary_frequency=1, weight_dropout=0.2, hidden_dropout=0.2
        ),
        VECTORS,
    ),
    "UnbiasedLayerNormalization": (lambda: layers.UnbiasedLayerNormalization(), VECTORS),
    "VariationalDropout": (lambda: layers.VariationalDropout(0.3), VECTORS),
}
ABSTRACT = {"CausalLayer", "EquilibriumCell", "SoftmaxHead"}


def public(part) -> set[str]:
    return {name for name in part.__all__ if isinstance(getattr(part, name), type)}


def test_every_public_layer_is_tried():
    options = {name for name in public(layers) if issubclass(getattr(layers, name), Option)}
    assert set(CASES) == public(layers) - ABSTRACT - options


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", sorted(CASES))
def test_no_rows_in_no_rows_out(name, training, graph):
    make, shape = CASES[name]
    layer, dtype = make(), "int32" if shape == IDS else "float32"
    rows = [tuple(y.shape[1:]) for y in keras.tree.flatten(layer(np.ones((2, *shape), dtype)))]
    weights = layer.trainable_weights

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = keras.tree.flatten(layer(x, training=training))
            loss = sum(ops.sum(ops.square(y)) for y in outputs) + sum(layer.losses)
        return outputs, loss, tape.gradient(loss, [w.value for w in weights])

    signature = [tf.TensorSpec((None, *shape), dtype)]
    step = tf.function(run, input_signature=signature) if graph else run
    outputs, loss, gradients = step(tf.zeros((0, *shape), dtype))
    assert [tuple(y.shape) for y in outputs] == [(0, *row) for row in rows]
    assert float(loss) == 0.0
    for gradient in gradients:
        assert gradient is None or not np.any(tf.convert_to_tensor(gradient))
