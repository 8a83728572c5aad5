"""Training: from a recipe to a run folder, and from there to figures."""

from keras_seq.training.adapted import evaluate_cached as evaluate_cached
from keras_seq.training.adapted import evaluate_dynamic as evaluate_dynamic
from keras_seq.training.data_service import DataService as DataService
from keras_seq.training.dynamic_evaluation import dynamic_evaluate as dynamic_evaluate
from keras_seq.training.dynamic_evaluation import gradient_statistics as gradient_statistics
from keras_seq.training.evaluation import evaluate as evaluate
from keras_seq.training.neural_cache import cache_evaluate as cache_evaluate
from keras_seq.training.opening import OpenedModel as OpenedModel
from keras_seq.training.opening import load_model as load_model
from keras_seq.training.opening import open_model as open_model
from keras_seq.training.opening import shipped_set as shipped_set
from keras_seq.training.packing import pack_weights as pack_weights
from keras_seq.training.run import Run as Run
from keras_seq.training.run import load_run as load_run
from keras_seq.training.stop_on_divergence import StopOnDivergence as StopOnDivergence
from keras_seq.training.strategy import STRATEGIES as STRATEGIES
from keras_seq.training.strategy import strategy as strategy
from keras_seq.training.trainer import TrainingError as TrainingError
from keras_seq.training.trainer import train as train

__all__ = [
    "STRATEGIES",
    "DataService",
    "OpenedModel",
    "Run",
    "StopOnDivergence",
    "TrainingError",
    "cache_evaluate",
    "dynamic_evaluate",
    "evaluate",
    "evaluate_cached",
    "evaluate_dynamic",
    "gradient_statistics",
    "load_model",
    "load_run",
    "open_model",
    "pack_weights",
    "shipped_set",
    "strategy",
    "train",
]
