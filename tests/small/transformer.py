"""Small Transformers."""

from keras_seq import layers
from small import Small

SMALL = Small(
    causal={
        "SelfAttention": lambda **options: layers.SelfAttention(2, **options),
        "SelfAttention, span": lambda **options: layers.SelfAttention(2, span=3, **options),
        "SelfAttention, both ways": lambda **options: layers.SelfAttention(
            2, causal=False, **options
        ),
        "TransformerBlock": lambda **options: layers.TransformerBlock(2, **options),
        "Transformer": lambda **options: layers.Transformer(6, levels=2, heads=2, **options),
        "Transformer, span": lambda **options: layers.Transformer(
            8, levels=2, heads=2, span=4, **options
        ),
    },
    parts={"FeedForward": lambda **options: layers.FeedForward(12, **options)},
    exported={
        "transformer_ptb_word": {
            "vocabulary_size": 11,
            "units": 12,
            "levels": 2,
            "heads": 2,
            "span": 6,
            "history": 0,
        },
        "transformer_seq_mnist": {"units": 8, "levels": 2, "span": 8},
    },
    trained={
        "transformer_python_docs": {
            "model.units": 8,
            "model.levels": 2,
            "model.heads": 2,
            "model.span": 8,
            "data.history": 4,
            "model.history": 4,
        },
    },
)
