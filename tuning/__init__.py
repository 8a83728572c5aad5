"""Searches over recipes with KerasTuner (`pip install "keras-seq[tuning]"`).

`search` looks for better settings of a recipe and writes a table, a picture and the best recipe;
`space` is what it searches, a dict that may be changed; `hypermodel` is the same for use with
KerasTuner alone.
"""

from keras_seq.tuning.hypermodel import hypermodel
from keras_seq.tuning.objectives import Objective, objective
from keras_seq.tuning.parameters import Choice, Float, Int
from keras_seq.tuning.results import Results, load_results
from keras_seq.tuning.search import search
from keras_seq.tuning.space import load_space, save_space
from keras_seq.tuning.spaces import space
from keras_seq.tuning.trial import TuningError

__all__ = [
    "Choice",
    "Float",
    "Int",
    "Objective",
    "Results",
    "TuningError",
    "hypermodel",
    "load_results",
    "load_space",
    "objective",
    "save_space",
    "search",
    "space",
]
