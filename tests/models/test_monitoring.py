"""Callbacks that watch a model's own metric know which way it improves."""

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.layers import LSTM
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 7, (4, 5)).astype("int32")
FLOATS = RNG.random((4, 5, 3)).astype("float32")
# Of each model, its data and its own metrics with the mode of each; None for a mere count.
MODELS = {
    "language": (
        lambda: LanguageModel(7, 4, LSTM(4)),
        (IDS, IDS),
        {"nll": "min", "perplexity": "min", "bits": "min", "tokens": None},
    ),
    "classifier": (
        lambda: SequenceClassifier(LSTM(4), 3),
        (FLOATS, np.arange(4) % 3),
        {"nll": "min", "accuracy": "max"},
    ),
    "regressor": (lambda: SequenceRegressor(LSTM(4)), (FLOATS, FLOATS[:, 0, :1]), {"mse": "min"}),
    "frames": (
        lambda: FrameModel(LSTM(4), notes=3),
        (FLOATS, np.round(FLOATS)),
        {"nll_per_frame": "min"},
    ),
}


def callbacks_of(name, folder):
    return [
        keras.callbacks.EarlyStopping(name, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(folder / "best.keras", name, save_best_only=True),
        keras.callbacks.ReduceLROnPlateau(name),
    ]


@pytest.mark.parametrize("kind", MODELS)
def test_automatic_mode(kind, tmp_path):
    make, (x, y), modes = MODELS[kind]
    model = make()
    assert {metric.name for metric in model.own_metrics()} == set(modes)
    model.compile("sgd", jit_compile=False)
    known = {name: mode for name, mode in modes.items() if mode}
    watching = {
        (name, prefix): callbacks_of(prefix + name, tmp_path)
        for name in known
        for prefix in ("val_", "")
    }
    model.fit(x, y, validation_data=(x, y), callbacks=[*watching.values()], verbose=0)
    for (name, _), callbacks in watching.items():
        for callback in callbacks:
            better, worse = (0.0, 1.0) if known[name] == "min" else (1.0, 0.0)
            assert callback.monitor_op(better, worse)
            assert not callback.monitor_op(worse, better)
    assert (tmp_path / "best.keras").exists()


def test_a_mode_that_is_given_stays():
    make, (x, y), _ = MODELS["regressor"]
    model = make()
    model.compile("sgd", jit_compile=False)
    callback = keras.callbacks.EarlyStopping("val_mse", mode="max")
    model.fit(x, y, validation_data=(x, y), callbacks=callback, verbose=0)
    assert callback.monitor_op(1.0, 0.0)


def test_a_count_has_no_direction():
    make, (x, y), _ = MODELS["language"]
    model = make()
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match="Pass `mode='max'`"):
        callback = keras.callbacks.EarlyStopping("val_tokens")
        model.fit(x, y, validation_data=(x, y), callbacks=callback, verbose=0)


def test_metrics_given_to_compile():
    make, (x, y), _ = MODELS["language"]
    model = make()
    perplexity = keras_seq.metrics.Perplexity(from_logits=True, name="mine")
    model.compile("sgd", metrics=[perplexity], jit_compile=False)
    callback = keras.callbacks.EarlyStopping("val_mine")
    model.fit(x, y, validation_data=(x, y), callbacks=[callback], verbose=0)
    assert callback.monitor_op(0.0, 1.0)


@pytest.mark.filterwarnings("error:.*shuffle=True. was passed")
def test_data_that_keras_does_not_shuffle_bring_no_warning():
    import tensorflow as tf

    make, arrays, _ = MODELS["regressor"]
    model = make()
    model.compile("sgd", jit_compile=False)
    model.fit(tf.data.Dataset.from_tensor_slices(arrays).batch(2), verbose=0)
