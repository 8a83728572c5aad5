"""A model's weights as a release has them, to be converted back."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import convert


def released(model) -> dict[str, np.ndarray]:
    """The weights of a model under the names, and in the layouts, of its reference."""
    arrays = {}
    for slot in convert.mappings.slots(model):
        if isinstance(slot, convert.mappings.Slot):
            parts = slot.to_reference(np.asarray(slot.variable))
            for name, part in zip(slot.names, parts, strict=True):
                arrays[convert.reference._readable(name)] = part
    return arrays


def command_to_convert(run, folder: Path) -> tuple:
    """Arguments of `convert` for the released weights of a run on a text.

    Args:
        run: the run; its best weights are written to `folder`.
        folder: where to; the result is `model.weights.h5` in it.
    """
    arrays: dict[str, Any] = released(run.load_model())
    np.savez(folder / "release.npz", **arrays)
    recipe = run.recipe
    settings = {f"model.{name}": value for name, value in recipe.model.items()}
    for name in ("name", "length", "eval_batch_size", "history"):
        settings[f"data.{name}"] = getattr(recipe.data, name)
    pairs = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    pairs.append(f"jit_compile={json.dumps(recipe.jit_compile)}")
    changes = [argument for pair in pairs for argument in ("--set", pair)]
    to = folder / "model.weights.h5"
    return ("convert", folder / "release.npz", recipe.name, *changes, "--to", to)
