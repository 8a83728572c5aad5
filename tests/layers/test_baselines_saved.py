"""The baselines' layers are found by a process that loads them from a file."""

import keras
import numpy as np
from layer_checks import check_fresh_process, wrap

from keras_seq.layers import TCN, KerasRecurrent, RecurrentStack, Transformer


def test_saved_models_load_in_a_fresh_process(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    recurrent = [KerasRecurrent(keras.layers.GRU(5)), KerasRecurrent(keras.layers.SimpleRNN(4))]
    layers = [
        TCN((6, 5), kernel_size=3, dropout=0.1),
        Transformer(units=8, levels=2, heads=2, span=7, dropout=0.1),
        RecurrentStack(recurrent, dropout=0.1),
    ]
    check_fresh_process([(wrap(layer, (None, 4)), x) for layer in layers], tmp_path)
