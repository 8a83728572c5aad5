"""TensorBoard's HParams page: what each trial had, and what came out."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seq.tuning.parameters import Choice
from keras_seq.tuning.trial import Trials

CURVES = "run/logs/validation"  # in a trial's folder


def log_experiment(folder: Path, trials: Trials) -> None:
    """Says in the search folder what is varied and what is measured."""
    from tensorboard.plugins.hparams import api

    domains = []
    for name, parameter in trials.space.items():
        if isinstance(parameter, Choice):
            domain: Any = api.Discrete(parameter.values)
        elif isinstance(parameter.low, int) and isinstance(parameter.high, int):
            domain = api.IntInterval(parameter.low, parameter.high)
        else:
            domain = api.RealInterval(float(parameter.low), float(parameter.high))
        domains.append(api.HParam(name, domain))
    goal = trials.objective.metric
    metrics = [api.Metric(goal, group=CURVES, display_name=f"validation {goal}")]
    _write(folder, api.hparams_config_pb(domains, metrics))


def log_start(trial: Path, number: str, values: Mapping[str, Any], trials: Trials) -> None:
    """Writes a trial's values beside its curves."""
    from tensorboard.plugins.hparams import api

    tidied = {name: trials.space[name].tidy(value) for name, value in values.items()}
    _write(trial, api.hparams_pb(tidied, trial_id=str(number)))


def log_end(trial: Path, good: bool) -> None:
    """Says that a trial has ended, and how."""
    from tensorboard.plugins.hparams import api_pb2, summary

    status = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    _write(trial, summary.session_end_pb(status))


def _write(folder: Path, summary: Any) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    # The plugin's messages are TensorFlow's where that is loaded, the writer's are TensorBoard's.
    own = summary_pb2.Summary.FromString(summary.SerializeToString())
    writer = EventFileWriter(str(folder))
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=0, summary=own))
    writer.close()
