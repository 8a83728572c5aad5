"""Tasks and metrics as values: they say what models log and recipes hold."""

import math
import typing

import pytest

from keras_seq import layers, models, zoo
from keras_seq._tasks import (
    ACCURACY,
    BITS,
    FIGURES,
    LANGUAGE_MODEL,
    LOSS,
    METRICS,
    NLL,
    PERPLEXITY,
    TASKS,
    metric_of,
)
from keras_seq.zoo.recipe import Task

MODELS = {
    "language_model": lambda core: models.LanguageModel(9, 4, core),
    "sequence_classifier": lambda core: models.SequenceClassifier(core, 3),
    "sequence_regressor": lambda core: models.SequenceRegressor(core, 2),
    "frame_model": lambda core: models.FrameModel(core, 5),
}
SIGNS = {"up": "max", "down": "min", None: None}


@pytest.mark.parametrize("name", TASKS)
def test_models_log_what_their_task_says(name):
    logged = {m.name: m for m in MODELS[name](layers.LSTM(4)).own_metrics()}
    assert set(logged) - {"tokens"} == {metric.key for metric in TASKS[name].metrics}
    assert ("tokens" in logged) == (TASKS[name].items == "tokens")
    for metric in TASKS[name].metrics:
        assert SIGNS[logged[metric.key]._direction] == metric.direction


@pytest.mark.parametrize("name", zoo.names())
def test_recipes_name_known_tasks_and_metrics(name):
    found = zoo.recipe(name)
    known = TASKS[found.task].metrics
    assert metric_of(found.reported.metric) in known
    assert metric_of(found.monitor) in known


def test_recipes_may_have_every_task():
    assert typing.get_args(Task) == tuple(TASKS)


def test_a_metric_is_found_by_each_of_its_names():
    for metric in METRICS:
        for name in (metric.key, metric.name, f"val_{metric.key}"):
            assert metric_of(name) is metric
    assert metric_of("val_top_accuracy").direction == "max"
    assert metric_of("equilibrium_steps").direction == "min"
    assert (LOSS, NLL, *FIGURES) == METRICS


def test_how_a_metric_is_shown():
    assert [BITS.label("character"), BITS.label("word"), BITS.label()] == [
        "bits/char",
        "bits/token",
        "bits/token",
    ]
    assert PERPLEXITY.label("character") == "perplexity"
    assert BITS.reported(1.158) == "1.158 bits per character"
    assert [BITS.cell(1.158), ACCURACY.cell(99.1), PERPLEXITY.cell(0.005)] == [
        "bits per character 1.158",
        "accuracy 99.10%",
        "perplexity 5.0e-03",
    ]
    assert ACCURACY.logged(99.0) == 0.99
    assert PERPLEXITY.logged(99.0) == 99.0
    assert [ACCURACY.as_loss(0.5), BITS.as_loss(0.5)] == [-0.5, 0.5]


def test_figures_of_a_loss():
    figures = {m.key: m.of_nll(2.0) for m in LANGUAGE_MODEL.metrics if m.of_nll}
    assert figures == {"nll": 2.0, "perplexity": math.exp(2.0), "bits": 2.0 / math.log(2)}
    assert PERPLEXITY.of_nll is not None
    assert PERPLEXITY.of_nll(1e4) == math.inf
