"""Models exported once for all tests."""

import keras
import numpy as np
import pytest
from export.bare import Bare, Exported
from generation.small_models import contract_model, letters, spread, trellis_model, words

from keras_seq.export import export_model
from keras_seq.layers import AdaptiveSoftmax, TrellisNet
from keras_seq.models import LanguageModel, SequenceClassifier, SequenceRegressor


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> dict[str, Exported]:
    """Every kind of model, exported."""
    keras.utils.set_random_seed(5)
    to = tmp_path_factory.mktemp("served")
    made = {}

    def add(name: str, model, vocabulary, **options):
        folder = export_model(model, vocabulary, to, name=name, **options)
        made[name] = Exported(model, vocabulary, folder)

    add("contract", contract_model(words().size), words(), top_k=3, max_tokens=6)
    add("trellis", trellis_model(10), letters(), metrics={"bits": 2.5}, max_length=50)
    add("bfloat16", trellis_model(11, "mixed_bfloat16"), None)
    core = TrellisNet(units=6, output_units=8, levels=3, state="history")
    head = AdaptiveSoftmax(11, cutoffs=(4, 8), tied=True)
    adaptive = LanguageModel(11, 8, core, head=head)
    adaptive.build()
    add("adaptive", spread(adaptive), words(), max_tokens=1024)
    for name, cls, options in (
        ("classifier", SequenceClassifier, {"classes": 5}),
        ("regressor", SequenceRegressor, {"outputs": 2, "return_sequences": True}),
    ):
        core = TrellisNet(units=6, output_units=4, levels=3, hidden_dropout=0.2)
        model = cls(core, output_dropout=0.3, **options)
        model.build((None, None, 3))
        add(name, spread(model), None)
    return made


@pytest.fixture
def bare(tmp_path) -> Bare:
    return Bare(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)
