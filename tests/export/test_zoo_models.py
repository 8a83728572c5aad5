"""Every family's models, exported and asked in a process with TensorFlow alone.

Small ones of each family, task and head; and the models of Python's documentation as they ship.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from export.bare import Bare
from generation.small_models import spread, words
from small import EXPORTED, FOUND, asked_names

from keras_seq import zoo
from keras_seq.export import export_model
from keras_seq.layers import DeepEquilibrium
from keras_seq.models import FrameModel, LanguageModel, SequenceRegressor
from keras_seq.pipelines import Vocabulary

EQUAL: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
FIRST = [  # of the default suite
    "trellisnet_ptb_word_mos",
    "transformer_xl_wt103",
    "deq_transformer_python_docs",
    "rtransformer_nottingham",
    "trellisnet_copy_memory",
]
OTHERS = [name for name in EXPORTED if name not in FIRST]
DOCS = [name for name in zoo.names() if name.endswith("_python_docs") and zoo.weights(name)]
TEXTS = [b"", b"The ", "é\x00\n".encode() + b"\xff\xfe", b"def f(x):\n    return " * 200]


def build(name: str):
    """A small model with weights that make its predictions differ."""
    keras.utils.set_random_seed(4)
    model = getattr(zoo, name)(**EXPORTED[name])
    return model if solved(model) else spread(model, 0.5)


def solved(model) -> bool:
    """Whether the model is an equilibrium: fresh weights then have one, others need not."""
    return isinstance(model.core, DeepEquilibrium)


def shipped(name: str):
    """A model of Python's documentation with its trained weights, and its vocabulary."""
    (found,) = zoo.weights(name)
    assert found.vocabulary_file is not None
    vocabulary = Vocabulary.load(found.vocabulary_file)
    settings = FOUND[zoo.recipe(name).family].solved
    return getattr(zoo, name)(weights=found.name, **settings), vocabulary


def inputs_of(model, length: int, rng) -> np.ndarray:
    spec = model.input_spec_for_export()
    if len(spec.shape) == 2:
        return rng.integers(0, model.vocabulary_size, (2, length)).astype("int32")
    return rng.normal(size=(2, length, spec.shape[-1])).astype("float32")


class Asked:
    """Models by name, with what one process answers about all of them."""

    def __init__(self, folder: Path, models: dict[str, tuple], length: int):
        rng = np.random.default_rng(3)
        bare, numbers = Bare(folder), {}
        self.models, self.x = models, {}
        for name, (model, vocabulary) in models.items():
            to = export_model(model, vocabulary, folder, name=name, warmup=False)
            # The memory of a DEQ-Transformer ends somewhere, and beyond it steps see less.
            x = self.x[name] = inputs_of(model, 14 if solved(model) else length, rng)
            argument = "ids" if isinstance(model, LanguageModel) else "x"
            output, time = output_of(model), x.shape[1]
            for key, request in {
                "whole": ("call", output, {argument: x}),
                "default": ("call", "serving_default", {argument: x}),
                "one": ("call", output, {argument: x[:1, :1]}),
                "lengths": ("call", f"{output}_of_lengths", {argument: padded(x), **LENGTHS}),
                "steps": ("stream", output, x, [1] * time),
                "chunks": ("stream", output, x, [5, 1, time - 6]),
                "spoilt": ("spoilt", x[:, :1]),
            }.items():
                numbers[name, key] = bare.ask(to, *request)
            if vocabulary is not None:
                texts = {"text": np.array(TEXTS, dtype=object)}
                numbers[name, "text"] = bare.ask(to, "call", "text", texts)
        answers = bare.run()
        self.answers = {key: answers[number] for key, number in numbers.items()}


LENGTHS = {"lengths": np.array([9, 1], "int32")}


def padded(x) -> np.ndarray:
    """Two rows with what cannot be read behind their lengths."""
    padding = np.arange(x.shape[1]) >= LENGTHS["lengths"][:, None]
    x = x.copy()
    x[padding] = -1 if x.dtype == "int32" else np.nan
    return x


def output_of(model) -> str:
    return "outputs" if isinstance(model, SequenceRegressor) else "log_probs"


def expected(model, x) -> np.ndarray:
    """The Keras model's own answer."""
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    if isinstance(model, FrameModel):  # of logits, the log-probability that a note sounds
        return -np.logaddexp(0, -outputs.astype("float64")).astype("float32")
    return outputs


def check(asked: Asked, name: str) -> None:
    model, vocabulary = asked.models[name]
    x, answer = asked.x[name], {k: v for (n, k), v in asked.answers.items() if n == name}
    want = expected(model, x)
    assert np.ptp(want) > 0.01
    output = output_of(model)
    for key in ("whole", "default"):
        np.testing.assert_allclose(answer[key][output], want, **EQUAL)
    np.testing.assert_allclose(answer["one"][output], expected(model, x[:1, :1]), **EQUAL)
    for row, length in enumerate(LENGTHS["lengths"]):
        alone = expected(model, x[row : row + 1, :length])[0]
        served = answer["lengths"][output][row]
        served = served[:length] if alone.ndim == 2 else served
        np.testing.assert_allclose(served, alone, **EQUAL)
    for key in ("steps", "chunks"):
        np.testing.assert_allclose(answer[key], want, **EQUAL)
    # A NaN is seen by its client and nobody else, or refused where it would be lost.
    plain = answer["spoilt"].pop("")
    for part, given in answer["spoilt"].items():
        if solved(model):
            assert f"`{part}` must not be NaN" in given
        else:
            (kept, own), (want_kept, unread) = given[output], plain[output]
            np.testing.assert_array_equal(kept, want_kept)
            # Attention does not read what its state says is not there.
            assert np.isnan(own).all() or (own == unread).all()
    if "class" in answer["whole"]:
        np.testing.assert_array_equal(answer["whole"]["class"], want.argmax(-1))
    if vocabulary is None:
        return
    tokens, text = np.array(vocabulary.tokens), answer["text"]
    limit = min(1024, model.core.receptive_field or 1024)
    for row, given in enumerate(TEXTS):
        ids = [vocabulary.eos_id, *vocabulary.encode(given).numpy()][-limit:]
        if name == "deq_trellisnet_python_docs":
            # The texts of a request are padded to the longest, and its solver gives up on one of a
            # thousand characters: see docs/serving.md.
            assert np.isfinite(text["scores"][row]).all()
            continue
        last = expected(model, np.array([ids]))[0, -1]
        np.testing.assert_allclose(text["scores"][row], np.sort(last)[::-1][:10], **EQUAL)
        np.testing.assert_array_equal(text["tokens"][row], tokens[text["ids"][row]])
        np.testing.assert_allclose(last[text["ids"][row]], text["scores"][row], **EQUAL)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Asked:
    models = {name: (build(name), words() if name == FIRST[0] else None) for name in FIRST}
    return Asked(tmp_path_factory.mktemp("first"), models, 14)


@pytest.fixture(scope="module")
def others(tmp_path_factory, request) -> Asked:
    models = {name: (build(name), None) for name in asked_names(request)}
    return Asked(tmp_path_factory.mktemp("others"), models, 14)


@pytest.fixture(scope="module")
def docs(tmp_path_factory, request) -> Asked:
    models = {name: shipped(name) for name in asked_names(request)}
    # Longer than the spans of attention and of the memories.
    return Asked(tmp_path_factory.mktemp("docs"), models, 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_small_models(first, name):
    check(first, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_more_small_models(others, name):
    check(others, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCS)
def test_models_of_the_documentation(docs, name):
    check(docs, name)


def test_no_family_is_left_out():
    families = {zoo.recipe(name).family for name in zoo.names()}
    assert {zoo.recipe(name).family for name in (*EXPORTED, *DOCS)} == families
