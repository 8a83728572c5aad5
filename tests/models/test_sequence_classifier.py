"""Models that read a whole sequence: outputs, loss, training, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_chunks, check_config, check_export, check_fresh_process

from keras_seq.layers import TrellisNet
from keras_seq.models import SequenceClassifier, SequenceRegressor


def core(**options) -> TrellisNet:
    return TrellisNet(
        units=5,
        output_units=4,
        levels=4,
        dilation_rate=(1, 2),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=3),
        **options,
    )


def pixels(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, length, 2)).astype("float32")


def classifier(core_options=None, **options) -> SequenceClassifier:
    model = SequenceClassifier(core(**(core_options or {})), classes=3, **options)
    model.build((None, None) if "vocabulary_size" in options else (None, None, 2))
    return model


def test_predicts_from_the_last_step():
    model, x = classifier(), pixels(2, 9)
    log_probs = model(x).numpy()
    assert log_probs.shape == (2, 3)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
    logits = model.dense(model.core(x)[:, -1]).numpy()
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-6)


def test_return_sequences_and_ids():
    model = classifier(vocabulary_size=7, embedding_dim=4, return_sequences=True)
    ids = np.random.default_rng(0).integers(0, 7, (2, 10)).astype("int32")
    assert model(ids).shape == (2, 10, 3)
    check_chunks(model, ids, [4, 1, 5])


def test_configuration_saving_and_export(tmp_path):
    ids = np.random.default_rng(0).integers(0, 7, (2, 10)).astype("int32")
    regressor = SequenceRegressor(core(), outputs=2)
    regressor.build((None, None, 2))
    cases = [
        (classifier(), pixels(2, 9)),
        (classifier(vocabulary_size=7, embedding_dim=4, return_sequences=True), ids),
        (regressor, pixels(2, 9)),
    ]
    for model, _ in cases:
        check_config(model)
    check_fresh_process(cases, tmp_path / "saved")
    check_export(cases[0][0], [pixels(2, 5), pixels(3, 12)], tmp_path / "exported")


def test_deep_supervision_adds_the_weighted_auxiliary_losses():
    model = classifier({"auxiliary_frequency": 2}, auxiliary_weight=0.5)
    x, y = pixels(4, 9), np.array([0, 1, 2, 1])
    main, auxiliary = model(x, return_auxiliary=True)
    assert auxiliary.shape == (4, 2, 3)

    def nll(log_probs):
        return -log_probs[np.arange(4), y].mean()

    expected = nll(main.numpy()) + 0.5 * sum(nll(auxiliary.numpy()[:, m]) for m in range(2))
    loss, _, _ = model._loss(x, y, None, "train", training=True)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)
    loss, _, _ = model._loss(x, y, None, "test", training=False)
    np.testing.assert_allclose(loss.numpy(), nll(main.numpy()), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_classifier_learns(jit_compile):
    x = pixels(64, 12)
    y = (x[:, 3, 0] > 0).astype("int32")
    model = classifier({"hidden_dropout": 0.05}, input_dropout=0.05, output_dropout=0.05)
    model.compile(keras.optimizers.Adam(0.03), jit_compile=jit_compile)
    model.fit(x, y, batch_size=16, epochs=30, verbose=0)
    result = model.evaluate(x, y, verbose=0, return_dict=True)
    assert result["accuracy"] > 0.8
    np.testing.assert_allclose(result["loss"], result["nll"], rtol=1e-5)


def test_regressor_learns_and_reports_the_squared_error():
    x = pixels(64, 8)
    y = x[:, 2, 0] - x[:, 5, 1]
    model = SequenceRegressor(core())
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(x, y, batch_size=16, epochs=25, verbose=0)
    result = model.evaluate(x, y, verbose=0, return_dict=True)
    error = np.square(model.predict(x, verbose=0)[:, 0] - y).mean()
    np.testing.assert_allclose(result["mse"], error, rtol=1e-4)
    assert error < 0.5 * y.var()


def test_an_uneven_last_batch_counts_each_example_once():
    x, y = pixels(7, 6), np.array([0, 1, 2, 1, 0, 0, 2])
    model = classifier()
    model.compile("sgd")
    result = model.evaluate(tf.data.Dataset.from_tensor_slices((x, y)).batch(3), return_dict=True)
    log_probs = model(x).numpy()
    np.testing.assert_allclose(result["nll"], -log_probs[np.arange(7), y].mean(), rtol=1e-5)
    np.testing.assert_allclose(result["accuracy"], (log_probs.argmax(-1) == y).mean(), rtol=1e-5)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="must be given together"):
        classifier(vocabulary_size=7)
    with pytest.raises(ValueError, match="`auxiliary_weight` needs a core"):
        classifier(auxiliary_weight=0.5)
    with pytest.raises(ValueError, match="hidden_dropuot"):
        SequenceClassifier(core(hidden_dropuot=0.5), classes=3)


def test_metrics_of_steps_weigh_every_step_alike():
    """Batches of different lengths, as bucketed data have them."""
    model = classifier(return_sequences=True)
    model.compile("sgd")
    batches = [(pixels(2, t, t), np.zeros((2, t), "int32")) for t in (3, 12)]
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(tf.TensorSpec((2, None, 2)), tf.TensorSpec((2, None), tf.int32)),
    ).apply(tf.data.experimental.assert_cardinality(2))
    result = model.evaluate(data, verbose=0, return_dict=True)
    losses = [-model(x).numpy()[..., 0].ravel() for x, _ in batches]
    np.testing.assert_allclose(result["nll"], np.concatenate(losses).mean(), rtol=1e-5)
