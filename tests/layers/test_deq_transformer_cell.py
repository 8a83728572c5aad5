"""The cell of the deep equilibrium transformer: memory, masks, and training with it carried."""

import keras
import numpy as np
import pytest
from layer_checks import check_causal, check_chunks, check_config, check_gradients, check_jit

from keras_seq.layers import DeepEquilibrium, DEQTransformerCell
from keras_seq.models import LanguageModel

RNG = np.random.default_rng(5)
TIGHT = {"tolerance": 1e-6, "max_steps": 100}


def core(dtype="float32", solver=None, **options):
    # A strong injection, with which f contracts from the start.
    strong = keras.initializers.RandomNormal(stddev=3.0, seed=1)
    kernels = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=2)
    options = {"heads": 2, "inner_units": 12, "injection_initializer": strong, **options}
    options = {"kernel_initializer": kernels, **options}
    return DeepEquilibrium(
        DEQTransformerCell(8, **options, dtype=dtype), **(solver or TIGHT), dtype=dtype
    )


@pytest.mark.parametrize("normalize_first", [False, True])
def test_chunks_equal_the_whole(normalize_first):
    x = RNG.normal(size=(2, 8, 6)).astype("float32")
    layer = core(memory_length=8, normalize_first=normalize_first)
    layer(x)
    check_chunks(layer, x, [3, 1, 4], rtol=1e-2)
    layer = core(memory_length=2, span=3, normalize_first=normalize_first)
    layer(x)
    check_chunks(layer, x, [3, 1, 1, 3], rtol=1e-2)


def test_causal_compiled_and_differentiable():
    x = RNG.normal(size=(2, 5, 6)).astype("float32")
    layer = core(weight_normalization=True)
    layer(x)
    check_causal(layer, x, at=3)
    check_jit(layer, x, rtol=1e-3)
    solver = {"name": "broyden", "memory": 80}
    tight = {"tolerance": 1e-11, "max_steps": 300, "solver": solver}
    layer = core("float64", tight, memory_length=2)
    layer(x)
    check_gradients(layer, x[:1, :3].astype("float64"), probes=1)
    check_config(DEQTransformerCell(8, 2, 12, memory_length=3, span=4, hidden_dropout=0.1))


def test_a_longer_memory_in_inference():
    layer = core(memory_length=2, inference_memory_length=4)
    x = RNG.normal(size=(1, 3, 6)).astype("float32")
    _, state = layer(x, return_state=True)
    assert state["hidden"].shape == (1, 4, 8)
    np.testing.assert_array_equal(state["valid"], [[0, 1, 1, 1]])
    far = {**state, "hidden": np.array(state["hidden"])}
    far["hidden"][:, :2] += 1  # beyond the memory of training
    for training, equal in ((True, True), (False, False)):
        one = layer(x, initial_state=state, training=training)
        other = layer(x, initial_state=far, training=training)
        assert np.allclose(one, other, atol=1e-4) == equal


def test_masks_stay_the_same_within_a_call():
    cell = DEQTransformerCell(
        8, 2, 12, hidden_dropout=0.5, attention_dropout=0.3, position_dropout=0.3, seed=1
    )
    cell.build((None, None, 8), (None, None, 6))
    x, z = RNG.normal(size=(2, 4, 6)).astype("float32"), np.ones((2, 4, 8), "float32")
    masks = cell.get_masks(2)
    one, other = (cell.iterate(z, cell.prepare(x, masks=masks)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - cell.iterate(z, cell.prepare(x, training=True))).max() > 1e-3
    # Each mask reaches the value.
    plain = cell.iterate(z, cell.prepare(x))
    for name, mask in masks.items():
        dropped = cell.iterate(z, cell.prepare(x, masks={name: mask}))
        assert np.abs(dropped - plain).max() > 1e-4, name


def test_language_model_trains_with_the_memory_carried(tmp_path):
    keras.utils.set_random_seed(0)
    layer = core(
        solver={"tolerance": 1e-2, "max_steps": 8, "inference_max_steps": 12},
        memory_length=4,
        inference_memory_length=6,
        hidden_dropout=0.05,
        attention_dropout=0.05,
        weight_normalization=True,
        injection_initializer=keras.initializers.RandomNormal(stddev=2.0),
    )
    model = LanguageModel(11, 6, layer, head="softmax", carry_state=True)
    model.compile(keras.optimizers.Adam(1e-2))
    ids = np.tile(np.arange(11), 30)[: 8 * 33].reshape(8, 33)
    x = np.concatenate([ids[:, i : i + 8] for i in range(0, 32, 8)])
    y = np.concatenate([ids[:, i + 1 : i + 9] for i in range(0, 32, 8)])
    history = model.fit(x, y, batch_size=8, epochs=8, verbose=0, shuffle=False).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)["tokens"] == x.size
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again(x[:2]), model(x[:2]), atol=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="divisible by `heads`"):
        DEQTransformerCell(9, 2, 4)
    with pytest.raises(ValueError, match="`memory_length` must be"):
        DEQTransformerCell(8, 2, 4, memory_length=-1)
    with pytest.raises(ValueError, match="3 \\* units"):
        DEQTransformerCell(8, 2, 4, inject=False).build((None, None, 8), (None, None, 8))
