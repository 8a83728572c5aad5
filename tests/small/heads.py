"""Softmax heads, which every family has."""

from keras_seq import layers
from small import Small

SMALL = Small(
    parts={
        "AdaptiveSoftmax": lambda **options: layers.AdaptiveSoftmax(20, cutoffs=[5], **options),
        "MixtureOfSoftmaxes": lambda **options: layers.MixtureOfSoftmaxes(
            20, experts=2, embedding_dim=4, tied=False, **options
        ),
        "TiedSoftmax": lambda **options: layers.TiedSoftmax(20, tied=False, **options),
    },
)
