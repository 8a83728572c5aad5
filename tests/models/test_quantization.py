"""Quantized models: their numbers, saving, and what is refused before anything changes."""

import keras
import numpy as np
import pytest
from small_sequence_models import FLOATS, IDS, core, frame_model, language_model, reader

from keras_seq.models import LanguageModel

CASES = {
    "tied": (language_model, IDS),
    "softmax": (lambda: language_model(head="softmax"), IDS),
    "classifier": (lambda: reader("classifier"), FLOATS),
    "regressor": (lambda: reader("regressor"), FLOATS),
    "frames": (frame_model, np.pad(FLOATS, ((0, 0), (0, 0), (0, 3)))),
}


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize("case", CASES)
def test_quantized_models_work_and_load(case, mode, tmp_path):
    make, x = CASES[case]
    model = make()
    before = np.asarray(model(x))
    if mode == "float8" and isinstance(model, LanguageModel):
        with pytest.raises(ValueError, match="`mode` must be one that a layer"):
            model.quantize(mode)
        np.testing.assert_array_equal(model(x), before)
        return
    model.quantize(mode)
    after = np.asarray(model(x))
    assert not np.array_equal(before, after) or mode == "float8"
    np.testing.assert_allclose(after, before, atol={"int8": 0.05, "int4": 0.5, "float8": 0.3}[mode])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), after, atol=1e-6)
    assert again.get_config()["quantized"] == model.get_config()["quantized"]


def test_a_tied_head_reads_the_table_as_the_embedding_does():
    model = language_model()
    model.quantize("int8")
    (table,) = model.tables or []
    np.testing.assert_allclose(table, model.embedding(np.arange(7)), atol=1e-7)
    values = (
        np.asarray(model.embedding.embeddings)
        / np.asarray(model.embedding.embeddings_scale)[:, None]
    )
    np.testing.assert_allclose(table, values, rtol=1e-6)


def test_refused_before_anything_changes():
    model = language_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match="`mode` must be one of 'int8', 'int4', 'float8'"):
        model.quantize(config=keras.quantizers.GPTQConfig([], None))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="built"):
        LanguageModel(7, 4, core()).quantize("int8")
    half = LanguageModel(7, 4, core(), dtype="float16")
    half.build()
    with pytest.raises(ValueError, match="float16"):
        half.quantize("int8")
    mixed = language_model(embedding=keras.layers.Embedding(7, 4, dtype="float16"))
    with pytest.raises(ValueError, match="layers that compute in float32 or bfloat16"):
        mixed.quantize("int8")
    assert mixed.quantized is None
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantized to 'int8' already"):
        model.quantize("int8")
