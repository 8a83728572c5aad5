"""Keras' optimizers with exact clipping under a strategy, and L2 as in PyTorch."""

from keras_seq.optimizers.nt_asgd import NTASGD as NTASGD
from keras_seq.optimizers.nt_asgd import NonMonotoneTrigger as NonMonotoneTrigger
from keras_seq.optimizers.optimizers import SGD as SGD
from keras_seq.optimizers.optimizers import Adadelta as Adadelta
from keras_seq.optimizers.optimizers import Adagrad as Adagrad
from keras_seq.optimizers.optimizers import Adam as Adam
from keras_seq.optimizers.optimizers import Adamax as Adamax
from keras_seq.optimizers.optimizers import AdamW as AdamW
from keras_seq.optimizers.optimizers import Lamb as Lamb
from keras_seq.optimizers.optimizers import Lion as Lion
from keras_seq.optimizers.optimizers import Nadam as Nadam
from keras_seq.optimizers.optimizers import RMSprop as RMSprop
from keras_seq.optimizers.radam import RAdam as RAdam

__all__ = [
    "NTASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lamb",
    "Lion",
    "Nadam",
    "NonMonotoneTrigger",
    "RAdam",
    "RMSprop",
]
