"""Rows of different length in one batch: what models make of them is what each row alone gives."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_layers import CAUSAL, EXACT, WIDTH

from keras_seq import layers, zoo
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor

STEPS = 6
# Padding after and before, masked steps within, none, and nothing but padding.
MASK = np.array(
    [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [1] * 6, [0] * 6], "bool"
)
LENGTHS = np.array([3, 6, 1, 2, 0], "int32")
RNG = np.random.default_rng(3)
IDS = RNG.integers(1, 7, (5, STEPS)).astype("int32")
FLOATS = RNG.normal(size=(5, STEPS, WIDTH)).astype("float32")
FRAMES = (RNG.random((5, STEPS, WIDTH)) < 0.4).astype("float32")
NEXT = RNG.integers(0, 7, (5, STEPS)).astype("int32")
LABELS = np.array([0, 2, 1, 1, 0], "int32")
VALUES = RNG.normal(size=(5, 1)).astype("float32")
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
MODELS = {
    "language": (
        lambda core: LanguageModel(
            7, WIDTH, core, "softmax", activation_regularization=0.3, seed=1
        ),
        IDS,
        NEXT,
    ),
    "classifier": (lambda core: SequenceClassifier(core, 3), FLOATS, LABELS),
    "regressor": (lambda core: SequenceRegressor(core), FLOATS, VALUES),
    "frames": (lambda core: FrameModel(core, WIDTH), FRAMES, np.roll(FRAMES, -1, 1)),
    "steps": (
        lambda core: SequenceClassifier(
            core, 7, vocabulary_size=7, embedding_dim=WIDTH, return_sequences=True
        ),
        IDS,
        NEXT,
    ),
    "mean": (lambda core: SequenceClassifier(core, 3, pooling="mean"), FLOATS, LABELS),
    "max": (lambda core: SequenceClassifier(core, 3, pooling="max"), FLOATS, LABELS),
    "attention": (lambda core: _attentive(core), FLOATS, LABELS),
}


QUICK = [("LSTM", kind) for kind in ("language", "steps", "attention")]


def _attentive(core):
    model = SequenceClassifier(core, 3, pooling="attention")
    model.build((None, None, WIDTH))
    model.pool.query.assign(np.linspace(-3, 3, model.pool.query.shape[0]))
    return model


def core_of(name: str):
    return CAUSAL[name](**EXACT.get(name, {}))


def made(kind: str, core):
    make, x, y = MODELS[kind]
    model = make(core)
    model(x)
    model.compile("sgd", jit_compile=False)
    return model, x, y


def wrong_at(x, mask):
    """Inputs or targets that are not to be read, at masked steps."""
    bad = np.float32("nan") if x.dtype == "float32" else -9
    return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, bad)


def padded(x, mask=MASK) -> dict:
    return {"inputs": wrong_at(x, mask), "mask": mask}


def ragged(x, lengths=LENGTHS) -> dict:
    mask = np.arange(STEPS) < lengths[:, None]
    return {"inputs": wrong_at(x, mask), "lengths": lengths}


def mask_of(given: dict) -> np.ndarray:
    return given.get("mask", np.arange(STEPS) < np.asarray(given.get("lengths", 0))[..., None])


def rows_of(given, *values):
    """The valid steps of each row that has any, with those of what has steps too."""
    mask = mask_of(given)
    for row in np.flatnonzero(mask.any(1)):
        yield [
            value[row : row + 1][:, mask[row]] if value.shape[1:2] == (STEPS,) else value[[row]]
            for value in values
        ]


def loss_and_gradients(model, x, y, weights=None):
    with tf.GradientTape() as tape:
        loss, total, _ = model._loss(x, y, weights, "test", training=True)
    unused = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(loss, model.trainable_weights, unconnected_gradients=unused)
    return float(total), [
        np.asarray(part) for part in [loss, *map(tf.convert_to_tensor, gradients)]
    ]


def check_losses(model, given, x, y, weights=None) -> None:
    """Loss and gradients of a padded batch are the means of those of its rows."""
    tensors = keras.tree.map_structure(tf.convert_to_tensor, given)
    hidden = wrong_at(y, mask_of(given)) if y.shape[1:2] == (STEPS,) else y
    total, got = loss_and_gradients(model, tensors, hidden, weights)
    values = [x, y] if weights is None else [x, y, weights]
    alone = [loss_and_gradients(model, *rows) for rows in rows_of(given, *values)]
    assert total == pytest.approx(sum(count for count, _ in alone))
    for place, part in enumerate(got):
        want = sum(count * parts[place] for count, parts in alone) / total
        np.testing.assert_allclose(part, want, **CLOSE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
        for name in CAUSAL
        for kind in MODELS
    ],
)
def test_a_row_gives_what_it_gives_alone(name, kind):
    """Outputs, losses and gradients; by a mask, by lengths, and by the mask of Keras."""
    model, x, y = made(kind, core_of(name))
    for given in (padded(x), ragged(x)):
        outputs = np.asarray(model(given))
        want = [np.asarray(model(row))[0] for (row,) in rows_of(given, x)]
        mask = mask_of(given)
        got = [outputs[i] for i in np.flatnonzero(mask.any(1))]
        if outputs.ndim == 3:
            got = [part[mask[i]] for i, part in zip(np.flatnonzero(mask.any(1)), got, strict=True)]
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, **CLOSE)
        assert np.isfinite(outputs).all()
        check_losses(model, given, x, y)
    carried = tf.convert_to_tensor(padded(x)["inputs"])
    carried._keras_mask = tf.constant(MASK)
    result = model(carried)
    np.testing.assert_allclose(result, model(padded(x)), rtol=1e-6)
    if len(result.shape) == 3:
        np.testing.assert_array_equal(result._keras_mask, MASK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_in_keras_own_loops(kind):
    """`fit`, `evaluate` and `predict` with arrays, lists, datasets and single batches."""
    model, x, y = made(kind, layers.LSTM(4, seed=1))
    model.run_eagerly = True  # a graph for each length takes long
    counts, alone = [], []
    for row, target in rows_of(padded(x), x, y):
        model.reset_metrics()
        alone.append(model.test_on_batch(row, target, return_dict=True))
        counts.append(row.shape[1] if y.shape[1:2] == (STEPS,) else 1)
    model.compile("sgd", jit_compile=False)
    want = model.evaluate(padded(x), y, batch_size=5, verbose=0, return_dict=True)
    del want["loss"]  # the regularisers' counts are in `check_losses`
    for metric in set(want) - {"perplexity", "bits", "tokens"}:
        mean = np.average([result[metric] for result in alone], weights=counts)
        assert want[metric] == pytest.approx(mean, rel=1e-4), metric
    if "tokens" in want:
        assert want["tokens"] == MASK.sum()
    data = tf.data.Dataset.from_tensor_slices((padded(x), y)).batch(3)
    result = model.evaluate(data, verbose=0, return_dict=True)
    del result["loss"]
    assert result == pytest.approx(want, rel=1e-4)
    lists = {"inputs": x, "lengths": LENGTHS.tolist()}
    outputs = model.predict(ragged(x), verbose=0)
    np.testing.assert_allclose(model.predict(lists, verbose=0), outputs, rtol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(lists), outputs, rtol=1e-5)
    np.testing.assert_allclose(model.predict(data, verbose=0), model(padded(x)), **CLOSE)
    model.fit(data, validation_data=(lists, y), verbose=0)
    model.train_on_batch(padded(x), y)
    assert all(np.isfinite(part).all() for part in model.get_weights())


def test_weights_and_ignored_classes_besides_masks():
    """Weights of samples, steps and classes, and `ignore_class`, count at valid steps alone."""
    model, x, y = made("steps", layers.LSTM(4, seed=1))
    model.ignore_class = int(NEXT[3, 2])
    model._weigh_classes({1: 2.0, 2: 0.0})
    each = RNG.random((5, STEPS)).astype("float32")
    each[3, 4] = 0
    for weights in (each, each[:, 0], each[:, :1]):
        for given in (padded(x), ragged(x)):
            check_losses(model, given, x, y, weights)
    model, x, y = made("classifier", layers.LSTM(4, seed=1))
    check_losses(model, padded(x), x, y, each[:, 0])


def test_what_a_weight_of_zero_hides_is_read_by_a_core_that_sees_both_ways():
    core = keras.layers.Bidirectional(layers.LSTM(4, seed=1))
    model = SequenceClassifier(core, 7, return_sequences=True)
    weights = np.ones((5, STEPS), "float32")
    weights[:, 3:] = 0
    model.compile("sgd", jit_compile=False)
    loss = model.test_on_batch(FLOATS, NEXT, weights, return_dict=True)["nll"]
    want = -np.take_along_axis(np.asarray(model(FLOATS)), NEXT[..., None], -1)[:, :3].mean()
    assert loss == pytest.approx(want, rel=1e-5)


def test_regularisers_count_valid_steps():
    """The change from step to step is that between valid steps of one row."""
    model, x, y = made("language", layers.LSTM(4, seed=1))
    model.activation_regularization = 0.0
    model.temporal_activation_regularization = 0.7
    for given in (padded(x), ragged(x)):
        terms = model.loss_terms(given, y, training=True)
        alone = [
            (float(model.loss_terms(*row, training=True).penalty), row[0].shape[1] - 1)
            for row in rows_of(given, x, y)
        ]
        want = sum(part * pairs for part, pairs in alone) / sum(pairs for _, pairs in alone)
        assert float(terms.penalty) == pytest.approx(want, rel=1e-4)


def test_history_is_of_valid_steps():
    model = LanguageModel(7, WIDTH, layers.LSTM(4, seed=1), "softmax", history=2, seed=1)
    for given in (padded(IDS), ragged(IDS)):
        check_losses(model, given, IDS, NEXT)
        model.check_arrays(given, wrong_at(NEXT, mask_of(given)))


def test_auxiliary_losses_count_valid_steps():
    core: dict[str, Any] = {"units": 4, "output_units": 3, "levels": 4, "auxiliary_frequency": 2}
    deep = LanguageModel(
        7, WIDTH, layers.TrellisNet(**core), "softmax", auxiliary_weight=0.3, seed=1
    )
    check_losses(deep, padded(IDS), IDS, NEXT)
    reader = SequenceClassifier(layers.TrellisNet(**core), 3, auxiliary_weight=0.3)
    reader(FLOATS)
    check_losses(reader, padded(FLOATS), FLOATS, LABELS)
    summed = FrameModel(layers.LSTM(4), WIDTH, sum_over_time=True)
    summed(FRAMES)
    check_losses(summed, padded(FRAMES), FRAMES, np.roll(FRAMES, -1, 1))


def test_dropout_does_not_depend_on_padding():
    """One seed, one dropout: rows with padding behind them are trained as they are without."""

    def losses(given, y):
        keras.utils.set_random_seed(4)
        model = LanguageModel(
            *(7, WIDTH, layers.LSTM(4, weight_dropout=0.5, seed=1), "softmax"),
            embedding_dropout=0.3,
            input_dropout=0.5,
            output_dropout=0.5,
            seed=2,
        )
        return loss_and_gradients(model, given, y)

    total, got = losses(IDS[:, :4], NEXT[:, :4])
    lengths = np.full(5, 4, "int32")
    for given in (
        ragged(IDS, lengths),
        padded(np.roll(IDS, 2, 1), np.arange(STEPS) >= np.full((5, 1), 2)),
    ):
        y = NEXT if "lengths" in given else np.roll(NEXT, 2, 1)
        count, parts = losses(keras.tree.map_structure(tf.convert_to_tensor, given), y)
        assert count == total
        for one, other in zip(parts, got, strict=True):
            np.testing.assert_allclose(one, other, **CLOSE)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("LSTM", "PRU") else pytest.mark.slow) for n in CAUSAL],
)
def test_carried_state(name):
    """The state goes on from the last valid step; that of a row that has ended stays."""
    core = core_of(name)
    model = LanguageModel(7, WIDTH, core, "softmax", carry_state=True, seed=1)
    model.compile("sgd", jit_compile=False)
    batches = (padded(IDS), ragged(NEXT), padded(IDS[::-1]))
    y = np.roll(NEXT, 1, 1)
    data = tf.data.Dataset.from_generator(
        lambda: (({"inputs": b["inputs"], "mask": mask_of(b)}, y) for b in batches),
        output_signature=(
            {
                "inputs": tf.TensorSpec((5, STEPS), tf.int32),
                "mask": tf.TensorSpec((5, STEPS), tf.bool),
            },
            tf.TensorSpec((5, STEPS), tf.int32),
        ),
    ).apply(tf.data.experimental.assert_cardinality(3))
    got = model.evaluate(data, verbose=0, return_dict=True)
    plain = LanguageModel(7, WIDTH, core, model.head, embedding=model.embedding)
    sums, tokens = 0.0, 0
    for row in range(5):
        parts = [(b["inputs"][row][mask_of(b)[row]], y[row][mask_of(b)[row]]) for b in batches]
        state = model.get_initial_state(1)
        for ids, targets in parts:  # as the batches are cut: not every state is exact
            if not len(ids):
                continue
            log_probs, state = plain(ids[None], initial_state=state, return_state=True)
            sums -= np.take_along_axis(np.asarray(log_probs)[0], targets[:, None], -1).sum()
            tokens += len(ids)
        carried = [value[row] for value in model.carried_state.get("test")]
        for one, other in zip(carried, keras.tree.flatten(state), strict=True):
            np.testing.assert_allclose(one, other[0], **CLOSE)
    assert got["tokens"] == tokens
    assert got["nll"] == pytest.approx(sums / tokens, rel=1e-4)


def test_the_id_zero_as_padding():
    ids = np.where(MASK, IDS, 0)
    for make in (
        lambda **options: LanguageModel(7, WIDTH, layers.LSTM(4, seed=1), "softmax", **options),
        lambda **options: SequenceClassifier(
            layers.LSTM(4, seed=1), 3, vocabulary_size=7, embedding_dim=WIDTH, **options
        ),
    ):
        model = make(mask_zero=True)
        model(ids)
        twin = type(model).from_config({**model.get_config(), "mask_zero": False})
        twin(ids)
        twin.set_weights(model.get_weights())
        want = twin({"inputs": ids, "mask": MASK})
        again = type(model).from_config(model.get_config())
        again(ids)
        again.set_weights(model.get_weights())
        np.testing.assert_allclose(again(ids), want, **CLOSE)
        np.testing.assert_allclose(
            again({"inputs": ids, "lengths": LENGTHS}),
            twin({"inputs": ids, "mask": MASK & (np.arange(STEPS) < LENGTHS[:, None])}),
            **CLOSE,
        )
    with pytest.raises(ValueError, match="`mask_zero` needs a model of ids"):
        SequenceClassifier(layers.LSTM(4), 3, mask_zero=True)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_pooling_is_saved(pooling, tmp_path):
    both = keras.layers.Bidirectional(layers.LSTM(4, seed=1))
    model = SequenceClassifier(both, 3, pooling=pooling, output_dropout=0.1)
    model.compile("sgd", jit_compile=False)
    model.fit(padded(FLOATS), LABELS, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.pooling == pooling
    np.testing.assert_allclose(again(padded(FLOATS)), model(padded(FLOATS)), rtol=1e-6)
    old = {k: v for k, v in model.get_config().items() if k not in ("pooling", "mask_zero")}
    assert SequenceClassifier.from_config(old).pooling == "last"


def test_masks_of_keras_pass_through_a_model():
    inputs = keras.Input((None, WIDTH))
    steps = SequenceClassifier(layers.LSTM(4, seed=1), 3, return_sequences=True)
    whole = keras.Model(inputs, keras.layers.GRU(2)(steps(keras.layers.Masking()(inputs))))
    x = np.where(MASK[..., None], FLOATS, 0)
    want = whole.layers[-1](steps(FLOATS, mask=MASK), mask=MASK)
    np.testing.assert_allclose(whole(x), want, **CLOSE)


GIVEN = {
    "a length below zero": {"lengths": [3, -1, 2, 2, 2]},
    "a length beyond the steps": {"lengths": [3, 7, 2, 2, 2]},
    "too few lengths": {"lengths": [3, 3]},
    "lengths of another rank": {"lengths": [[3]] * 5},
    "lengths that are no whole numbers": {"lengths": [0.5] * 5},
    "a mask of other steps": {"mask": MASK[:, :4]},
    "a mask of another rank": {"mask": MASK[..., None]},
    "a mask of other numbers": {"mask": MASK * 0.3},
    "both": {"lengths": LENGTHS, "mask": MASK},
    "a name that is none": {"length": LENGTHS},
}


@pytest.mark.parametrize("case", GIVEN)
def test_wrong_lengths_and_masks_are_refused(case):
    model, _, y = made("classifier", layers.LSTM(4))
    wrong = {"inputs": FLOATS, **GIVEN[case]}
    words = "`(lengths|mask|inputs)` must"
    for call in (
        lambda: model.fit(wrong, y, verbose=0),
        lambda: model.evaluate(wrong, y, verbose=0),
        lambda: model.predict(wrong, verbose=0),
        lambda: model.train_on_batch(wrong, y),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    if "numbers" not in case or "whole" in case:
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=words):
            model(wrong)


def test_cores_that_see_later_steps():
    """Readers take them; what predicts the next step does not, nor is there a state."""
    both = keras.layers.Bidirectional(layers.LSTM(4))
    cores = (both, layers.LSTM(4, go_backwards=True), layers.LSTM(4, lookahead=1))
    for core in cores:
        for make in (
            lambda core=core: LanguageModel(7, WIDTH, core),
            lambda core=core: FrameModel(core, WIDTH),
        ):
            with pytest.raises(ValueError, match="`core` must be causal: another one has seen"):
                make()
        model = SequenceClassifier(core, 3)
        model(FLOATS)
        check_losses(model, padded(FLOATS), FLOATS, LABELS)
        assert not model.streams
        with pytest.raises(ValueError, match=f"Received: a {type(core).__name__} .layer"):
            model.get_initial_state(2)
    for make in (
        lambda: LanguageModel(7, WIDTH, layers.LSTM(4, return_sequences=False)),
        lambda: SequenceRegressor(layers.LSTM(4, return_sequences=False)),
        lambda: SequenceRegressor(
            keras.layers.Bidirectional(layers.LSTM(4, return_sequences=False))
        ),
    ):
        with pytest.raises(ValueError, match="`core` must give the outputs of all steps"):
            make()
    with pytest.raises(ValueError, match="`core` must give outputs in the order of the steps"):
        SequenceClassifier(layers.LSTM(4, go_backwards=True), 3, return_sequences=True)
    mean = SequenceClassifier(layers.LSTM(4), 3, pooling="mean")
    with pytest.raises(ValueError, match="need `pooling` 'last'"):
        mean(FLOATS, return_state=True)
    with pytest.raises(ValueError, match="`pooling` must be one of 'last', 'mean'"):
        SequenceClassifier(layers.LSTM(4), 3, pooling="sum")
    with pytest.raises(ValueError, match="`pooling` must be left out with `return_sequences"):
        SequenceClassifier(layers.LSTM(4), 3, pooling="mean", return_sequences=True)


class Summing(keras.layers.Layer):
    """A user's layer, which knows nothing of masks."""

    output_units = WIDTH

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_initial_state(self, batch_size):
        return keras.ops.zeros((batch_size, WIDTH))

    def call(self, x, initial_state=None, return_state=False):
        x = keras.ops.cumsum(x, axis=1)
        return (x, x[:, -1]) if return_state else x


def test_a_core_that_knows_nothing_of_masks():
    """Its answers are right; its state is refused by name."""
    model, x, y = made("classifier", Summing())
    check_losses(model, padded(x), x, y)
    lanes = LanguageModel(7, WIDTH, Summing(name="mine"), carry_state=True)
    lanes.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match="a Summing .layer 'mine'. is asked for its state"):
        lanes.train_on_batch(padded(IDS), NEXT)


def test_pooling_is_a_setting_of_the_zoo():
    model = zoo.gru_seq_mnist(units=4, pooling="attention")
    assert model.pooling == "attention"
