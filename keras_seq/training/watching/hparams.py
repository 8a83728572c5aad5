"""TensorBoard's HParams page of a run: the settings of its recipe and how it ended."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seq.training.watching.events import Events
from keras_seq.zoo import Recipe

BEST = "best/"  # before the names of the final figures
_TOLD = ("epochs", "seed", "precision", "jit_compile", "early_stopping", "monitor")


def settings(recipe: Recipe) -> dict[str, bool | float | str]:
    """The settings of a recipe as numbers, truth values and strings, by their dotted names."""
    whole = dataclasses.asdict(recipe)
    found: dict[str, Any] = {"model": recipe.name}
    for part in ("model", "data", "optimizer", "schedule"):
        found |= _flat(whole[part], f"{part}.")
    found |= {name: whole[name] for name in _TOLD}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in found.items()
        if value is not None
    }


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def write_start(events: Events, recipe: Recipe, metrics: list[str]) -> None:
    """Writes what the page shows: settings, and the figures that `write_end` gives.

    Args:
        events: the events of a run's `logs` folder.
        recipe: the run's recipe.
        metrics: names of the figures.
    """
    from tensorboard.plugins.hparams import api

    values = settings(recipe)
    columns = [api.HParam(name) for name in values]
    figures = [api.Metric(f"{BEST}{name}", display_name=f"best {name}") for name in metrics]
    events.summary(api.hparams_config_pb(columns, figures))
    events.summary(api.hparams_pb(values, trial_id=_name(events.folder)))


def _name(folder: Path) -> str:
    """The run's folder, for which `logs` is a name that all have."""
    return folder.absolute().parent.name


def write_end(events: Events, figures: Mapping[str, float], good: bool, step: int) -> None:
    """Writes the figures of the best epoch, and that the run has ended."""
    from tensorboard.plugins.hparams import api_pb2, summary

    events.scalars({f"{BEST}{name}": value for name, value in figures.items()}, step)
    status = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    events.summary(summary.session_end_pb(status), step)
