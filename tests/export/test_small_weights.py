"""Weights stored as int8 or bfloat16."""

import json

import numpy as np
import pytest
import tensorflow as tf
from generation.small_models import contract_model, spread, trellis_model, words

from keras_seq.export import export_model
from keras_seq.export.weights import StoredWeights
from keras_seq.layers import AdaptiveSoftmax, TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier


def large(head="tied") -> LanguageModel:
    core = TrellisNet(units=30, output_units=24, levels=4, weight_normalization=True)
    model = LanguageModel(11, 24, core, head=head)
    model.build()
    return spread(model, 0.3)


def classifier() -> SequenceClassifier:
    model = SequenceClassifier(TrellisNet(units=30, output_units=24, levels=3), classes=12)
    model.build((None, None, 20))
    return spread(model, 0.3)


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """What a stored matrix is restored to."""
    if kind == "bfloat16":
        return tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()
    candidates = []
    for axis in (values.ndim - 1, 0):
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(axis=others, keepdims=True) / 127).astype("float32")
        candidates.append(np.rint(values / scale).astype("float32") * scale)
    return min(candidates, key=lambda made: np.square(made - values).sum())


def folder_size(folder) -> int:
    return sum(path.stat().st_size for path in (folder / "variables").iterdir())


@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
def test_the_graph_computes_with_the_restored_weights(tmp_path, kind):
    """As the Keras model does whose weights were rounded; the model itself is left as it was."""
    model = large()
    before = [weight.copy() for weight in model.get_weights()]
    folder = export_model(model, words(), tmp_path, name="small", weights_as=kind)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    served = tf.saved_model.load(str(folder)).signatures
    ids = np.random.default_rng(1).integers(0, 11, (2, 9)).astype("int32")
    exact = model(ids, training=False).numpy()
    for weight in model.weights:
        if len(weight.shape) > 1 and np.prod(weight.shape) >= 256:
            weight.assign(rounded(np.array(weight), kind))
    want = model(ids, training=False).numpy()
    assert abs(want - exact).max() > 3e-4

    got = served["log_probs"](ids=tf.constant(ids))["log_probs"].numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    state = served["initial_state"](batch_size=tf.constant(2))
    for position in range(9):
        answer = served["step"](ids=tf.constant(ids[:, position : position + 1]), **state)
        state = {key: value for key, value in answer.items() if key != "log_probs"}
        last = answer["log_probs"].numpy()[:, 0]
        np.testing.assert_allclose(last, want[:, position], rtol=1e-5, atol=1e-5)
    text = served["text"](text=tf.constant(["the cat"]))
    ids = [[words().eos_id, *words().encode("the cat").numpy()]]
    want = np.sort(model(np.array(ids), training=False).numpy()[0, -1])[::-1]
    np.testing.assert_allclose(text["scores"].numpy()[0], want[:10], rtol=1e-5, atol=1e-5)
    description = json.loads((folder / "assets.extra" / "keras_seq.json").read_text())
    assert description["weights_as"] == kind


def test_they_are_smaller(tmp_path):
    sizes, types = {}, {}
    for kind in (None, "bfloat16", "int8"):
        folder = export_model(large(), None, tmp_path, name="small", weights_as=kind)
        sizes[kind] = folder_size(folder)
        listed = tf.train.list_variables(str(folder / "variables" / "variables"))
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        kinds = reader.get_variable_to_dtype_map()
        types[kind] = {
            kinds[name].name for name, shape in listed if len(shape) > 1 and np.prod(shape) >= 256
        }
    assert types == {None: {"float32"}, "bfloat16": {"bfloat16"}, "int8": {"int8"}}
    count = large().count_params()
    assert sizes[None] - sizes["bfloat16"] > 1.5 * count
    assert sizes[None] - sizes["int8"] > 2.3 * count


@pytest.mark.slow
@pytest.mark.parametrize("make", [contract_model, classifier, trellis_model])
def test_other_models(tmp_path, make):
    """A model of Keras' own layers, a classifier, and mixed weights of one step."""
    model = classifier() if make is classifier else make(40)
    folder = export_model(model, None, tmp_path, name="other", weights_as="int8")
    served = tf.saved_model.load(str(folder)).signatures["log_probs"]
    rng = np.random.default_rng(2)
    if make is classifier:
        x = rng.normal(size=(2, 7, 20)).astype("float32")
        got = served(x=tf.constant(x))["log_probs"].numpy()
    else:
        x = rng.integers(0, 40, (2, 7)).astype("int32")
        got = served(ids=tf.constant(x))["log_probs"].numpy()
    assert len(StoredWeights(model, "int8")) > 0
    for weight in model.weights:
        if len(weight.shape) > 1 and np.prod(weight.shape) >= 256:
            weight.assign(rounded(np.array(weight), "int8"))
    np.testing.assert_allclose(got, model(x, training=False).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_weights_read_in_a_loop_are_restored_outside_of_it(tmp_path):
    """`generate` steps in a loop, and its stored weights are read as `step` reads them."""
    model = large(AdaptiveSoftmax(11, cutoffs=(4, 8), tied=True))
    folder = export_model(model, words(), tmp_path, name="loop", weights_as="bfloat16")
    served = tf.saved_model.load(str(folder)).signatures
    answer = served["generate"](
        text=tf.constant(["the cat"]),
        length=tf.constant(5),
        temperature=tf.constant(0.0),
        top_k=tf.constant(0),
        seed=tf.constant(0),
    )
    ids = [words().eos_id, *words().encode("the cat").numpy()]
    for made in answer["ids"].numpy()[0]:
        last = served["log_probs"](ids=tf.constant([ids], tf.int32))["log_probs"].numpy()[0, -1]
        assert last[made] == pytest.approx(last.max(), abs=1e-5)
        ids.append(int(made))


def test_unknown_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`weights_as` must be one of"):
        export_model(large(), None, tmp_path, weights_as="int4")
    assert not list(tmp_path.iterdir())
