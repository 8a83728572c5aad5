"""Training: from a recipe to a run folder, and from there to figures."""

from keras_seq.training.evaluation import evaluate as evaluate
from keras_seq.training.evaluation import load_model as load_model
from keras_seq.training.run import Run as Run
from keras_seq.training.run import load_run as load_run
from keras_seq.training.trainer import TrainingError as TrainingError
from keras_seq.training.trainer import train as train

__all__ = ["Run", "TrainingError", "evaluate", "load_model", "load_run", "train"]
