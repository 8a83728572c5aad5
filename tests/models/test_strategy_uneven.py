"""A device that gets no row of the last batch leaves the figures right."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = r"""
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import contextlib, keras, keras_seq

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
ids = rng.integers(0, 9, (9, 5)).astype("int32")

# Nine rows in batches of four: of the last one the second device gets no row.
def run(replicas, core):
    with strategy.scope() if replicas > 1 else contextlib.nullcontext():
        keras.utils.set_random_seed(1)
        model = keras_seq.models.LanguageModel(9, 6, core(), seed=7,
            activation_regularization=0.5, temporal_activation_regularization=0.5)
        model.compile(keras_seq.optimizers.SGD(0.5, global_clipnorm=0.2), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((ids[:, :-1], ids[:, 1:])).batch(4)
    log = model.fit(data, epochs=2, verbose=0).history
    result = model.evaluate(data, verbose=0, return_dict=True)
    return [float(v) for v in [*log["loss"], *log["nll"], *log["tokens"], result["nll"]]]

cores = {
    "tcn": lambda: keras_seq.layers.TCN(6, 2),
    "trellisnet": lambda: keras_seq.layers.TrellisNet(5, 6, 2),
}
print(json.dumps({name: [run(1, core), run(2, core)] for name, core in cores.items()}))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # The kernels that TensorFlow takes by default on some processors alone.
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("core", ["tcn", "trellisnet"])
def test_figures_are_those_of_one_device(runs, core):
    one, two = runs[core]
    assert two == pytest.approx(one, rel=1e-5)
