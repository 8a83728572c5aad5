"""The zoo of pyramidal recurrent units: sizes of the paper, settings, variants."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq import optimizers, zoo
from keras_seq.export import export_model
from keras_seq.generation import generate_ids
from keras_seq.layers import LSTM, PRU, VariationalDropout

# Our name and variant, and the reference code's configuration in parameter_counts.json.
REFERENCE = {
    ("pru_ptb_word", "g1"): "pru_ptb_g1",
    ("pru_ptb_word", "g2"): "pru_ptb_g2",
    ("pru_ptb_word", "g4"): "pru_ptb_g4",
    ("pru_ptb_word", None): "pru_ptb_g4",
    ("pru_wikitext2", "g1"): "pru_wt2_g1",
    ("pru_wikitext2", "g2"): "pru_wt2_g2",
    ("pru_wikitext2", "g4"): "pru_wt2_g4",
    ("pru_wikitext2", None): "pru_wt2_g4",
    ("lstm_ptb_word", None): "pru_repo_lstm_ptb_1000",
    ("lstm_ptb_word", "units1200"): "pru_repo_lstm_ptb_1200",
    ("lstm_ptb_word", "units1400"): "pru_repo_lstm_ptb_1400",
    ("awd_pru_ptb_word", None): "pru_ptb_g4",
    ("awd_pru_wikitext2", None): "pru_wt2_g4",
    ("awd_lstm_ptb_word", None): "awd_lstm_ptb",
    ("pru_ptb_word_single", "k1_g1"): "pru_ablation_single600_k1_g1",
    ("pru_ptb_word_single", "k2_g1"): "pru_ablation_single600_k2_g1",
    ("pru_ptb_word_single", "k2_g2"): "pru_ablation_single600_k2_g2",
    ("pru_ptb_word_single", None): "pru_ablation_single600_k2_g4",
    ("pru_ptb_word_single", "k3_g1"): "pru_ablation_single600_k3_g1",
    ("pru_ptb_word_single", "k4_g1"): "pru_ablation_single600_k4_g1",
    ("lstm_ptb_word_single", None): "pru_ablation_single600_lstm",
}
RELEASED = {
    ("pru_ptb_word", "released"): "pru_ptb_g4",
    ("pru_wikitext2", "released"): "pru_wt2_g4",
    ("lstm_ptb_word", "released"): "pru_repo_lstm_ptb_1000",
    ("pru_ptb_word_single", "released"): "pru_ablation_single600_k2_g4",
    ("lstm_ptb_word_single", "released"): "pru_ablation_single600_lstm",
}
NAMES = [name for name in zoo.names() if zoo.recipe(name).family == "pru"]


@pytest.fixture(scope="module")
def counts(golden):
    return json.loads((golden / "parameter_counts.json").read_text())


@pytest.mark.parametrize(("name", "variant"), REFERENCE)
def test_recipes_quote_the_sizes_of_the_reference(name, variant, counts):
    recipe = zoo.recipe(name, variant)
    assert recipe.parameters == counts[REFERENCE[name, variant]]["parameters"]


def test_single_layers_differ_by_their_vocabularies():
    ptb, wikitext2 = (zoo.recipe(f"pru_{data}_single") for data in ("ptb_word", "wikitext2"))
    more = (33_278 - 10_000) * (600 + 1)
    assert list(ptb.variants) == list(wikitext2.variants)
    for variant in (None, *ptb.variants):
        ours, theirs = wikitext2.variant(variant), ptb.variant(variant)
        assert ours.parameters == theirs.parameters + more
        assert {**ours.model, "vocabulary_size": 10_000} == theirs.model


def test_settings_of_the_reference_scripts(counts):
    for (name, variant), key in (REFERENCE | RELEASED).items():
        recipe, config = zoo.recipe(name, variant), counts[key]["config"]
        assert recipe.optimizer.learning_rate == config["lr"]
        assert recipe.optimizer.global_clipnorm == config["clip"]
        assert recipe.optimizer.l2 == config["wdecay"]
        form = {"form": "released"} if variant == "released" else {}
        assert recipe.optimizer.options == {"nonmonotone": config["nonmono"], **form}
        assert recipe.data.length == config["bptt"]
        assert recipe.data.options["random_lengths"]
        assert recipe.model["embedding_dim"] == config["emsize"]
        assert recipe.model["activation_regularization"] == config["alpha"]
        assert recipe.model["temporal_activation_regularization"] == config["beta"]
        if variant == "released" or name.startswith("awd"):
            assert recipe.model["output_dropout"] == config["dropout"]
    awd, config = zoo.recipe("awd_lstm_ptb_word").model, counts["awd_lstm_ptb"]["config"]
    assert awd["embedding_dropout"] == config["dropoute"]
    assert awd["input_dropout"] == config["dropouti"]
    assert awd["dropout"] == config["dropouth"]
    assert awd["weight_dropout"] == config["wdrop"]


def test_reported_figures():
    figures = {
        ("pru_ptb_word", None): 62.42,
        ("pru_wikitext2", None): 72.77,
        ("awd_pru_ptb_word", None): 58.33,
        ("awd_pru_wikitext2", None): 65.30,
        ("awd_pru_ptb_word", "fine_tuning"): 56.56,
        ("awd_pru_wikitext2", "fine_tuning"): 64.53,
    }
    for (name, variant), value in figures.items():
        reported = zoo.recipe(name, variant).reported
        assert reported.value == value and "PRU paper, Table 1" in reported.source
    for data, plain, tuned in (("ptb_word", 58.8, 57.3), ("wikitext2", 66.0, 65.8)):
        name = f"awd_lstm_{data}"
        assert zoo.recipe(name).reported.value == plain
        assert zoo.recipe(name, "fine_tuning").reported.value == tuned
    for name, value in (("pru_ptb_word", 55.23), ("lstm_ptb_word", 58.79)):
        dynamic = zoo.recipe(name, "dynamic_evaluation").reported
        assert dynamic.value == value and "evaluate --dynamic" in dynamic.source
    assert "dynamic_evaluation" not in zoo.recipe("awd_pru_ptb_word").variants


SMALL = {"vocabulary_size": 11, "embedding_dim": 8, "units": 12}


def test_small_models_of_every_entry_run():
    ids = np.arange(10).reshape(2, 5)
    for name in NAMES:
        if zoo.recipe(name).task != "language_model":
            continue
        model = getattr(zoo, name)(**SMALL)
        kind = LSTM if name.startswith(("lstm", "awd_lstm")) else PRU
        assert all(type(layer) is kind for layer in model.core.layers)
        y, state = model(ids, return_state=True)
        assert np.isfinite(keras.ops.convert_to_numpy(y)).all()
        assert len(state) == len(model.core.layers)


@pytest.mark.slow
def test_both_kinds_of_dropout_train():
    ids = np.random.default_rng(0).integers(0, 11, (4, 9))
    for name in ("pru_ptb_word", "awd_pru_ptb_word"):
        model = getattr(zoo, name)(**SMALL, layers=2, seed=1)
        assert isinstance(model.output_dropout, VariationalDropout)
        standard = name == "pru_ptb_word"
        assert model.core.variational is not standard
        assert model.output_dropout.rate == (0.0 if standard else 0.4)
        assert model.core.output_dropout == (0.5 if standard else 0.0)
        model.compile(optimizers.NTASGD(0.1))
        before = [w.copy() for w in model.get_weights()]
        model.fit(ids[:, :-1], ids[:, 1:], batch_size=4, verbose=0)
        assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_groups_choose_the_width():
    settings = {"vocabulary_size": 11, "embedding_dim": 8}
    assert zoo.pru_ptb_word(groups=2, **settings).core.layers[0].units == 1200
    with pytest.raises(ValueError, match="`units` must be given with this number of groups"):
        zoo.pru_ptb_word(groups=8, **settings)
    with pytest.raises(ValueError, match="`unit` must be 'pru' or 'lstm'"):
        zoo.pru_ptb_word(unit="gru", **settings)


def test_python_docs_has_the_vocabulary_of_its_sibling():
    ours, theirs = (zoo.recipe(f"{f}_python_docs").model for f in ("pru", "trellisnet"))
    assert ours["vocabulary_size"] == theirs["vocabulary_size"]


@pytest.mark.slow
def test_streams_and_exports_with_its_state(tmp_path):
    """Token by token equals the whole text read again, in Python and in an exported model."""
    model = zoo.pru_ptb_word(**SMALL, seed=3)
    for weight in model.weights:  # so that predictions differ
        weight.assign(np.random.default_rng(len(weight.shape)).normal(size=weight.shape))
    ids = [1, 5, 2]
    for _ in range(12):
        log_probs = keras.ops.convert_to_numpy(model(np.array([ids])))
        ids.append(int(np.argmax(log_probs[0, -1])))
    stream = generate_ids(model, [ids[:3]], length=12, temperature=0)
    assert stream.numpy().tolist() == [ids[3:]]

    folder = export_model(model, None, tmp_path, name="pru", warmup=False)
    served = tf.saved_model.load(str(folder))
    state = served.signatures["initial_state"](batch_size=tf.constant(1))
    outputs = []
    for token in ids:
        answer = dict(served.signatures["step"](ids=tf.constant([[token]]), **state))
        outputs.append(answer.pop("log_probs")[:, 0])
        state = answer
    np.testing.assert_allclose(tf.stack(outputs, axis=1), model(np.array([ids])), atol=1e-4)
