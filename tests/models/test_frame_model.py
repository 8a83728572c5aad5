"""FrameModel: its loss, padding, training, state, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_checks import check_chunks

from keras_seq import pipelines, zoo
from keras_seq.layers import RTransformer
from keras_seq.models import FrameModel

SHAPES = ((2, None, 5), (2, None, 5), (2, None))


def small(**options):
    core = RTransformer(units=8, levels=1, window=3, heads=2, span=32, seed=1)
    model = FrameModel(core, notes=5, seed=1, **options)
    model.build((None, None, 5))
    return model


@pytest.fixture
def tunes():
    rng = np.random.default_rng(0)
    frames = (rng.random((4, 8, 5)) < 0.4).astype("float32")
    lengths = np.array([7, 4, 2, 0])  # the last one fills the batch up
    weights = (np.arange(7)[None] < lengths[:, None]).astype("float32")
    return frames[:, :-1], frames[:, 1:], weights


def frame_losses(model, x, y):
    logits = ops.convert_to_numpy(model(x)).astype("float64")
    p = 1 / (1 + np.exp(-logits))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(-1)


@pytest.mark.parametrize("sum_over_time", [False, True])
def test_loss_and_metric(sum_over_time, tunes):
    x, y, weights = tunes
    model = small(sum_over_time=sum_over_time)
    model.compile("sgd")
    figures = model.evaluate(x, y, sample_weight=weights, batch_size=4, verbose=0, return_dict=True)
    losses = frame_losses(model, x, y) * weights
    mean = losses.sum() / weights.sum()
    np.testing.assert_allclose(figures["nll_per_frame"], mean, rtol=1e-5)
    expected = losses.sum() / 3 if sum_over_time else mean  # three tunes that have frames
    np.testing.assert_allclose(figures["loss"], expected, rtol=1e-5)


def test_frames_count_the_same_in_batches_of_every_length(tunes):
    x, y, weights = tunes
    model = small()
    model.compile("sgd")
    batches = [(x[:2], y[:2], weights[:2]), (x[2:, :2], y[2:, :2], weights[2:, :2])]
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tuple(tf.TensorSpec(s) for s in SHAPES)
    )
    data = data.apply(tf.data.experimental.assert_cardinality(2))
    figures = model.evaluate(data, verbose=0, return_dict=True)
    mean = (frame_losses(model, x, y) * weights).sum() / weights.sum()
    np.testing.assert_allclose([figures["nll_per_frame"], figures["loss"]], mean, rtol=1e-5)


def test_large_logits_are_exact():
    model = small()
    logits = np.array([[[300.0, -300.0, 0.0, 0.0, 0.0]]], "float32")
    y = np.array([[[0.0, 1.0, 0.0, 1.0, 0.0]]], "float32")
    losses = ops.convert_to_numpy(model.element_losses(y, logits))
    np.testing.assert_allclose(losses, [[600 + 3 * np.log(2)]], rtol=1e-6)


def test_padding_has_no_gradient(tunes):
    x, y, weights = tunes
    model = small()

    def gradients(x, y):
        with tf.GradientTape() as tape:
            terms = model.loss_terms(x, y, weights, training=True)
            loss = tf.reduce_sum(terms.objective * terms.weights)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_weights)]

    noise = np.where(weights[..., None] > 0, 0, 3).astype("float32")
    for a, b in zip(gradients(x, y), gradients(x + noise, y + noise), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_state_config_and_saving(tunes, tmp_path):
    x = tunes[0]
    model = small()
    check_chunks(model, x, [3, 1, 3])
    again = FrameModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)
    model.export(str(tmp_path / "export"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(served.serve(x[:, :4]), model(x[:, :4]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`notes` must be positive"):
        FrameModel(model.core, notes=0)


@pytest.mark.slow
def test_learns_real_tunes(shared_data):
    """A small model on buckets of short chorales, traced once."""
    data = pipelines.load("jsb_chorales", shared_data, batch_size=8, buckets=2)
    model = zoo.rtransformer_nottingham(units=16, levels=1, heads=2, window=4, span=160)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(data.train.take(8), epochs=2, verbose=0).history["nll_per_frame"]
    assert history[1] < 0.7 * history[0]
