"""Small temporal convolutional networks."""

from keras_seq import layers
from small import Small


def batch_normalized(**options):
    """A network whose batch normalisation is frozen: in training it gives what it gives else."""
    layer = layers.TCN(6, levels=2, normalization="batch", weight_normalization=True, **options)
    layer.freeze([f"{block.name}/{norm.name}" for block in layer.blocks for norm in block.norms])
    return layer


SMALL = Small(
    causal={
        "TCN": lambda **options: layers.TCN(6, levels=2, **options),
        "TCN, skip connections": lambda **options: layers.TCN(
            6,
            levels=1,
            activation="tanh",
            stacks=2,
            skip_connections=True,
            normalization="layer",
            branch_activation=True,
            **options,
        ),
        "TCN, batch normalization": batch_normalized,
        "TCN, same padding": lambda **options: layers.TCN(
            6, levels=2, kernel_size=3, padding="same", skip_connections=True, **options
        ),
        "TemporalBlock": lambda **options: layers.TemporalBlock(6, kernel_size=2, **options),
        "TemporalBlock, same padding": lambda **options: layers.TemporalBlock(
            6, kernel_size=2, dilation_rate=3, padding="same", normalization="layer", **options
        ),
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
