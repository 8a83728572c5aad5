"""Small temporal convolutional networks."""

from keras_seq import layers
from small import Small

SMALL = Small(
    causal={
        "TCN": lambda **options: layers.TCN(6, levels=2, **options),
        "TemporalBlock": lambda **options: layers.TemporalBlock(6, kernel_size=2, **options),
    },
    exported={
        "tcn_ptb_word": {
            "vocabulary_size": 11,
            "units": 8,
            "embedding_dim": 8,
            "levels": 2,
            "history": 0,
        },
        "tcn_seq_mnist": {"units": 6, "levels": 2, "kernel_size": 3},
    },
    trained={"tcn_python_docs": {"model.embedding_dim": 8, "model.units": [6, 8]}},
)
