"""Small R-Transformers."""

from keras_seq import layers
from small import Small

SIZES = {"units": 12, "levels": 2, "window": 3, "heads": 2, "span": 6}

SMALL = Small(
    causal={
        "RTransformerBlock": lambda **options: layers.RTransformerBlock(3, heads=2, **options),
        "RTransformer": lambda **options: layers.RTransformer(
            6, levels=2, window=3, heads=2, span=4, **options
        ),
        "RTransformer, both ways": lambda **options: layers.RTransformer(
            6, levels=2, window=3, heads=2, causal=False, **options
        ),
        "LocalRNN": lambda **options: layers.LocalRNN(6, window=3, **options),
    },
    parts={
        "UnbiasedLayerNormalization": lambda **options: layers.UnbiasedLayerNormalization(
            **options
        ),
    },
    exported={
        "rtransformer_nottingham": {**SIZES, "notes": 5},
        "rtransformer_ptb_word": {**SIZES, "vocabulary_size": 11, "history": 0},
        "rtransformer_seq_mnist": {"units": 8, "levels": 2, "span": 8},
    },
    trained={
        "rtransformer_python_docs": {
            "model.units": 8,
            "model.levels": 2,
            "model.heads": 2,
            "model.window": 3,
            "model.span": 8,
        },
    },
)
