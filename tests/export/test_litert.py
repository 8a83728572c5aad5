"""Exports as LiteRT files, loaded in a process with TensorFlow alone."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from export.bare import Bare
from export.test_zoo_models import DOCS, build, inputs_of, shipped
from generation.small_models import letters, trellis_model
from keras import ops

from keras_seq import layers
from keras_seq._backend import portable_operations
from keras_seq.export import export_model
from keras_seq.models import LanguageModel
from keras_seq.ops.halves import halves
from keras_seq.ops.scan import scan
from keras_seq.pipelines import Vocabulary
from keras_seq.solvers._backend import carried, own_zeros, write_rows

WHOLE = ["log_probs", "step", "initial_state"]


class OneDiagonal(layers.TrellisNet):
    """A core with an operation that LiteRT does not have."""

    def call(self, x, initial_state=None, return_state=False, training=None, masks=None):
        products = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        x = x + 0 * ops.expand_dims(ops.diagonal(products, axis1=1, axis2=2), 2)
        return super().call(x, initial_state, return_state, training=training, masks=masks)


def described(folder) -> dict:
    return json.loads((folder / "assets.extra" / "keras_seq.json").read_text())


def check(model, folder, bare: Bare, length: int) -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, model.vocabulary_size, (2, length)).astype("int32")
    signatures = list(described(folder)["signatures"])
    both, first = (keras.ops.convert_to_numpy(model(ids[:rows], training=False)) for rows in (2, 1))
    if "log_probs" in signatures:
        bare.ask(folder, "lite", "log_probs", {"ids": ids})
        bare.ask(folder, "lite", "log_probs", {"ids": ids[:1, :3]})
    bare.ask(folder, "lite_stream", ids[:1])
    *whole, steps = bare.run()
    for answer, want in zip(whole, (both, first[:, :3]), strict=False):
        np.testing.assert_allclose(answer["log_probs"], want, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(steps, first, rtol=1e-5, atol=2e-5)


def test_a_language_model(tmp_path):
    model = trellis_model(10)
    folder = export_model(model, letters(), tmp_path, name="tiny", format="litert")
    assert {path.name for path in folder.iterdir()} == {"model.tflite", "assets", "assets.extra"}
    vocabulary = Vocabulary.load(folder / "assets" / "vocabulary.txt")
    assert vocabulary.tokens == letters().tokens
    description = described(folder)
    assert description["format"] == "litert" and description["left_out"] == {}
    assert list(description["signatures"]) == WHOLE
    assert description["signatures"]["step"]["inputs"]["ids"]["shape"] == [1, 1]
    assert description["signatures"]["log_probs"]["inputs"]["ids"]["shape"] == [None, None]
    check(model, folder, Bare(tmp_path), 9)


@pytest.mark.parametrize(
    "name",
    [
        "awd_pru_ptb_word",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "awd_lstm_ptb_word",
                "gru_ptb_word",
                "deq_trellisnet_wt103",
                "rtransformer_nottingham",
                "deq_transformer_copy_memory",
            )
        ),
    ],
)
def test_the_export_of_keras(tmp_path, name):
    """`model.export(format="litert")`: no operation of TensorFlow alone, and the right answers."""
    model = build(name)
    model.export(str(tmp_path / "model.tflite"), format="litert", verbose=False)
    x = inputs_of(model, 9, np.random.default_rng(4))
    bare = Bare(tmp_path)
    bare.ask(tmp_path, "lite_whole", x, x[:1, :3])
    (answers,) = bare.run()
    for answer, given in zip(answers, (x, x[:1, :3]), strict=True):
        want = keras.ops.convert_to_numpy(model(given, training=False))
        np.testing.assert_allclose(answer, want, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_int8(tmp_path):
    model = trellis_model(10)
    plain = export_model(model, None, tmp_path, format="litert")
    small = export_model(model, None, tmp_path, format="litert", weights_as="int8")
    # Not among the versions that a server polls.
    assert (small.parent.name, small.name) == (f"{model.name}_litert", "2")
    assert described(small)["weights_as"] == "int8"
    files = [folder / "model.tflite" for folder in (plain, small)]
    assert files[1].stat().st_size < files[0].stat().st_size


def test_options_that_do_not_fit(tmp_path):
    model = trellis_model(10)
    with pytest.raises(ValueError, match="float32 or int8 weights"):
        export_model(model, None, tmp_path, format="litert", weights_as="bfloat16")
    with pytest.raises(ValueError, match="`format` must be one of"):
        export_model(model, None, tmp_path, format="onnx")


@pytest.mark.slow
def test_a_model_that_cannot_be_one_is_refused(tmp_path):
    """With the operations that are missing; no version is left behind."""
    model = LanguageModel(7, 6, OneDiagonal(units=4, output_units=6, levels=2))
    with pytest.raises(ValueError, match="cannot be a LiteRT file.*step: .*MatrixDiagPart"):
        export_model(model, None, tmp_path, name="odd", format="litert")
    assert not list((tmp_path / "odd").iterdir())


def test_operations_of_tensorflow_alone_are_kept_out():
    """What solvers, pyramids and loops over time use elsewhere, and the same values without it."""
    rows, turns = tf.reshape(tf.range(6.0), (2, 3)), tf.range(3)

    def run():
        buffer = write_rows(own_zeros((2, 4, 3), "float32"), rows, 1)
        (last, _), (sums, _) = scan(
            lambda carry, turn: ((carry[0] + rows * tf.cast(turn, "float32"), carry[1]),) * 2,
            (tf.zeros((2, 3)), rows),
            turns,
        )
        return buffer, last, sums, *halves(tf.reshape(rows, (3, 2))), carried(rows)

    usual = tf.function(run).get_concrete_function()
    with portable_operations():
        portable = tf.function(lambda: run()).get_concrete_function()
    for one, other in zip(usual(), portable(), strict=True):
        np.testing.assert_array_equal(one, other)

    def operations(function):
        library = function.graph.as_graph_def().library.function
        inner = {node.op for body in library for node in body.node_def}
        return inner | {op.type for op in function.graph.get_operations()}

    own = {"Empty", "InplaceUpdate", "Bitcast", "TensorListReserve"}
    assert own <= operations(usual)
    assert not own & operations(portable)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCS)
def test_models_of_the_documentation(tmp_path, name):
    model, vocabulary = shipped(name)
    folder = export_model(model, vocabulary, tmp_path, name=name, format="litert")
    assert list(described(folder)["signatures"]) == WHOLE
    assert described(folder)["left_out"] == {}
    check(model, folder, Bare(tmp_path), 20)
