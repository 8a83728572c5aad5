"""Layers of the four papers, softmax heads, and the dropouts they share."""

from keras_seq.layers.adaptive_embedding import AdaptiveEmbedding as AdaptiveEmbedding
from keras_seq.layers.adaptive_softmax import AdaptiveSoftmax as AdaptiveSoftmax
from keras_seq.layers.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from keras_seq.layers.mixture_of_softmaxes import MixtureOfSoftmaxes as MixtureOfSoftmaxes
from keras_seq.layers.softmax_head import SoftmaxHead as SoftmaxHead
from keras_seq.layers.tied_softmax import TiedSoftmax as TiedSoftmax
from keras_seq.layers.trellis import TrellisNet as TrellisNet
from keras_seq.layers.trellis_gates import GRUGates as GRUGates
from keras_seq.layers.trellis_gates import LSTMGates as LSTMGates
from keras_seq.layers.trellis_gates import RNNGates as RNNGates
from keras_seq.layers.variational_dropout import VariationalDropout as VariationalDropout
from keras_seq.layers.weight_drop import weight_drop as weight_drop
from keras_seq.layers.weight_drop import weight_drop_mask as weight_drop_mask
from keras_seq.layers.weight_norm import weight_normalize as weight_normalize

__all__ = [
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "EmbeddingDropout",
    "GRUGates",
    "LSTMGates",
    "MixtureOfSoftmaxes",
    "RNNGates",
    "SoftmaxHead",
    "TiedSoftmax",
    "TrellisNet",
    "VariationalDropout",
    "weight_drop",
    "weight_drop_mask",
    "weight_normalize",
]
