"""Small models and vocabularies of the tests of generation and export."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.layers import TrellisNet
from keras_seq.models import LanguageModel
from keras_seq.pipelines import Vocabulary


class ContractModel(keras.Model):
    """The smallest model of the state contract: Keras and nothing else.

    What is generated from it and exported of it shows that any core works that does the same.
    """

    def __init__(self, vocabulary_size: int, units: int = 12, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        wide = keras.initializers.RandomNormal(stddev=1.0)
        self.embedding = keras.layers.Embedding(vocabulary_size, units, wide)
        self.core = keras.layers.GRU(units, return_sequences=True, return_state=True)
        self.dropout = keras.layers.Dropout(0.5)
        self.dense = keras.layers.Dense(vocabulary_size, kernel_initializer=wide)

    def get_initial_state(self, batch_size, kind=None):
        (state,) = self.core.get_initial_state(batch_size)
        return {"hidden": state}

    def call(self, ids, initial_state=None, return_state=False, training=None):
        start = None if initial_state is None else [initial_state["hidden"]]
        outputs, state = self.core(self.embedding(ids), initial_state=start)
        logits = self.dense(self.dropout(outputs, training=training))
        log_probs = ops.log_softmax(ops.cast(logits, "float32"))
        return (log_probs, {"hidden": state}) if return_state else log_probs


def contract_model(vocabulary_size: int) -> ContractModel:
    model = ContractModel(vocabulary_size)
    model(np.zeros((1, 1), "int32"))
    return spread(model)


def trellis_model(vocabulary_size: int, dtype: str = "float32", **options) -> LanguageModel:
    """A TrellisNet with every kind of dropout, and weights that make its predictions differ."""
    cycle: Any = (1, 2)
    core = TrellisNet(
        units=10,
        output_units=8,
        levels=5,
        dilation_rate=cycle,
        auxiliary_frequency=2,
        weight_normalization=True,
        hidden_dropout=0.2,
        weight_dropout=0.2,
        dtype=dtype,
    )
    model = LanguageModel(
        vocabulary_size,
        embedding_dim=8,
        core=core,
        embedding_dropout=0.1,
        input_dropout=0.2,
        output_dropout=0.2,
        auxiliary_weight=0.1,
        dtype=dtype,
        **options,
    )
    model.build()
    return spread(model)


def spread(model: keras.Model, scale: float = 1.0) -> keras.Model:
    """Gives a built model random weights, large enough that its predictions differ."""
    rng = np.random.default_rng(6)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    return model


WORDS = ["the", "<eos>", "cat", "sat", "on", "a", "mat", "<unk>", "dog", "ran", "off"]
LETTERS = ["e", "<eos>", "_", "t", "a", "\u00e9", "\u65e5", "<unk>", "n", "b"]


def words() -> Vocabulary:
    return Vocabulary(WORDS)


def letters() -> Vocabulary:
    return Vocabulary(LETTERS, level="character", space="_")
