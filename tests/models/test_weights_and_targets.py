"""Laws of weights and of targets that every model keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_sequence_models import (
    FLOATS,
    FRAMES,
    IDS,
    RNG,
    core,
    frame_model,
    language_model,
    reader,
)

from keras_seq.layers import AdaptiveSoftmax
from keras_seq.models import SequenceClassifier

NAN = float("nan")


LABELS = RNG.integers(0, 3, (4, 4)).astype("int32")
VALUES = RNG.normal(size=(4, 4, 2)).astype("float32")

REGULARIZED = {"activation_regularization": 2.0, "temporal_activation_regularization": 3.0}

# A model, its inputs, its targets, and whether each step has a loss.
CASES = {
    "regularized": (lambda: language_model(**REGULARIZED), IDS, (IDS + 1) % 7, True),
    "language model": (language_model, IDS, (IDS + 1) % 7, True),
    "classifier": (lambda: reader("classifier"), FLOATS, LABELS[:, 0], False),
    "steps": (lambda: reader("classifier", return_sequences=True), FLOATS, LABELS, True),
    "regressor": (lambda: reader("regressor"), FLOATS, VALUES[:, 0], False),
    "values": (lambda: reader("regressor", return_sequences=True), FLOATS, VALUES, True),
    "frames": (frame_model, FRAMES, FRAMES[:, ::-1], True),
    "tunes": (lambda: frame_model(sum_over_time=True), FRAMES, FRAMES[:, ::-1], True),
}


def step(model, x, y, weights=None, training=True):
    """Loss, own figures and gradients of one step, without an update."""
    with tf.GradientTape() as tape:
        loss, total, terms = model._loss(x, y, weights, "train", training=training)
    gradients = tape.gradient(loss, model.trainable_weights)
    model.reset_metrics()
    figures = model._report(loss, total, terms)
    return loss, figures, [tf.convert_to_tensor(g) for g in gradients]


def check_same(one, other, rtol=1e-5):
    np.testing.assert_allclose(one[0], other[0], rtol=rtol)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], rtol=rtol, err_msg=name)
    for a, b in zip(one[2], other[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_one_alignment_of_weights(case):
    """(b,) and (b, 1) weigh sequences, (b, t) steps, also where b = t; a two is a repeat."""
    make, x, y, each_step = CASES[case]
    model = make()
    weights = np.array([1 if case == "regularized" else 2, 1, 0, 1], "float32")
    rows = np.repeat(range(4), weights.astype(int))
    expected = step(model, x[rows], y[rows])
    shapes = [weights, weights[:, None]]
    if each_step:
        shapes.append(np.repeat(weights[:, None], 4, axis=1))
    for given in shapes[: 2 if case == "tunes" else 3]:
        result = step(model, x, y, given)
        if case != "tunes":  # a tune counts as one, whatever its frames weigh
            check_same(result, expected)
    wrong = [weights[:3], np.ones((4, 4, 1)), np.float32(1), np.ones((4, 3))]
    for given in wrong if each_step else [*wrong, np.ones((4, 4))]:
        with pytest.raises(ValueError, match="`sample_weight` must have shape"):
            step(model, x, y, given)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("each", ["sequence", "step"])
def test_what_has_no_weight_contributes_nothing(case, each):
    """NaN and labels that do not exist, in inputs, targets, figures and gradients."""
    make, x, y, each_step = CASES[case]
    if each == "step" and not each_step:
        pytest.skip("one loss a sequence")
    model = make()
    model.compile("sgd", metrics=[_Finite(name="finite")])
    weights = np.ones((4, 4) if each == "step" else (4,), "float32")
    if each == "step":
        weights[1, 2:] = weights[3] = weights[0, 0] = 0
    else:
        weights[[1, 3]] = 0
    bad_x, bad_y = x.copy(), y.copy()
    no_target = weights == 0
    unread = no_target.copy()
    if each == "step":
        unread[0, 0] = False  # a later step reads it
    bad_y[no_target] = NAN if y.dtype.kind == "f" else -1
    bad_x[unread] = NAN if x.dtype.kind == "f" else -5
    check_same(step(model, bad_x, bad_y, weights), step(model, x, y, weights))
    check_same(step(model, bad_x, bad_y, weights, False), step(model, x, y, weights, False))


@keras.saving.register_keras_serializable("test")
class _Finite(keras.metrics.Mean):
    """The mean of all predictions and targets that it is shown, without a weight of its own."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.mean(y_pred, axis=-1)
        if len(y_true.shape) == len(y_pred.shape):
            values = values + ops.mean(y_true, axis=-1)
        super().update_state(values, sample_weight)


def test_classes_are_weighed_by_each_label():
    table = {0: 0.5, 2: 3.0}
    weights = np.array([table.get(k, 1.0) for k in range(7)], "float32")
    for case in ("language model", "classifier", "steps"):
        make, x, y, _ = CASES[case]
        expected = step(make_same := make(), x, y, weights[y])
        make_same._weigh_classes(table)
        check_same(step(make_same, x, y), expected)
        assert float(step(make_same, x, y, None, False)[0]) != pytest.approx(float(expected[0]))
        with pytest.raises(ValueError, match="`class_weight` must map classes from 0 to"):
            make_same.fit(x, y, class_weight={9: 1.0})
    model = language_model()
    twin = language_model()
    twin.set_weights(model.get_weights())
    for one, options in (
        (model, {"class_weight": table}),
        (twin, {"sample_weight": weights[CASES["language model"][2]]}),
    ):
        one.compile(keras.optimizers.SGD(0.5))
        data = CASES["language model"][1:3]
        one.fit(*data, verbose=0, shuffle=False, batch_size=2, **options)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    regressor = reader("regressor")
    with pytest.raises(ValueError, match="`class_weight` needs a model whose targets are classes"):
        regressor.fit(FLOATS, VALUES[:, 0], class_weight={0: 1.0})


def test_labels_that_do_not_exist_are_refused_in_arrays():
    for case in ("language model", "classifier", "steps"):
        make, x, y, _ = CASES[case]
        model = make()
        model.compile("sgd")
        for value in (-1, 7):
            wrong = y.copy()
            wrong[1] = value
            for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
                with pytest.raises(ValueError, match=r"`y` must hold whole numbers.*y\[1"):
                    call(x, wrong)
            with pytest.raises(ValueError, match="`y` must hold whole"):
                model.fit(x, y, validation_data=(x, wrong))
    with pytest.raises(ValueError, match="`y` must hold whole numbers"):
        model.fit(FLOATS, LABELS + 0.5)
    model = language_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match="`x` must hold whole numbers from 0 to 6"):
        model.predict(IDS - 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model(IDS - 7)


def test_a_label_that_does_not_exist_is_no_number_in_the_graph():
    for case in ("classifier", "steps"):
        make, x, y, _ = CASES[case]
        for value in (-1, 3):
            wrong = y.copy()
            wrong[1] = value
            loss, figures, _ = step(make(), x, wrong)
            assert np.isnan(loss) and np.isnan(figures["nll"])
    for head in ("tied", "softmax", AdaptiveSoftmax(7, cutoffs=[3], tied=True)):
        for value in (-1, 7):
            with pytest.raises(tf.errors.InvalidArgumentError):
                step(language_model(head=head), IDS, np.full_like(IDS, value))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_is_ignored(label):
    for make, x, y in (
        (lambda **o: language_model(**o), IDS, (IDS + 1) % 7),
        (lambda **o: reader("classifier", **o), FLOATS, LABELS[:, 0]),
        (lambda **o: reader("classifier", return_sequences=True, **o), FLOATS, LABELS),
    ):
        model = make(ignore_class=label)
        assert type(model).from_config(model.get_config()).ignore_class == label
        holes = y.copy()
        holes[1] = label
        counts = holes != label
        expected = step(make_twin(model, make), x, np.where(counts, holes, 0), counts)
        check_same(step(model, x, holes), expected)
        model.check_arrays(x, holes)
    with pytest.raises(ValueError, match="`ignore_class` must be an integer"):
        language_model(ignore_class="pad")


def make_twin(model, make):
    twin = make()
    twin.set_weights(model.get_weights())
    return twin


def test_history_and_weights_of_windows():
    """A weight for each token replaces `history`; one for each window does not."""
    model = language_model(history=2)
    y = (IDS + 1) % 7
    weights = np.array([2, 1, 0, 1], "float32")
    tokens = np.repeat(weights[:, None], 4, axis=1)
    expected = step(model, IDS, y, tokens * (np.arange(4) >= 2))
    for given in (weights, weights[:, None]):
        check_same(step(model, IDS, y, given), expected)
    whole = step(make_twin(model, language_model), IDS, y, tokens)
    check_same(step(model, IDS, y, tokens), whole)
    regular = make_twin(model, lambda: language_model(history=2, **REGULARIZED))
    late = np.ones((4, 4), "float32") * (np.arange(4) >= 2)
    check_same(step(regular, IDS, y, late), step(regular, IDS, y))
    early = y.copy()
    early[:, :2] = -1  # they carry no loss
    model.check_arrays(IDS, early)
    check_same(step(model, IDS, early), step(model, IDS, y))


WRONG_TARGETS = {
    "language model": [IDS[:, :3], IDS[0], np.zeros((4, 4, 7)), IDS[..., None]],
    "classifier": [np.eye(3)[LABELS[:, 0]], LABELS, LABELS[:3, 0]],
    "steps": [np.eye(3)[LABELS], LABELS[:, 0], LABELS[:, :3], LABELS[:, :1]],
    "regressor": [VALUES, VALUES[:, 0, 0], VALUES[:, 0, :1], np.zeros((2, 4))],
    "values": [VALUES[:, :2], VALUES.transpose(0, 2, 1), VALUES[..., :1], VALUES[..., 0]],
    "frames": [FRAMES[:, :1], FRAMES[..., :4], FRAMES[..., 0], FRAMES.transpose(0, 2, 1)],
}


@pytest.mark.parametrize("case", WRONG_TARGETS)
def test_targets_of_another_shape_are_refused(case):
    make, x, _, _ = CASES[case]
    model = make()
    for y in WRONG_TARGETS[case]:
        with pytest.raises(ValueError, match="`y` must hold .* for predictions of shape") as told:
            step(model, x, y)
        assert f"Received: y of shape {y.shape}" in str(told.value)


@pytest.mark.parametrize("case", ["regressor", pytest.param("steps", marks=pytest.mark.slow)])
def test_right_targets_after_wrong_ones(case):
    """As in a notebook: what was refused leaves no half-made graph behind."""
    make, x, y, _ = CASES[case]
    model, twin = make(), make()
    twin.set_weights(model.get_weights())
    wrong = WRONG_TARGETS[case][0]
    for each in (model, twin):
        each.compile(keras.optimizers.SGD(0.1))
    for call in (model.evaluate, model.fit, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="`y` must hold"):
            call(x, wrong)
    assert model.evaluate(x, y, verbose=0) == twin.evaluate(x, y, verbose=0)
    assert model.fit(x, y, verbose=0).history == twin.fit(x, y, verbose=0).history
    assert model.train_on_batch(x, y) == twin.train_on_batch(x, y)


def test_targets_with_an_axis_of_size_one():
    for make, x, y in (
        (lambda: reader("classifier"), FLOATS, LABELS[:, 0]),
        (lambda: reader("classifier", return_sequences=True), FLOATS, LABELS),
        (lambda: reader("regressor", outputs=1), FLOATS, VALUES[:, 0, 0]),
        (lambda: reader("regressor", outputs=1, return_sequences=True), FLOATS, VALUES[..., 0]),
    ):
        model = make()
        check_same(step(model, x, y[..., None]), step(model, x, y))


@pytest.mark.slow
def test_sizes_that_the_graph_does_not_know_are_checked_when_it_runs():
    model = frame_model()

    @tf.function(input_signature=[tf.TensorSpec((None, None, 5))] * 2)
    def loss(x, y):
        return model._loss(x, y, None, "test", training=False)[0]

    np.testing.assert_allclose(loss(FRAMES, FRAMES), step(model, FRAMES, FRAMES)[0], rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        loss(FRAMES, FRAMES[:, :1])


def test_inputs_of_another_shape_are_refused():
    for case in ("classifier", "regressor", "frames"):
        model = CASES[case][0]()
        for x in (FLOATS[..., 0], FLOATS[..., None], np.zeros((4, 4, 3), "float32")):
            with pytest.raises(ValueError, match="`inputs` must have shape"):
                model(x)
    with pytest.raises(ValueError, match="`inputs` must have shape"):
        SequenceClassifier(core(), classes=3)(np.zeros((8, 6), "float32"))
    with pytest.raises(ValueError, match="`ids` must be token ids"):
        language_model()(IDS[..., None])


@pytest.mark.parametrize("loss", ["mae", keras.losses.Huber(0.5), keras.losses.cosine_similarity])
@pytest.mark.parametrize("sequences", [False, True])
def test_a_regressor_takes_any_loss(loss, sequences, tmp_path):
    model = reader("regressor", return_sequences=sequences)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    y = VALUES if sequences else VALUES[:, 0]
    weights = np.array([[1, 0, 2, 1]] * 4, "float32")[:, : 4 if sequences else 1]
    result, figures, _ = step(model, FLOATS, y, weights)
    predictions = ops.convert_to_numpy(model(FLOATS))
    function = keras.losses.get(loss)
    function = function.call if isinstance(function, keras.losses.Loss) else function
    each = ops.convert_to_numpy(function(y, predictions))
    aligned = weights if sequences else weights[:, 0]
    np.testing.assert_allclose(result, (each * aligned).sum() / aligned.sum(), rtol=1e-5)
    squares = np.square(predictions - y).mean(-1)
    np.testing.assert_allclose(figures["mse"], (squares * aligned).sum() / aligned.sum(), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(step(again, FLOATS, y, weights)[0], result, rtol=1e-5)


def test_losses_that_are_refused():
    for case in ("language model", "classifier", "frames"):
        with pytest.raises(ValueError, match="`loss` must be left out: a "):
            CASES[case][0]().compile("sgd", loss="mse")
    model = reader("regressor")
    with pytest.raises(ValueError, match="`loss` must not be a sum"):
        model.compile("sgd", loss=keras.losses.Huber(reduction="sum"))
    with pytest.raises(ValueError, match="`loss` must be a loss of Keras"):
        model.compile("sgd", loss=3)
    with pytest.raises(ValueError, match="`loss_weights` must be left out"):
        model.compile("sgd", loss="mae", loss_weights=[2.0])
    model.compile("sgd", loss=lambda y, p: ops.mean(y - p))
    with pytest.raises(ValueError, match="`loss` must give one loss for each prediction"):
        step(model, FLOATS, VALUES[:, 0])


def test_every_part_of_a_built_model_is_built():
    for case in CASES:
        model = CASES[case][0]()
        own = [layer for layer in model.layers if layer is not model.core]
        assert all(layer.built for layer in own), case


def test_an_unbuilt_reader_trains_compiled():
    model = SequenceClassifier(core(), classes=3)
    model.compile("sgd", jit_compile=True)
    model.fit(FLOATS, LABELS[:, 0], verbose=0)
    assert model.built


def test_the_bar_shows_whole_tokens(capsys):
    model = language_model()
    model.compile("sgd")
    model.fit(IDS, IDS, validation_data=(IDS, IDS))
    model.evaluate(IDS, IDS, verbose=2)
    shown = capsys.readouterr().out
    assert "tokens: 16 " in shown and "val_tokens: 16\n" in shown
    assert "tokens: 16.0" not in shown
