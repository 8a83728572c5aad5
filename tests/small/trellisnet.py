"""Small TrellisNets."""

from keras_seq import layers
from small import Small

DILATIONS = {"levels": 3, "dilation_rate": (1, 1, 2)}
WORDS = {
    "vocabulary_size": 11,
    "units": 10,
    "output_units": 8,
    "levels": 4,
    "auxiliary_frequency": 2,
    "history": 0,
}

SMALL = Small(
    causal={
        "TrellisNet": lambda **options: layers.TrellisNet(4, 3, levels=3, **options),
        "TrellisNet, history": lambda **options: layers.TrellisNet(
            4, 3, levels=3, state="history", **options
        ),
        "TrellisNet, same padding": lambda **options: layers.TrellisNet(
            4, 3, levels=3, kernel_size=3, dilation_rate=(1, 2), padding="same", **options
        ),
    },
    exported={
        "trellisnet_ptb_word_mos": {**WORDS, "embedding_dim": 6, "experts": 3},
        "trellisnet_ptb_word": {
            **WORDS,
            "embedding_dim": 8,
            "head": "adaptive",
            "cutoffs": (4, 8),
        },
        "trellisnet_copy_memory": {"units": 6, "output_units": 4, **DILATIONS},
        "trellisnet_adding": {"units": 6, "output_units": 4, **DILATIONS},
    },
    trained={
        "trellisnet_python_docs": {
            "model.embedding_dim": 8,
            "model.units": 6,
            "model.output_units": 8,
            "model.levels": 2,
        },
    },
)
