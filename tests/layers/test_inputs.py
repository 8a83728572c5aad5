"""Every layer says in words which inputs it takes, and takes whole numbers as floats."""

import inspect

import keras
import numpy as np
import pytest
from small_layers import (
    CAUSAL,
    PARTS,
    WIDTH,
    call_part,
    each_of,
    public_layers,
    sequence,
)

from keras_seq import layers, models

every_causal = pytest.mark.parametrize("name", each_of(CAUSAL))
every_part = pytest.mark.parametrize("name", each_of(PARTS))


def test_every_public_layer_is_here():
    assert {name.split(",")[0] for name in CAUSAL} | set(PARTS) == public_layers()
    causal = {
        name
        for name in layers.__all__
        if inspect.isclass(kind := getattr(layers, name)) and issubclass(kind, layers.CausalLayer)
    }
    assert causal - {"CausalLayer"} == {name.split(",")[0] for name in CAUSAL}


@every_causal
@pytest.mark.parametrize("built", [False, True])
def test_causal_layers_refuse_other_shapes(name, built):
    layer = CAUSAL[name]()
    if built:
        layer.build((None, None, WIDTH))
    for shape in ((2, WIDTH), (2, 3, 4, WIDTH)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(b, t, d\)") as refused:
            layer(np.zeros(shape, "float32"))
        assert f"x of shape {shape}" in str(refused.value)
    with pytest.raises(ValueError, match="with d known"):
        CAUSAL[name]()(keras.Input((3, None)))
    if built:
        with pytest.raises(ValueError, match=f"with d = {WIDTH}, for which the"):
            layer(x=np.zeros((2, 3, WIDTH + 2), "float32"))


@every_part
def test_parts_refuse_other_shapes(name):
    layer = PARTS[name]()
    call_part(layer, sequence())
    with pytest.raises(ValueError, match=rf"with d = {WIDTH}, for which the .*\(2, .*10\)"):
        call_part(layer, np.zeros((2, 3, WIDTH + 2), "float32"))
    if layer.axes == ("b", "t", "d"):
        with pytest.raises(ValueError, match=r"`x` must have shape \(b, t, d\). Received: x of"):
            call_part(layer, np.zeros((2, 3, 4, WIDTH), "float32"))


@pytest.mark.parametrize("name", each_of([*CAUSAL, *PARTS]))
def test_whole_numbers_are_floats(name):
    make, call = (
        (CAUSAL[name], lambda layer, x: layer(x)) if name in CAUSAL else (PARTS[name], call_part)
    )
    layer = make()
    x = np.random.default_rng(0).integers(0, 2, (2, 3, WIDTH))
    want = np.asarray(call(layer, x.astype("float32")))
    for dtype in ("int64", "uint8", "bool"):
        np.testing.assert_array_equal(np.asarray(call(layer, x.astype(dtype))), want, err_msg=dtype)


def test_whole_numbers_are_floats_to_dropouts():
    x = np.random.default_rng(0).integers(0, 3, (2, 3, WIDTH))
    for dropout, more in (
        (layers.VariationalDropout(0.5), {}),
        (layers.EmbeddingDropout(0.5, 4), {"ids": x[..., 0]}),
    ):
        y = dropout(x, **more, training=True)
        assert y.dtype == "float32"
        assert np.max(y) > np.max(x)
    with pytest.raises(ValueError, match=r"`x` must have shape \(..., t, d\)"):
        layers.VariationalDropout(0.5)(x[0, 0])


def test_frames_of_whole_numbers():
    """A model's answer does not depend on the type in which frames are given."""
    model = models.FrameModel(layers.TCN(8, 2), notes=5)
    frames = np.random.default_rng(0).integers(0, 2, (2, 9, 5))
    want = np.asarray(model(frames.astype("float32")))
    for dtype in ("int32", "uint8", "bool"):
        np.testing.assert_array_equal(np.asarray(model(frames.astype(dtype))), want)
    functional = keras.Sequential([keras.Input((None, 5), dtype="int32"), layers.TCN(4, 2)])
    want = np.asarray(functional.layers[0](frames.astype("float32")))
    np.testing.assert_allclose(functional(frames.astype("int32")), want, rtol=1e-6)


def test_a_mask_outlives_the_cast():
    masking = keras.layers.Masking(mask_value=0)
    layer = layers.RTransformer(8, levels=1, window=2, heads=2)
    x = np.random.default_rng(0).integers(1, 4, (2, 5, WIDTH))
    x[:, 3:] = 0
    want = np.asarray(layer(masking(x.astype("float32"))))
    np.testing.assert_allclose(layer(masking(keras.ops.convert_to_tensor(x))), want, rtol=1e-6)
