"""Small pyramidal recurrent units."""

from keras_seq import layers
from small import Small

WORDS = {"vocabulary_size": 11, "units": 12, "embedding_dim": 8}

SMALL = Small(
    causal={
        "PRU": lambda **options: layers.PRU(8, groups=2, **options),
        "PRU, pyramidal": lambda **options: layers.PRU(8, context_transform="pyramidal", **options),
        "RecurrentStack": lambda **options: layers.RecurrentStack(
            [layers.PRU(8, groups=2, name="below"), layers.LSTM(6, name="above")], **options
        ),
    },
    parts={
        "GroupedLinear": lambda **options: layers.GroupedLinear(6, groups=2, **options),
        "PRUCell": lambda **options: layers.PRUCell(8, **options),
        "PyramidalTransform": lambda **options: layers.PyramidalTransform(8, **options),
    },
    exported={
        "awd_pru_ptb_word": {**WORDS, "groups": 2},
        "awd_lstm_ptb_word": WORDS,
    },
    trained={
        "pru_python_docs": {"model.embedding_dim": 8, "model.units": 8, "model.groups": 2},
    },
)
