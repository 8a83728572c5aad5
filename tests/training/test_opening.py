"""`open_model`: one way to a model and what belongs to it."""

from pathlib import Path

import pytest

from keras_seq import training, zoo
from keras_seq.pipelines import Vocabulary
from keras_seq.training.weights_file import save_model_file

SAVED = Path(__file__).resolve().parent.parent / "saved" / "0.1" / "run"


def test_shipped_weights_bring_recipe_vocabulary_and_data():
    (shipped,) = zoo.weights("trellisnet_python_docs")
    opened = training.open_model("trellisnet_python_docs", "python_docs")
    assert opened.shipped == shipped and opened.recipe == shipped.recipe
    assert opened.origin == "python_docs (shipped)" and opened.run is None
    vocabulary = Vocabulary.load(shipped.vocabulary_file or "")
    assert opened.vocabulary is not None and opened.vocabulary.tokens == vocabulary.tokens
    data = opened.data(batch_size=2)
    assert data.vocabulary is not None and data.vocabulary.tokens == vocabulary.tokens
    assert opened.model.optimizer is not None


def test_a_run_brings_its_own():
    run = training.load_run(SAVED)
    opened = training.open_model(SAVED, "last")
    assert opened.run is not None and opened.run.folder == SAVED
    assert opened.recipe == run.recipe and opened.origin == f"{SAVED} (last)"
    assert opened.vocabulary is not None and run.vocabulary is not None
    assert opened.vocabulary.tokens == run.vocabulary.tokens


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_file_of_another_model_is_refused(ending, tmp_path):
    recipe = zoo.recipe("tcn_seq_mnist").replace(**{"model.units": 2, "model.levels": 1})
    path = save_model_file(zoo.build(recipe), tmp_path / f"tcn{ending}", recipe)
    opened = training.open_model(path)
    assert opened.recipe == recipe and opened.origin == str(path)
    assert opened.vocabulary is None
    with pytest.raises(ValueError, match="holds weights of tcn_seq_mnist, not of lstm_ptb_char"):
        training.open_model("lstm_ptb_char", path)


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="neither a run folder nor a model file .* Did you mean"):
        training.open_model("trelisnet_ptb_word")
