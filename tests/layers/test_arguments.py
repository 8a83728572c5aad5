"""Arguments: NumPy's numbers are as good as Python's; Keras' image format does not matter."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from small_layers import WIDTH, sequence

from keras_seq import layers, models, optimizers, solvers

# Arguments are noted as Python's numbers, which NumPy's are not to a checker of types.
numpy: Any = np
eight, tenth, pair = numpy.int64(8), numpy.float32(0.1), numpy.array([1, 2])
cases = {
    "TCN": lambda: layers.TCN(eight, numpy.int32(2), dropout=tenth, dilation_rates=pair),
    "TCN, widths": lambda: layers.TCN((eight, 4)),
    "LSTM": lambda: layers.LSTM(eight, weight_dropout=tenth, seed=numpy.int64(3)),
    "TrellisNet": lambda: layers.TrellisNet(eight, eight, numpy.int64(3), dilation_rate=(eight, 1)),
    "Transformer": lambda: layers.Transformer(eight, numpy.int64(1), numpy.int64(2), span=eight),
    "SelfAttention": lambda: layers.SelfAttention(numpy.int64(2), span=eight),
    "LocalRNN": lambda: layers.LocalRNN(eight, window=numpy.int16(3)),
    "DeepEquilibrium": lambda: layers.DeepEquilibrium(
        layers.DEQTrellisCell(eight, numpy.int64(3)),
        max_steps=eight,
        tolerance=numpy.float32(1e-3),
        correction_steps=[numpy.int64(2)],
    ),
    "AdaptiveSoftmax": lambda: layers.AdaptiveSoftmax(eight, cutoffs=numpy.array([2, 4])),
    "LanguageModel": lambda: models.LanguageModel(
        eight, eight, layers.PRU(eight), output_dropout=tenth, history=numpy.int64(1)
    ),
    "FrameModel": lambda: models.FrameModel(layers.TCN(4, 2), notes=eight, input_dropout=tenth),
    "Adam": lambda: optimizers.Adam(numpy.float32(1e-3), clipnorm=numpy.float64(1), l2=tenth),
    "RAdam": lambda: optimizers.RAdam(learning_rate=tenth),
    "Anderson": lambda: solvers.Anderson(memory=numpy.int64(3)),
}


@pytest.mark.parametrize("name", cases)
def test_numbers_of_numpy(name):
    made = cases[name]()
    config = json.dumps(made.get_config())
    again = type(made).from_config(json.loads(config))
    assert json.dumps(again.get_config()) == config


def test_what_is_no_integer_is_refused():
    wrongs: list[Any] = [numpy.bool_(True), True, numpy.float32(8), 8.0, "8"]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="`units` must be an integer of at least 1. Received"):
            layers.LSTM(wrong)


def test_format_of_images_does_not_matter():
    layer = layers.TCN(6, 2)
    want = layer(sequence())
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_array_equal(layer(sequence()), want)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("make", [layers.TCN, layers.FeedForward], ids=["TCN", "FeedForward"])
def test_an_activation_with_weights_is_saved(make, tmp_path):
    activation = keras.layers.PReLU(shared_axes=[1], alpha_initializer="ones")
    layer = make(8, **({"levels": 2} if make is layers.TCN else {}), activation=activation)
    x = keras.Input((None, WIDTH))
    model = keras.Model(x, layer(x))
    activation.set_weights([np.linspace(0, 1, 8).reshape(1, 8)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(loaded(sequence()), model(sequence()), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: layers.TransformerXL(1, 2, 8, **options),
        lambda **options: layers.DEQTransformerCell(8, 2, 8, **options),
    ],
)
def test_the_order_of_norms_under_its_name_of_before(make):
    """As a keyword, and in a configuration that was saved."""
    layer = make(normalize_first=True)
    assert layer.norm_order == "pre"
    assert make(normalize_first=False).norm_order == make().norm_order == "post"
    config = layer.get_config()
    del config["norm_order"]
    assert type(layer).from_config({**config, "normalize_first": True}).norm_order == "pre"
    with pytest.raises(ValueError, match="`norm_order` must be one of"):
        make(norm_order="first")
