"""Models: an embedding before a core layer and a head after it."""

from keras_seq.models.frame_model import FrameModel as FrameModel
from keras_seq.models.language_model import LanguageModel as LanguageModel
from keras_seq.models.sequence_classifier import SequenceClassifier as SequenceClassifier
from keras_seq.models.sequence_classifier import SequenceRegressor as SequenceRegressor
from keras_seq.models.sequence_model import LossTerms as LossTerms
from keras_seq.models.sequence_model import SequenceModel as SequenceModel

__all__ = [
    "FrameModel",
    "LanguageModel",
    "LossTerms",
    "SequenceClassifier",
    "SequenceModel",
    "SequenceRegressor",
]
