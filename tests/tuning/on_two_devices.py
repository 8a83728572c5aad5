"""Trains a trial on one device and on two logical ones; `test_search.py` starts it.

Usage: python on_two_devices.py FOLDER DATA; it prints both values and the number of replicas.
"""

import json
import sys
from pathlib import Path

import keras
import tensorflow as tf
from conftest import TINY

from keras_seq import tuning, zoo
from keras_seq.tuning.trial import Trials

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


class Replicas(keras.callbacks.Callback):
    """Notes on how many devices the model is."""

    count = 0

    def on_train_begin(self, logs=None):
        self.count = self.model.distribute_strategy.num_replicas_in_sync


replicas = Replicas()
values = []
for strategy in (None, "mirrored"):
    trials = Trials(
        zoo.recipe("pru_python_docs").replace(**TINY),
        {"model.units": tuning.Int(4, 16)},
        tuning.objective("bits"),
        sys.argv[2],
        max_steps=4,
        strategy=strategy,
        devices=["CPU:0", "CPU:1"],
    )
    folder = Path(sys.argv[1], strategy or "one", "run")
    folder.parent.mkdir(parents=True)
    values.append(trials.run({}, folder, epochs=1, callbacks=[replicas])["value"])
print(json.dumps([*values, replicas.count]))
