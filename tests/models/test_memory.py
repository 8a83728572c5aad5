"""Memory of a process that trains for many epochs and builds many models."""

import gc
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seq.gradients import graphs_released
from keras_seq.layers import TrellisNet
from keras_seq.models import LanguageModel

STATM = Path("/proc/self/statm")


def resident() -> float:
    """MiB."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * 4096 / 2**20


def small() -> LanguageModel:
    model = LanguageModel(12, 8, TrellisNet(units=12, output_units=8, levels=3), seed=0)
    model.build()
    return model


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="only Linux says what is resident")
def test_epochs_and_models_leave_nothing_behind():
    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch in (10, 149):
                sizes.append(resident())

    sizes: list[float] = []
    model = small()
    model.compile("adam")
    ids = np.random.default_rng(0).integers(0, 12, (8, 10))
    data = (ids, np.roll(ids, -1, axis=1))
    model.fit(*data, batch_size=4, epochs=150, verbose=0, callbacks=[Seen()], validation_data=data)
    assert sizes[1] - sizes[0] < 10
    small()
    before = resident()
    for _ in range(30):
        small()
    assert resident() - before < 30  # a graph of a forward pass that stayed would be a MiB or more


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="only Linux says what is resident")
def test_trained_models_go_where_their_graphs_are_released():
    def train():
        with graphs_released():
            model = small()
            model.compile("adam")
            model.fit(ids, np.roll(ids, -1, axis=1), batch_size=4, verbose=0)

    ids = np.random.default_rng(0).integers(0, 12, (8, 10))
    for _ in range(3):
        train()
    before = resident()
    for _ in range(10):
        train()
    assert resident() - before < 10 * 2  # each keeps 6 to 17 MB where it stays
