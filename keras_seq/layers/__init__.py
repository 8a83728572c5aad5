"""Layers of the four papers, softmax heads, and the dropouts they share."""

from keras_seq._discovery import give_classes
from keras_seq.layers.adaptive_embedding import AdaptiveEmbedding as AdaptiveEmbedding
from keras_seq.layers.adaptive_softmax import AdaptiveSoftmax as AdaptiveSoftmax
from keras_seq.layers.causal_layer import CausalLayer as CausalLayer
from keras_seq.layers.deep_equilibrium import DeepEquilibrium as DeepEquilibrium
from keras_seq.layers.deq_transformer_cell import DEQTransformerCell as DEQTransformerCell
from keras_seq.layers.deq_trellis_cell import DEQTrellisCell as DEQTrellisCell
from keras_seq.layers.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from keras_seq.layers.equilibrium_cell import EquilibriumCell as EquilibriumCell
from keras_seq.layers.equilibrium_gradients import Implicit as Implicit
from keras_seq.layers.equilibrium_gradients import OneStep as OneStep
from keras_seq.layers.equilibrium_gradients import Phantom as Phantom
from keras_seq.layers.equilibrium_gradients import Unrolled as Unrolled
from keras_seq.layers.equilibrium_options import FixedPointCorrection as FixedPointCorrection
from keras_seq.layers.equilibrium_options import JacobianRegularization as JacobianRegularization
from keras_seq.layers.equilibrium_options import Pretraining as Pretraining
from keras_seq.layers.feed_forward import FeedForward as FeedForward
from keras_seq.layers.grouped_linear import GroupedLinear as GroupedLinear
from keras_seq.layers.keras_recurrent import KerasRecurrent as KerasRecurrent
from keras_seq.layers.local_rnn import LocalRNN as LocalRNN
from keras_seq.layers.lstm import LSTM as LSTM
from keras_seq.layers.mixture_of_softmaxes import MixtureOfSoftmaxes as MixtureOfSoftmaxes
from keras_seq.layers.pru import PRU as PRU
from keras_seq.layers.pru_cell import PRUCell as PRUCell
from keras_seq.layers.pyramidal_transform import PyramidalTransform as PyramidalTransform
from keras_seq.layers.r_transformer import RTransformer as RTransformer
from keras_seq.layers.r_transformer_block import RTransformerBlock as RTransformerBlock
from keras_seq.layers.recorded_attention import recorded_attention as recorded_attention
from keras_seq.layers.recurrent_stack import RecurrentStack as RecurrentStack
from keras_seq.layers.relative_attention import RelativeAttention as RelativeAttention
from keras_seq.layers.self_attention import SelfAttention as SelfAttention
from keras_seq.layers.softmax_head import SoftmaxHead as SoftmaxHead
from keras_seq.layers.tcn import TCN as TCN
from keras_seq.layers.temporal_block import TemporalBlock as TemporalBlock
from keras_seq.layers.tied_softmax import TiedSoftmax as TiedSoftmax
from keras_seq.layers.transformer import Transformer as Transformer
from keras_seq.layers.transformer_block import TransformerBlock as TransformerBlock
from keras_seq.layers.transformer_xl import TransformerXL as TransformerXL
from keras_seq.layers.trellis import TrellisNet as TrellisNet
from keras_seq.layers.unbiased_layer_norm import (
    UnbiasedLayerNormalization as UnbiasedLayerNormalization,
)
from keras_seq.layers.variational_dropout import VariationalDropout as VariationalDropout
from keras_seq.ops.trellis.gates import GRUGates as GRUGates
from keras_seq.ops.trellis.gates import LSTMGates as LSTMGates
from keras_seq.ops.trellis.gates import RNNGates as RNNGates
from keras_seq.ops.weight_drop import weight_drop as weight_drop
from keras_seq.ops.weight_drop import weight_drop_mask as weight_drop_mask
from keras_seq.ops.weight_norm import weight_normalize as weight_normalize

__all__ = [
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "CausalLayer",
    "DEQTransformerCell",
    "DEQTrellisCell",
    "DeepEquilibrium",
    "EmbeddingDropout",
    "EquilibriumCell",
    "FeedForward",
    "FixedPointCorrection",
    "GRUGates",
    "GroupedLinear",
    "Implicit",
    "JacobianRegularization",
    "KerasRecurrent",
    "LSTM",
    "LSTMGates",
    "LocalRNN",
    "MixtureOfSoftmaxes",
    "OneStep",
    "PRU",
    "PRUCell",
    "Phantom",
    "Pretraining",
    "PyramidalTransform",
    "RNNGates",
    "RTransformer",
    "RTransformerBlock",
    "RecurrentStack",
    "RelativeAttention",
    "SelfAttention",
    "SoftmaxHead",
    "TCN",
    "TemporalBlock",
    "TiedSoftmax",
    "Transformer",
    "TransformerBlock",
    "TransformerXL",
    "TrellisNet",
    "UnbiasedLayerNormalization",
    "Unrolled",
    "VariationalDropout",
    "recorded_attention",
    "weight_drop",
    "weight_drop_mask",
    "weight_normalize",
]

give_classes(__name__)  # those of files that are not listed above
