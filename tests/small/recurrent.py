"""Small recurrent layers, Keras' own included."""

import keras

from keras_seq import layers
from small import Small

SMALL = Small(
    causal={
        "LSTM": lambda **options: layers.LSTM(6, **options),
        "KerasRecurrent": lambda **options: layers.KerasRecurrent(keras.layers.GRU(6), **options),
        "KerasRecurrent, cells": lambda **options: layers.KerasRecurrent(
            keras.layers.RNN([keras.layers.LSTMCell(6), keras.layers.GRUCell(5)]), **options
        ),
    },
    exported={
        "gru_ptb_word": {"vocabulary_size": 11, "units": 12, "embedding_dim": 12},
        "lstm_seq_mnist": {"units": 8},
        "rnn_nottingham": {"notes": 5, "units": 8},
    },
    trained={
        "lstm_ptb_char": {
            "model.embedding_dim": 8,
            "model.units": 8,
            "model.dropout": 0.0,
            "model.output_dropout": 0.0,
        },
    },
)
