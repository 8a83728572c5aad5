"""Small models of each kind, and data for them with as many rows as steps."""

import numpy as np

from keras_seq.layers import TCN
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor


def core(width=4):
    return TCN(width, 1, kernel_size=2)


def language_model(**options):
    model = LanguageModel(7, 4, core(), seed=1, **options)
    model.build()
    return model


def reader(kind, **options):
    classes = {"classifier": SequenceClassifier, "regressor": SequenceRegressor}
    width = {"classifier": {"classes": 3}, "regressor": {"outputs": 2}}[kind]
    model = classes[kind](core(), **(width | options))
    model.build((None, None, 2))
    return model


def frame_model(**options):
    model = FrameModel(core(), notes=5, **options)
    model.build((None, None, 5))
    return model


RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(4, 4, 2)).astype("float32")
IDS = RNG.integers(0, 7, (4, 4)).astype("int32")
FRAMES = (RNG.random((4, 4, 5)) < 0.4).astype("float32")
