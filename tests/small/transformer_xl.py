"""Small Transformer-XLs."""

from keras_seq import layers
from small import Small

SMALL = Small(
    causal={
        "TransformerXL": lambda **options: layers.TransformerXL(
            2, heads=2, inner_units=12, memory_length=4, **options
        ),
    },
    parts={"RelativeAttention": lambda **options: layers.RelativeAttention(2, **options)},
    exported={
        "transformer_xl_wt103": {
            "vocabulary_size": 11,
            "cutoffs": (4, 8),
            "units": 12,
            "heads": 2,
            "head_units": 6,
            "inner_units": 16,
            "levels": 2,
            "memory_length": 20,
        },
    },
    trained={
        "transformer_xl_python_docs": {
            "model.units": 8,
            "model.levels": 2,
            "model.heads": 2,
            "model.inner_units": 16,
            "model.memory_length": 7,
            "model.span": 8,
        },
    },
)
