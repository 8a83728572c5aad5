"""Two replicas train as one device does: carried state, weights, clipping, rates by length."""

import json
import subprocess
import sys

import pytest

SCRIPT = r"""
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import contextlib, keras, keras_seq

# One strategy for all: TensorFlow numbers the collectives of each strategy from the start.
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def run(replicas, case):
    scope = strategy.scope() if replicas > 1 else contextlib.nullcontext()
    rng = np.random.default_rng(0)
    with scope:
        keras.utils.set_random_seed(1)
        initializer = keras.initializers.RandomNormal(stddev=0.3, seed=3)
        core = keras_seq.layers.TrellisNet(5, 6, 4, auxiliary_frequency=2, state="history",
            kernel_initializer=initializer, bias_initializer=initializer)
        model = keras_seq.models.LanguageModel(23, 6, core, auxiliary_weight=0.2, seed=7,
            activation_regularization=1.0, temporal_activation_regularization=0.5,
            carry_state=case == "carried")
        optimizer = keras_seq.optimizers.SGD(1.0, global_clipnorm=0.2, l2=1e-3,
            nominal_length=16 if case == "carried" else None)
        model.compile(optimizer)
    if case == "carried":
        ids = rng.integers(0, 23, (4, 41)).astype("int32")
        windows = [(ids[:, i:i+8], ids[:, i+1:i+9]) for i in range(0, 40, 8)]
        data = tf.data.Dataset.from_tensor_slices(tuple(np.concatenate(w) for w in zip(*windows)))
        data = data.batch(4, drop_remainder=True)
    elif case == "padded":  # the last row but one has no step, and the last batch two rows
        ids = rng.integers(0, 23, (10, 9)).astype("int32")
        lengths = np.array([8, 1, 3, 5, 2, 2, 7, 8, 0, 6], "int32")
        inputs = {"ids": np.where(np.arange(8) < lengths[:, None], ids[:, :-1], -1)}
        inputs["lengths"] = lengths
        data = tf.data.Dataset.from_tensor_slices((inputs, ids[:, 1:])).batch(4)
    else:  # batches of 4, 4 and 2 with weights that differ between the replicas
        ids = rng.integers(0, 23, (10, 9)).astype("int32")
        weights = (rng.random((10, 8)) < np.linspace(0.3, 1, 10)[:, None]).astype("float32")
        data = tf.data.Dataset.from_tensor_slices((ids[:, :-1], ids[:, 1:], weights)).batch(4)
    log = model.fit(data, epochs=4, verbose=0).history
    result = model.evaluate(data, verbose=0, return_dict=True)
    state = [s.tolist() for s in model.carried_state.get()]
    return [w.tolist() for w in model.get_weights()], log["nll"], log["loss"], result, state

def dropped(name, rate):
    # Outputs of a layer with weight dropout for the same input, by call and replica.
    layers, x = keras_seq.layers, np.random.default_rng(1).normal(size=(2, 5, 6)).astype("float32")
    with strategy.scope():
        layer = {
            "pru": lambda: layers.PRU(8, levels=2, groups=2, weight_dropout=rate, seed=3),
            "lstm": lambda: layers.LSTM(8, weight_dropout=rate, seed=3),
            "trellisnet": lambda: layers.TrellisNet(4, 8, 8, weight_dropout=rate, seed=3),
        }[name]()
        layer.build(x.shape)
    call = tf.function(lambda: strategy.run(lambda: layer(x, training=True)))
    return [[np.ravel(y).tolist() for y in strategy.experimental_local_results(call())]
            for _ in range(2)]

results = {case: [run(1, case), run(2, case)] for case in ("carried", "weighted", "padded")}
results["dropped"] = {name: [dropped(name, 0.0), dropped(name, 0.5)]
                      for name in ("pru", "lstm", "trellisnet")}
print(json.dumps(results))
"""


# The default run has two devices in tests/training/test_devices.py and tests/test_optimizers.py.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["carried", "weighted", "padded"])
def test_two_replicas_equal_one(runs, case):
    one, two = runs[case]
    names = ("weights", "nll", "loss", "evaluation", "state")
    for name, a, b in zip(names, one, two, strict=True):
        assert _flat(a) == pytest.approx(_flat(b), abs=1e-6), name


@pytest.mark.parametrize("name", ["pru", "lstm", "trellisnet"])
def test_every_replica_drops_its_own_weights(runs, name):
    without, dropped = ([tuple(y) for call in r for y in call] for r in runs["dropped"][name])
    assert len(set(without)) == 1
    assert len(set(dropped)) == len(dropped) == 4


def _flat(values) -> list[float]:
    values = list(values.values()) if isinstance(values, dict) else values
    return [values] if not isinstance(values, list) else [x for v in values for x in _flat(v)]
