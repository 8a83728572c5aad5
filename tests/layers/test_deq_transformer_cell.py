"""The cell of the deep equilibrium transformer: memory, masks, and training with it carried."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_causal, check_chunks, check_config, check_gradients, check_jit

from keras_seq.layers import DeepEquilibrium, DEQTransformerCell
from keras_seq.models import LanguageModel
from keras_seq.solvers import Status

RNG = np.random.default_rng(5)
TIGHT = {"tolerance": 1e-6, "max_steps": 100}
BROYDEN = {"name": "broyden", "memory": 80}
EXACT = {"tolerance": 1e-11, "max_steps": 300, "solver": BROYDEN}


def core(dtype="float32", solver=None, **options):
    # A strong injection, with which f contracts from the start.
    strong = keras.initializers.RandomNormal(stddev=3.0, seed=1)
    kernels = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=2)
    options = {"heads": 2, "inner_units": 12, "injection_initializer": strong, **options}
    options = {"kernel_initializer": kernels, **options}
    return DeepEquilibrium(
        DEQTransformerCell(8, **options, dtype=dtype), **(solver or TIGHT), dtype=dtype
    )


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_chunks_equal_the_whole(norm_order):
    x = 0.5 * np.random.default_rng(5).normal(size=(2, 6, 6))
    for chunks, options in (
        ([3, 1, 2], {"memory_length": 6}),
        ([3, 1, 2], {"memory_length": 2, "span": 3}),
    ):
        layer = core("float64", EXACT, norm_order=norm_order, **options)
        _, solution = layer(x, return_solution=True)
        assert (np.asarray(solution["status"]) == Status.CONVERGED).all()
        check_chunks(layer, x, chunks, rtol=1e-7)


def test_chunks_differ_where_the_memory_is_too_short():
    """What makes the equality above mean something."""
    x = 0.2 * np.random.default_rng(5).normal(size=(2, 4, 6))  # so that attention is spread
    layer = core("float64", EXACT, memory_length=1, span=3)
    layer(x)
    with pytest.raises(AssertionError):
        check_chunks(layer, x, [2, 2], rtol=1e-2)


def test_causal_and_compiled():
    x = np.random.default_rng(6).normal(size=(2, 5, 6)).astype("float32")
    layer = core(weight_normalization=True)
    layer(x)
    check_causal(layer, x, at=3)
    check_jit(layer, x)
    check_config(DEQTransformerCell(8, 2, 12, memory_length=3, span=4, hidden_dropout=0.1))


def test_gradients_agree_with_differences():
    # A small step: differences are wrong where the relu of a unit has its kink within it.
    x = np.random.default_rng(7).normal(size=(1, 3, 6))
    layer = core("float64", EXACT, memory_length=2)
    _, solution = layer(x, return_solution=True)
    assert (np.asarray(solution["status"]) == Status.CONVERGED).all()
    compiled = tf.function(layer.__call__, autograph=False)
    compiled.trainable_variables = layer.trainable_variables
    check_gradients(compiled, x, step=1e-6, probes=1)


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


@pytest.mark.slow
def test_language_model_trains_with_the_memory_carried(tmp_path):
    """On a stream 0 0 1 1 2 2 ..., in windows of two: what follows is known from before them."""
    layer = core(
        solver={"tolerance": 1e-2, "max_steps": 8, "inference_max_steps": 12},
        memory_length=2,
        inference_memory_length=3,
        hidden_dropout=0.02,
        attention_dropout=0.02,
        weight_normalization=True,
        injection_initializer=keras.initializers.RandomNormal(stddev=2.0, seed=3),
    )
    model = LanguageModel(5, 6, layer, head="softmax", carry_state=True)
    model.compile(keras.optimizers.Adam(2e-2))
    ids = (np.arange(16)[:, None] + np.arange(41)) // 2 % 5
    x = np.concatenate([ids[:, i : i + 2] for i in range(0, 40, 2)])
    y = np.concatenate([ids[:, i + 1 : i + 3] for i in range(0, 40, 2)])
    model.fit(x, y, batch_size=16, epochs=12, verbose=0, shuffle=False)
    figures = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    assert figures["tokens"] == x.size
    # Without memory what follows a window's first step is open, and the loss 1/2 log 2 = 0.35.
    assert figures["nll"] < 0.15
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
