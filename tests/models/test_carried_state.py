"""State carried from batch to batch: right with every way of giving data, or refused in words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.layers import LSTM, PRU, TCN, RecurrentStack
from keras_seq.models import LanguageModel, SequenceClassifier, SequenceRegressor

V, T, WINDOWS = 9, 5, 3


def core():
    """A core that is traced fast; its state are the last two inputs of each convolution."""
    return TCN(6, levels=1, kernel_size=3, weight_normalization=False)


def make(weights=None, jit_compile=False, **options):
    model = LanguageModel(V, 6, core(), carry_state=True, seed=1, **options)
    model.build()
    if weights is not None:
        model.set_weights(weights)
    model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
    return model


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(3)
    model = LanguageModel(V, 6, core(), carry_state=True)
    model.build()
    return [rng.normal(size=w.shape).astype("float32") for w in model.weights]


def lanes(size, windows=WINDOWS, seed=0):
    """A text in lanes of equal length: (size, windows * T) ids and targets."""
    text = np.random.default_rng(seed).integers(0, V, (size, windows * T + 1)).astype("int32")
    return text[:, :-1], text[:, 1:]


def in_windows(size, windows=WINDOWS, seed=0):
    """The same as arrays of windows, one batch below the other."""
    x, y = (np.concatenate(np.split(part, windows, 1)) for part in lanes(size, windows, seed))
    return x, y


def dataset(x, y, size):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size, drop_remainder=True)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, size, **options):
        super().__init__(**options)
        self.arrays, self.size = (x, y), size

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, index):
        place = slice(index * self.size, (index + 1) * self.size)
        return tuple(part[place] for part in self.arrays)


def generator(x, y, size, epochs=1):
    for _ in range(epochs):
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]


def losses(model, **options):
    return model.evaluate(**options, verbose=0, return_dict=True)["nll"]


def assert_same_weights(one, two):
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# Eager steps

RECURRENT = {
    "LSTM": lambda: LSTM(6),
    "PRU": lambda: PRU(6, levels=1, groups=1),
    "stack": lambda: RecurrentStack([LSTM(5), PRU(6, levels=1, groups=1)]),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_eager_steps_are_those_of_a_graph(name):
    """The state in variables is read before it is assigned, also where nothing is traced."""
    x, y = in_windows(4)
    models, start = [], None
    for eagerly in (False, True):
        model = LanguageModel(V, 6, RECURRENT[name](), carry_state=True, seed=1)
        model.build()
        start = start or model.get_weights()
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=eagerly, jit_compile=False)
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
        models.append(model)
    assert_same_weights(*models)
    assert np.abs(models[0].get_weights()[0] - start[0]).max() > 1e-3


# Other batch sizes


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_evaluation_is_that_of_whole_lanes_after_any_batch_size(weights, jit_compile):
    model = make(weights, jit_compile)
    for size in (4, 2, 4):
        x, y = in_windows(size)
        expected = model.token_losses(*lanes(size)).numpy().mean()
        assert losses(model, x=x, y=y, batch_size=size) == pytest.approx(expected, rel=1e-5)


def test_training_goes_on_with_another_batch_size(weights):
    model = make(weights)
    for size in (4, 2):
        fresh = make(model.get_weights())
        x, y = in_windows(size)
        for one in (model, fresh):
            one.fit(x, y, batch_size=size, verbose=0)
        assert_same_weights(model, fresh)
        assert all(len(part) == size for part in model.carried_state.get())


def test_a_callback_may_evaluate_with_another_batch_size(weights):
    class Evaluates(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            x, y = in_windows(2)
            self.model.evaluate(x, y, batch_size=2, verbose=0)

    model = make(weights)
    x, y = in_windows(4)
    log = model.fit(
        x, y, batch_size=4, epochs=2, validation_data=(x, y), verbose=0, callbacks=[Evaluates()]
    )
    expected = model.token_losses(*lanes(4)).numpy().mean()
    assert log.history["val_nll"][-1] == pytest.approx(expected, rel=1e-5)


# Ways of giving data


@pytest.fixture(scope="module")
def by_hand(weights):
    """A model that was trained for two epochs by hand."""
    model = make(weights)
    x, y = lanes(4)
    for _ in range(2):
        state = model.get_initial_state(4)
        for start in range(0, x.shape[1], T):
            place = slice(start, start + T)
            with tf.GradientTape() as tape:
                features = model.features(x[:, place], state, return_state=True)
                nll = model.head.nll(features.outputs, y[:, place], tables=model.tables)
                loss = tf.reduce_mean(nll)
            variables = model.trainable_weights
            for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
                v.assign_sub(0.5 * tf.convert_to_tensor(g))
            state = keras.tree.map_structure(np.asarray, features.state)
    return model


WAYS = {
    "arrays": lambda m, x, y: m.fit(x, y, 4, shuffle=False, epochs=2, verbose=0),
    "dataset": lambda m, x, y: m.fit(dataset(x, y, 4), epochs=2, verbose=0),
    "repeated dataset": lambda m, x, y: m.fit(
        dataset(x, y, 4).repeat(), steps_per_epoch=WINDOWS, epochs=2, verbose=0
    ),
    "PyDataset": lambda m, x, y: m.fit(Batches(x, y, 4), epochs=2, verbose=0),
    "PyDataset with threads": lambda m, x, y: m.fit(
        Batches(x, y, 4, workers=2), epochs=2, verbose=0
    ),
    "generator": lambda m, x, y: m.fit(
        generator(x, y, 4, 2), steps_per_epoch=WINDOWS, epochs=2, verbose=0
    ),
    "later epochs": lambda m, x, y: m.fit(x, y, 4, initial_epoch=5, epochs=7, verbose=0),
    "two calls": lambda m, x, y: [m.fit(x, y, 4, verbose=0) for _ in range(2)],
}


@pytest.mark.parametrize("way", WAYS)
def test_training_equals_a_loop_by_hand(way, weights, by_hand):
    model = make(weights)
    WAYS[way](model, *in_windows(4))
    assert_same_weights(model, by_hand)


def test_training_batch_by_batch_equals_a_loop_by_hand(weights, by_hand):
    model = make(weights)
    for _ in range(2):
        for x, y in generator(*in_windows(4), 4):
            model.train_on_batch(x, y)
        model.carried_state.reset("train")
    assert_same_weights(model, by_hand)


def test_every_way_of_evaluating(weights):
    model = make(weights)
    x, y = in_windows(4)
    expected = pytest.approx(model.token_losses(*lanes(4)).numpy().mean(), rel=1e-5)
    assert losses(model, x=x, y=y, batch_size=4) == expected
    for data in (dataset(x, y, 4), Batches(x, y, 4), generator(x, y, 4)):
        assert losses(model, x=data) == expected
    model.carried_state.reset("test")
    each = [model.test_on_batch(*batch, return_dict=True)["nll"] for batch in generator(x, y, 4)]
    assert np.mean(each) == expected


@pytest.mark.parametrize("kind", ["arrays", "dataset", "PyDataset", "generator"])
def test_every_way_of_validating(kind, weights):
    model = make(weights)
    x, y = in_windows(4)
    data, size = {
        "arrays": (in_windows(2), 2),
        "dataset": (dataset(*in_windows(2), 2), None),
        "PyDataset": (Batches(*in_windows(2), 2), None),
        "generator": (generator(*in_windows(2), 2), None),
    }[kind]
    log = model.fit(x, y, batch_size=4, validation_data=data, validation_batch_size=size, verbose=0)
    expected = model.token_losses(*lanes(2)).numpy().mean()
    assert log.history["val_nll"] == [pytest.approx(expected, rel=1e-5)]


def test_predictions_begin_from_zero_in_each_row(weights):
    model = make(weights)
    x, y = in_windows(4)
    model.evaluate(x, y, batch_size=4, verbose=0)
    rows = x[:5]  # a smaller last batch too
    np.testing.assert_allclose(
        model.predict(rows, batch_size=2, verbose=0), model(rows).numpy(), rtol=1e-4, atol=1e-6
    )


def test_a_model_that_is_not_built_and_a_free_length(weights):
    model = LanguageModel(V, 6, core(), carry_state=True, seed=1)
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    x, y = in_windows(4)
    model.evaluate(x, y, batch_size=4, verbose=0)
    model.fit(x, y, batch_size=4, verbose=0)
    expected = model.token_losses(*lanes(4)).numpy().mean()
    parts = [(x, y) for x, y in zip(*(np.split(p, 3) for p in (x, y)), strict=True)]
    data = tf.data.Dataset.from_generator(
        lambda: iter(parts), output_signature=(tf.TensorSpec((4, None), "int32"),) * 2
    )
    assert losses(model, x=data) == pytest.approx(expected, rel=1e-5)


# What is refused


REFUSED = {
    "shuffled": (lambda m, x, y: m.fit(x, y, 4, shuffle=True), "`shuffle` must be False"),
    "split": (lambda m, x, y: m.fit(x, y, 4, validation_split=0.2), "`validation_split` must be"),
    "no batch size": (lambda m, x, y: m.fit(x, y), "`batch_size` must be given"),
    "evaluated without": (lambda m, x, y: m.evaluate(x, y), "`batch_size` must be given"),
    "uneven": (lambda m, x, y: m.fit(x[:-1], y[:-1], 4), "11 rows, batch_size=4. Leave the last 3"),
    "uneven evaluation": (lambda m, x, y: m.evaluate(x[:-1], y[:-1], 4), "11 rows, batch_size=4"),
    "uneven validation": (
        lambda m, x, y: m.fit(x, y, 4, validation_data=(x[:-1], y[:-1])),
        "`validation_data` must have a multiple of `batch_size` rows",
    ),
    "free batch": (
        lambda m, x, y: m.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(4)),
        "drop_remainder=True",
    ),
    "uneven generator": (
        lambda m, x, y: m.fit(generator(x[:-1], y[:-1], 4)),
        "a batch of 3 rows after batches of 4",
    ),
    "uneven PyDataset": (
        lambda m, x, y: m.fit(Batches(x[:-1], y[:-1], 4)),
        "a batch of 3 rows after batches of 4",
    ),
    "empty generator": (lambda m, x, y: m.fit(iter_of_nothing()), "an empty generator"),
    "a list of numbers": (lambda m, x, y: m.fit([1, 2], [1, 2], 2), "must be arrays"),
}


def iter_of_nothing():
    yield from ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_lanes_is_refused(name):
    action, words = REFUSED[name]
    with pytest.raises((ValueError, TypeError, tf.errors.OpError), match=words):
        action(make(), *in_windows(4))


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor])
def test_models_of_whole_sequences_carry_no_state(cls):
    with pytest.raises(ValueError, match="`carry_state` must be left out"):
        cls(LSTM(4), 2, carry_state=True)
