"""DEQ-Transformers of the zoo: their sizes, and a tiny one through everything."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from released_weights import command_to_convert, released
from typer.testing import CliRunner

from keras_seq import convert, training, zoo
from keras_seq.cli.app import app
from keras_seq.training.evaluation import evaluate_model

TINY = {
    "model.units": 16,
    "model.heads": 2,
    "model.inner_units": 24,
    "model.max_steps": 4,
    "data.length": 16,
}


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("variant", [None, "pre_norm_regularized"])
def test_wikitext_models_have_the_released_size(variant, golden):
    recipe = zoo.recipe("deq_transformer_wt103", variant)
    counts = json.loads((golden / "parameter_counts.json").read_text())
    assert recipe.parameters == counts["deq_transformer_wt103"]["parameters"]


def test_wikitext_figures():
    """Those of Table 3, and the repository's for its regularised models."""
    figures = {
        None: (23.2, "Table 3"),
        "small": (32.4, "Table 3"),
        "medium": (24.2, "Table 3"),
        "regularized": (23.8, "repository"),
        "pre_norm_regularized": (None, "release"),
    }
    for variant, (value, source) in figures.items():
        reported = zoo.recipe("deq_transformer_wt103", variant).reported
        assert reported.value == value and source in reported.source


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


@pytest.mark.slow
def test_adaptive_model_trains_and_takes_weights_of_the_release():
    model = adaptive(seed=1)
    model.compile(keras.optimizers.Adam(1e-2))
    ids = np.random.default_rng(0).integers(0, 40, (4, 6))
    loss = model.fit(ids, ids, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    again = adaptive(seed=2)
    convert.load_reference(again, released(model))
    np.testing.assert_allclose(again(ids), model(ids), atol=1e-5)


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    letters = np.random.default_rng(0).integers(ord("a"), ord("m"), 330).astype("uint8").tobytes()
    for name, part in zip(
        ("train", "valid", "test"), (letters[:210], letters[210:280], letters[280:]), strict=True
    ):
        (folder / f"{name}.txt").write_bytes(part)
    return folder


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """A run of two steps, in the middle of its first epoch."""
    recipe = zoo.recipe("deq_transformer_python_docs").replace(
        **{
            **TINY,
            "data.name": "text",
            "data.batch_size": 4,
            "data.eval_batch_size": 2,
            "data.length": 8,
            "data.options": {"cache_dir": False},
            "jit_compile": False,
            "model.memory_length": 4,
            "model.inference_memory_length": 12,
            "model.solver": "broyden",
            "model.inference_max_steps": 100,
            "model.tolerance": 1e-5,
        }
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    return training.train(recipe, text, folder, max_steps=2, verbose=0)


@pytest.mark.slow
def test_evaluation_has_a_longer_memory_and_more_steps_than_training(run):
    row = run.history[-1]
    assert row["step"] == 2 and row["equilibrium_steps"] == TINY["model.max_steps"]
    assert row["val_equilibrium_steps"] > TINY["model.max_steps"]
    figures = training.evaluate(run)
    assert figures["tokens"] == 50 and figures["equilibrium_steps"] > TINY["model.max_steps"]
    # The longer memory is seen: with that of training the figure is another one.
    short = zoo.build(run.recipe.replace(**{"model.inference_memory_length": 4}))
    short.set_weights(run.load_model().get_weights())
    short.compile()
    found = evaluate_model(short, run.data(), "test")
    assert found["tokens"] == 50
    assert abs(found["nll"] - figures["nll"]) > 1e-5


@pytest.mark.slow
def test_generate_export_describe(run, tmp_path):
    made = call("generate", run.folder, "--prompt", "abc", "--length", "5", "--seed", "1")
    assert made.exit_code == 0, made.output
    exported = call("export", run.folder, "--to", tmp_path / "served", "--json")
    assert exported.exit_code == 0, exported.output
    served = tf.saved_model.load(json.loads(exported.stdout)["path"])
    names = {"serving_default", "log_probs", "text", "generate", "initial_state", "step"}
    assert names <= set(served.signatures)
    # Two pieces by the signature `step` are the model on the whole.
    ids = tf.constant([[1, 2, 3, 4, 5]], tf.int32)
    model = run.load_model()
    whole = np.asarray(keras.ops.log_softmax(model(ids)))
    state = served.signatures["initial_state"](batch_size=tf.constant(1))
    pieces = []
    for piece in (ids[:, :3], ids[:, 3:]):
        state = served.signatures["step"](ids=piece, **state)
        pieces.append(np.asarray(state.pop("log_probs")))
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-2)
    assert call("describe", "deq_transformer_python_docs").exit_code == 0


@pytest.mark.slow
def test_convert(run, text, tmp_path):
    """Weights under the release's names, from file to figures."""
    arguments = command_to_convert(run, tmp_path)
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    figures = training.evaluate(arguments[-1], text)
    assert figures["nll"] == pytest.approx(training.evaluate(run)["nll"], rel=1e-5)
