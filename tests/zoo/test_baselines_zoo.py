"""The baselines: sizes, protocols, small models that run, train and generate."""

import json

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import zoo

FAMILIES = ("recurrent", "tcn", "transformer", "transformer_xl")
NAMES = [name for name in zoo.names() if zoo.recipe(name).family in FAMILIES]
SMALL = {
    "recurrent": {"units": 6},
    "tcn": {"units": 6, "levels": 2, "kernel_size": 2},
    "transformer": {"units": 8, "levels": 1, "heads": 2, "span": 16},
    "transformer_xl": {
        "units": 8,
        "levels": 2,
        "heads": 2,
        "head_units": None,
        "inner_units": 8,
        "memory_length": 15,
        "span": 16,
    },
}
WIDTHS = {
    "language_model": "vocabulary_size",
    "sequence_classifier": "classes",
    "sequence_regressor": "outputs",
}


def inputs_of(recipe):
    if recipe.task == "language_model":
        return np.zeros((2, 5), "int32")
    return np.zeros((2, 5, recipe.model.get("features", 88)), "float32")


def small(name, **options):
    recipe = zoo.recipe(name)
    options = {**SMALL[recipe.family], **options}
    if recipe.task == "language_model":
        options |= {"vocabulary_size": 11}
        if "embedding_dim" in recipe.model:
            options |= {"embedding_dim": options["units"]}
        if "cutoffs" in recipe.model:
            options |= {"cutoffs": [5, 8]}
    known = zoo.registry.settings_of(name)
    return getattr(zoo, name)(**{key: value for key, value in options.items() if key in known})


def test_every_table_has_its_rows():
    for task in ("seq_mnist", "nottingham", "ptb_char", "ptb_word"):
        for family in ("tcn", "lstm", "gru", "rnn", "transformer"):
            assert f"{family}_{task}" in zoo.names()


def test_sizes_by_hand():
    """Counted from the definitions."""
    block = 5 * 88 * 150 + 5 * 150 * 150 + 4 * 150 + (88 + 1) * 150
    tcn = block + 3 * (2 * 5 * 150 * 150 + 4 * 150) + 151 * 88
    assert zoo.recipe("tcn_nottingham").parameters == tcn
    lstm = 4 * 280 * (88 + 280 + 2) + 4 * 280 * (280 + 280 + 2) + 281 * 88
    assert zoo.recipe("lstm_nottingham").parameters == lstm
    norms = 7 * 2 * 160
    feed = 3 * ((160 + 1) * 640 + (640 + 1) * 160)
    attention = 3 * 4 * (160 + 1) * 160
    transformer = (88 + 1) * 160 + attention + feed + norms + 161 * 88
    assert zoo.recipe("transformer_nottingham").parameters == transformer
    attention, norms = 5 * 410 * 410 + 2 * 410, 2 * 410
    level = attention + norms + 410 * 2100 + 2100 + 2100 * 410 + 410
    clusters = 3 * (410 + 1)
    xl = 267_735 * (410 + 1) + 16 * level + 2 * 410 + clusters
    assert zoo.recipe("transformer_xl_wt103").parameters == xl


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_nottingham")])
def test_music_is_trained_under_one_protocol(name):
    """But for the model, the recipe is that of the R-Transformer."""
    recipe, other = zoo.recipe(name), zoo.recipe("rtransformer_nottingham")
    for field in ("data", "optimizer", "schedule", "epochs", "early_stopping", "monitor", "seed"):
        assert getattr(recipe, field) == getattr(other, field)


@pytest.mark.parametrize("name", NAMES)
def test_small_model_runs_and_streams(name):
    recipe = zoo.recipe(name)
    model = small(name)
    inputs = inputs_of(recipe)
    whole = keras.ops.convert_to_numpy(model(inputs))
    sizes = {**recipe.model, "vocabulary_size": 11}
    width = sizes.get(WIDTHS.get(recipe.task, ""), 88)
    at_the_end = recipe.task in ("sequence_classifier", "sequence_regressor")
    at_the_end = at_the_end and not recipe.model.get("return_sequences")
    assert whole.shape == ((2, width) if at_the_end else (2, 5, width))
    state = model.get_initial_state(2)
    for step in range(5):
        outputs, state = model(inputs[:, step : step + 1], initial_state=state, return_state=True)
    last = keras.ops.convert_to_numpy(outputs).reshape(2, width)
    whole = whole if at_the_end else whole[:, -1]
    np.testing.assert_allclose(last, whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no setting 'unitz'"):
        getattr(zoo, name)(unitz=3)


@pytest.mark.parametrize("name", ["rnn_ptb_char", "tcn_python_docs", "transformer_xl_python_docs"])
@pytest.mark.slow
def test_state_is_carried_through_fit(name):
    model = small(name, carry_state=True)
    model.compile(keras_seq.optimizers.Adam(1e-2, global_clipnorm=1.0))
    ids = np.tile(np.arange(11), (4, 2))
    history = model.fit(ids[:, :-1], ids[:, 1:], batch_size=2, epochs=5, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]


# The counts of the original code, at the defaults of its scripts.
ORIGINALS = {
    "tcn_seq_mnist": "tcn_seq_mnist",
    "tcn_nottingham": "tcn_nottingham",
    "tcn_ptb_char": "tcn_ptb_char",
    "tcn_ptb_word": "tcn_ptb_word",
    "tcn_copy_memory": "tcn_copy_memory",
    "tcn_adding": "tcn_adding",
    "transformer_xl_ptb_word": "transformer_xl_ptb_word_16x380",
    "transformer_xl_wt103": "transformer_xl_wt103_base",
    "transformer_xl_enwik8": "transformer_xl_enwik8_12l",
}


@pytest.fixture(scope="module")
def originals(golden):
    return json.loads((golden / "parameter_counts_baselines.json").read_text())


@pytest.mark.parametrize("name", ORIGINALS)
def test_sizes_and_training_of_the_originals(name, originals):
    recipe, original = zoo.recipe(name), originals[ORIGINALS[name]]
    script, protocol = original["config"], recipe.family
    assert recipe.parameters == original["parameters"]
    if name == "transformer_xl_ptb_word" or name == "tcn_nottingham":
        return  # no script of it, or trained under another protocol
    assert recipe.optimizer.name.lower() == script["optim"].lower()
    assert recipe.optimizer.learning_rate == script["lr"]
    assert recipe.data.batch_size == script["batch_size"]
    assert (recipe.optimizer.global_clipnorm or -1) == script["clip"]
    assert recipe.model.get("dropout", 0.0) == script["dropout"]
    if protocol == "tcn":
        assert recipe.epochs == script["epochs"]
        assert recipe.model["kernel_size"] == script["ksize"]
        return
    assert (recipe.data.length, recipe.model["memory_length"]) == (
        script["tgt_len"],
        script["mem_len"],
    )
    evaluated, changes = script["evaluation"], zoo.recipe(name, "evaluation")
    assert changes.model["span"] == evaluated["mem_len"]  # `same_length`
    assert changes.model["inference_memory_length"] == evaluated["mem_len"]
    assert changes.model["clamp_length"] == evaluated["clamp_len"]
    assert changes.data.length == evaluated["tgt_len"]


def spread(variable) -> tuple[float, float]:
    """Standard deviation and largest value of a weight."""
    values = keras.ops.convert_to_numpy(variable)
    return float(values.std()), float(np.abs(values).max())


def test_initial_values_are_those_of_the_releases():
    sizes = {"vocabulary_size": 500, "embedding_dim": 40, "units": 40, "levels": 1}
    tied = zoo.tcn_ptb_word(**sizes)
    untied = zoo.tcn_ptb_word(**sizes, head="softmax")
    for table in (tied.embedding.embeddings, untied.embedding.embeddings, untied.head.kernel):
        assert spread(table)[0] == pytest.approx(0.01, rel=0.03)
    untied_tables = untied.embedding.embeddings, untied.head.kernel
    assert not np.array_equal(*map(keras.ops.convert_to_numpy, untied_tables))
    assert spread(zoo.tcn_ptb_char(vocabulary_size=500).embedding.embeddings)[1] > 0.09
    sizes = {"vocabulary_size": 500, "units": 40, "levels": 1, "heads": 2, "inner_units": 8}
    model = zoo.transformer_xl_ptb_word(**sizes, head_units=None)
    assert spread(model.embedding.tables[0])[0] == pytest.approx(0.02, rel=0.03)

    for model in (zoo.tcn_nottingham(levels=1), zoo.tcn_seq_mnist(levels=1)):
        limit = model.core.output_units**-0.5
        deviation, largest = spread(model.dense.kernel)
        assert deviation == pytest.approx(limit / 3**0.5, rel=0.1) and largest <= limit
        assert 0.6 * limit < spread(model.dense.bias)[1] <= limit
    for model in (zoo.tcn_copy_memory(levels=1), zoo.tcn_adding(levels=1)):
        assert spread(model.dense.kernel)[1] < 0.05
        assert 0 < spread(model.dense.bias)[1] <= model.core.output_units**-0.5
    with pytest.raises(ValueError, match="`head_initialization` must be one of"):
        zoo.tcn_adding(levels=1, head_initialization="zeros")


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="`cell` must be one of"):
        zoo.lstm_nottingham(cell="lstmm")
