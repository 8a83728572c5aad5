"""Keras' own test of layers, with its check of masking, on every public layer."""

import keras
import numpy as np
import pytest
from small_layers import CAUSAL, PARTS, WIDTH, each_of, public_layers

from keras_seq import layers

# Private: the one place where it is used.
testing = pytest.importorskip("keras.src.testing", reason="Keras has its test of layers elsewhere")
if not hasattr(testing.TestCase, "run_layer_test"):
    pytest.skip("Keras has its test of layers elsewhere", allow_module_level=True)
CELLS = {"DEQTransformerCell", "DEQTrellisCell", "PRUCell"}
ALONE = [*CAUSAL, *(name for name in PARTS if name not in CELLS)]
STEPS = (2, 5, WIDTH)


class Case(testing.TestCase):
    def runTest(self): ...


def run(make, train: bool = False, **options):
    options = {"supports_masking": True, **options}
    Case().run_layer_test(make, {}, run_training_check=train, **options)


@pytest.mark.parametrize("name", each_of(ALONE))
def test_layers(name):
    make = {**CAUSAL, **PARTS}[name]
    run(make, input_shape=STEPS)
    x = np.ones(STEPS, "float32")
    x[0, 3:] = 0
    outputs = make()(keras.layers.Masking()(x))
    np.testing.assert_array_equal(outputs._keras_mask, x[..., 0] == 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_layers_in_training(name):
    run({**CAUSAL, **PARTS}[name], train=True, input_shape=STEPS)


def test_cells():
    """What takes another tensor besides: a cell of Keras' `RNN`, and those of equilibria."""
    run(
        lambda **options: keras.layers.RNN(PARTS["PRUCell"](**options), **options),
        input_shape=STEPS,
    )
    for name in sorted(CELLS - {"PRUCell"}):
        run(PARTS[name], supports_masking=False, input_shape={"z_shape": STEPS, "x_shape": STEPS})


def test_embeddings_and_dropout():
    def embedding(**options):
        return layers.AdaptiveEmbedding(9, WIDTH, cutoffs=[4], div_value=2, **options)

    def dropout(**options):
        return layers.EmbeddingDropout(0.5, 9, seed=1, **options)

    run(embedding, input_shape=(2, 5), input_dtype="int32")
    ids = np.ones((2, 5), "int32")
    run(
        dropout,
        input_shape=STEPS,
        call_kwargs={"ids": ids},
        expected_output_shape=STEPS,
        run_mixed_precision_check=False,  # it asks for a specification without the ids
    )
    run(lambda **options: layers.VariationalDropout(0.5, **options), True, input_shape=STEPS)


def test_every_public_layer_is_tested():
    assert public_layers() == {name.split(",")[0] for name in ALONE} | CELLS
