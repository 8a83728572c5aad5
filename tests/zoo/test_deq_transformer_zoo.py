"""DEQ-Transformers of the zoo: their sizes, and a tiny one through everything."""

import json

import keras
import numpy as np
import pytest

from keras_seq import convert, zoo
from keras_seq.training import evaluate, train

TINY = {
    "model.units": 16,
    "model.heads": 2,
    "model.inner_units": 24,
    "model.max_steps": 4,
    "data.length": 16,
}


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("name", ["deq_transformer_copy_memory", "deq_transformer_python_docs"])
def test_small_models_have_their_recipes_size(name):
    recipe = zoo.recipe(name)
    assert parameters(zoo.build(recipe)) == recipe.parameters


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "small", "pre_norm_regularized"])
def test_wikitext_models_have_the_released_size(variant, golden):
    recipe = zoo.recipe("deq_transformer_wt103", variant)
    assert parameters(zoo.deq_transformer_wt103(variant)) == recipe.parameters
    counts = json.loads((golden / "parameter_counts.json").read_text())
    if variant != "small":
        assert recipe.parameters == counts["deq_transformer_wt103"]["parameters"]


@pytest.mark.slow
def test_penn_treebank_size():
    recipe = zoo.recipe("deq_transformer_ptb_word")
    assert parameters(zoo.build(recipe)) == recipe.parameters


def adaptive(**options):
    settings = {
        "vocabulary_size": 40,
        "units": 8,
        "embedding_dim": 8,
        "heads": 2,
        "inner_units": 12,
        "memory_length": 3,
        "cutoffs": [8, 20],
        "div_value": 2,
        "max_steps": 4,
        "inference_max_steps": 6,
        "backward_max_steps": 4,
    }
    return zoo.deq_transformer_wt103(**{**settings, **options})


def test_shared_projections_are_counted_once():
    assert parameters(adaptive()) - parameters(adaptive(tie_projections=True)) == 8 * (4 + 2)


def test_adaptive_model_trains_and_takes_weights_of_the_release():
    model = adaptive(seed=1)
    model.compile(keras.optimizers.Adam(1e-2))
    ids = np.random.default_rng(0).integers(0, 40, (4, 6))
    loss = model.fit(ids, ids, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    names = {}
    for slot in convert.mappings.slots(model):
        for part, name in zip(
            slot.to_reference(np.asarray(slot.variable)), slot.names, strict=True
        ):
            names[convert.reference._readable(name)] = part
    again = adaptive(seed=2)
    convert.load_reference(again, names)
    np.testing.assert_allclose(again(ids), model(ids), atol=1e-5)


def test_train_and_evaluate(tmp_path):
    recipe = zoo.recipe("deq_transformer_python_docs").replace(
        **{
            **TINY,
            "jit_compile": False,
            "model.memory_length": 8,
            "model.inference_memory_length": 16,
            "data.eval_batch_size": 64,
        }
    )
    train(recipe, run_dir=tmp_path / "run", max_steps=2)
    figures = evaluate(tmp_path / "run", split="validation")
    assert 0 < figures["nll"] < 10
