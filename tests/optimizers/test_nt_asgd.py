"""NT-ASGD against a computation in NumPy."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.optimizers import NTASGD, SGD, NonMonotoneTrigger

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5]]) + 0.1).astype("float32")


def model_of(optimizer=None, **settings):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")])
    model.compile(optimizer or NTASGD(0.05, **settings), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def numpy_run(start, steps, trigger, rate=0.05, clip=None, l2=0.0):
    """Iterates of SGD on the batches of four, and the mean of those after `trigger` steps."""
    (w, b), iterates = (np.array(a, np.float64) for a in start), []
    for step in range(steps):
        rows = slice(4 * (step % 3), 4 * (step % 3) + 4)
        error = X[rows] @ w + b - Y[rows]
        gradients = [2 * X[rows].T @ error / 4, 2 * error.mean(0)]
        if clip is not None:
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1, clip / norm) for g in gradients]
        w, b = (p - rate * (g + l2 * p) for p, g in zip((w, b), gradients, strict=True))
        iterates.append((w, b))
    mean = [np.mean([i[k] for i in iterates[trigger:]], axis=0) for k in range(2)]
    return iterates[-1], mean


def fit(model, epochs=1):
    model.fit(X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)


def close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_equals_numpy():
    model = model_of(global_clipnorm=0.5, l2=0.01)
    start = model.get_weights()
    fit(model, 2)
    assert not model.optimizer.averaging
    model.optimizer.start_averaging()
    assert not model.optimizer.averaging  # there is no iterate to average yet
    fit(model, 3)
    raw, mean = numpy_run(start, 15, 6, clip=0.5, l2=0.01)
    before = model.get_weights()
    close(before, raw)
    with model.optimizer.evaluation_weights(model):
        close(model.get_weights(), mean)
        inside = model.evaluate(X, Y, verbose=0)
        with model.optimizer.evaluation_weights(model):
            close(model.get_weights(), mean)
        close(model.get_weights(), mean)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(inside, np.mean((X @ mean[0] + mean[1] - Y) ** 2), rtol=1e-4)


def test_is_plain_sgd_before_the_trigger():
    ours, theirs = model_of(global_clipnorm=0.5), model_of(SGD(0.05, global_clipnorm=0.5))
    theirs.set_weights(ours.get_weights())
    for model in (ours, theirs):
        fit(model, 3)
    close(ours.get_weights(), theirs.get_weights())
    with ours.optimizer.evaluation_weights(ours):
        close(ours.get_weights(), theirs.get_weights())


def test_averaging_from_a_given_step():
    model = model_of(average_from=4)
    start = model.get_weights()
    fit(model, 3)
    with model.optimizer.evaluation_weights(model):
        close(model.get_weights(), numpy_run(start, 9, 4)[1])


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [
        ([5, 4, 3, 2, 1, 0], None),
        ([5, 4, 3, 3.5, 3.5, 2.9], None),
        ([5, 4, 3, 3.5, 3.5, 3.2], 6),  # above the best of the epochs more than two before
        ([5, 4, 6, 7, float("nan")], 4),
        ([1, 2], None),  # too early
    ],
)
def test_non_monotone_rule(losses, epoch):
    optimizer = model_of(nonmonotone=2).optimizer
    fired = [e for e in range(1, len(losses) + 1) if optimizer.epoch_end(losses[:e])]
    assert fired == ([] if epoch is None else [epoch])
    assert optimizer.triggered == (epoch is not None)


def test_resumes_exactly():
    """Variables carried over to a fresh optimizer in the middle give the same end."""
    whole, first, second = (model_of(average_from=2) for _ in range(3))
    first.set_weights(whole.get_weights())
    fit(whole, 4)
    fit(first, 2)
    second.set_weights(first.get_weights())
    for ours, theirs in zip(second.optimizer.variables, first.optimizer.variables, strict=True):
        ours.assign(theirs)
    fit(second, 2)
    for a, b in zip(whole.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_callback_triggers_and_evaluates_with_the_mean():
    model = model_of(nonmonotone=0)
    start, seen = model.get_weights(), []

    class Losses(NonMonotoneTrigger):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs or {})["val_loss"])
            logs = {"val_loss": [3.0, 4.0, 1.0, 1.0][epoch]}
            super().on_epoch_end(epoch, logs)

    callback = Losses()
    model.fit(
        X, Y, batch_size=4, epochs=4, validation_data=(X, Y), shuffle=False, verbose=0,
        callbacks=[callback],
    )  # fmt: skip
    raw, mean = numpy_run(start, 12, 6)
    close(model.get_weights(), raw)
    np.testing.assert_allclose(seen[-1], np.mean((X @ mean[0] + mean[1] - Y) ** 2), rtol=1e-4)
    assert callback.get_state() == {"losses": [3.0, 4.0, 1.0, 1.0]}
    with pytest.raises(ValueError, match="optimizer must be NTASGD. Received: SGD"):
        model_of(SGD(0.1)).fit(X, Y, callbacks=[NonMonotoneTrigger()], verbose=0)
    with pytest.raises(ValueError, match="The trigger needs validation data"):
        model_of().fit(X, Y, callbacks=[NonMonotoneTrigger()], verbose=0)


REPLICAS = r"""
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from keras_seq.optimizers import NTASGD
x, y = (np.array(a, "float32") for a in json.loads(sys.argv[1]))
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(NTASGD(0.05, average_from=3, global_clipnorm=0.5), loss="mse")
weights = [model.get_weights()]
model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
weights.append(model.get_weights())
with model.optimizer.evaluation_weights(model):
    weights.append(model.get_weights())
weights.append(model.get_weights())
print(json.dumps([[w.tolist() for w in ws] for ws in weights]))
"""


@pytest.mark.slow
def test_under_a_strategy_of_two_replicas():
    data = json.dumps([X.tolist(), Y.tolist()])
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS, data], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    start, raw, mean, after = json.loads(result.stdout.splitlines()[-1])
    want = numpy_run(start, 6, 3, clip=0.5)
    close(raw, want[0])
    close(mean, want[1])
    assert after == raw


def test_configuration_and_saving(tmp_path):
    optimizer = NTASGD(3.0, nonmonotone=4, average_from=7, l2=0.1, global_clipnorm=0.2)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(config)
    assert isinstance(again, NTASGD)
    assert again.get_config() == optimizer.get_config()
    model = model_of(average_from=0)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`nonmonotone` must not be negative"):
        NTASGD(nonmonotone=-1)
    with pytest.raises(RuntimeError, match="must be built first"):
        NTASGD().start_averaging()


@pytest.mark.parametrize("compiled", [False, True])
def test_as_released(compiled):
    """By hand: the mean without the first iterate, and the rate of the window before."""
    lengths, trigger = (8, 4, 6, 2, 8, 4), 2
    optimizer = NTASGD(0.5, nominal_length=8, form="released")
    weight = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer.build([weight])

    def update(length):
        optimizer.set_window_length(length)
        optimizer.apply([0.1 * keras.ops.convert_to_tensor(weight) + 1], [weight])

    if compiled:  # the rate goes from one call to the next in a variable
        update = tf.function(update, reduce_retracing=True)
    expected, iterates, previous = np.array([1.0, -2.0]), [], 0.0
    for step, length in enumerate(lengths):
        if step == trigger:
            optimizer.start_averaging()
        update(tf.constant(length))
        rate = 0.5 * length / 8
        expected = expected - (previous if step > trigger else rate) * (0.1 * expected + 1)
        previous = rate
        np.testing.assert_allclose(weight, expected, rtol=1e-6)
        iterates.append(expected)
        averaged = iterates[trigger:]
        if averaged:
            with optimizer.evaluation_weights():
                mean = np.mean(averaged[1:] or averaged, axis=0)
                np.testing.assert_allclose(weight, mean, rtol=1e-6)
    assert NTASGD.from_config(optimizer.get_config()).form == "released"


def test_an_unknown_form():
    with pytest.raises(ValueError, match="`form` must be one of .*Received: form='pytorch'"):
        NTASGD(0.1, form="pytorch")
