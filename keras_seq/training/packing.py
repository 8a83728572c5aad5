"""Trained weights for the package: half precision, hashes, measured figures, a model card."""

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import keras

from keras_seq import _files, zoo
from keras_seq._tasks import metric_of
from keras_seq._version import __version__
from keras_seq.pipelines import Data
from keras_seq.training import building
from keras_seq.training.evaluation import evaluate_model
from keras_seq.training.run import Run
from keras_seq.training.weights_file import load_weights
from keras_seq.zoo import Recipe, ShippedWeights, shipped_weights

# Settings that are not of the training command: what the data say, and fields of the description.
_NOT_SET = ("name", "family", "task", "summary", "paper", "notes", "reported", "parameters")
_OPTIONS = {"epochs": "--epochs", "seed": "--seed"}


def pack_weights(
    run: Run | str | Path,
    name: str,
    to: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    data: Data | None = None,
    force: bool = False,
    note: str = "",
) -> ShippedWeights:
    """Packs the best weights of a run to ship with the package.

    The weights are rounded to half precision, loaded again and evaluated on the validation and the
    test split: the figures of the model card are those of the packed weights.

    Args:
        run: a run, or its folder.
        name: the name of the set, for example that of the data.
        to: the folder of all sets; `None` for the package's own.
        data_dir: folder of the raw files; by default the run's own.
        data: the data, if it is loaded already.
        force: replace a set of this name.
        note: a sentence for the model card.

    Returns:
        The packed set.

    Raises:
        ValueError: for a name that is none.
        FileExistsError: if the set exists and `force` is not set.
    """
    run = run if isinstance(run, Run) else Run(run)
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"`name` must be of letters, digits, - and _. Received: name={name!r}.")
    recipe = run.recipe
    folder = Path(shipped_weights.FOLDER if to is None else to) / recipe.name / name
    if folder.exists() and not force:
        raise FileExistsError(f"{folder} exists. Choose another name, or replace it with `force`.")
    model = run.load_model()
    if data is None:
        data = run.data(data_dir)
    with _files.atomic_folder(folder, force) as made:
        _fill(made, name, run, model, data, note)
    return ShippedWeights(recipe.name, name, folder)


def _fill(folder: Path, name: str, run: Run, model: keras.Model, data: Data, note: str) -> None:
    """Writes the files of a set."""
    recipe = run.recipe
    save_half(model, folder / shipped_weights.WEIGHTS)
    _files.write_text(folder / shipped_weights.RECIPE, recipe.to_json() + "\n")
    if run.vocabulary is not None:
        run.vocabulary.save(folder / shipped_weights.VOCABULARY)
    packed = building.build_model(recipe)
    load_weights(packed, folder / shipped_weights.WEIGHTS)
    building.compile_model(packed, recipe)
    figures = {
        split: evaluate_model(packed, data, split)
        for split in ("validation", "test")
        if data.splits[split] is not None
    }
    status = run.status
    manifest: dict[str, Any] = {
        "model": recipe.name,
        "name": name,
        "summary": recipe.summary,
        "parameters": int(sum(weight.shape.num_elements() for weight in model.trainable_weights)),
        "precision": "float16",
        "data": data.name,
        "command": training_command(recipe, status),
        "best_epoch": run.best_epoch,
        "epochs": status.get("epoch"),
        "steps": status.get("step"),
        "seconds": status.get("seconds"),
        "figures": figures,
        "reported": dataclasses.asdict(recipe.reported),
        "versions": {
            "keras_seq": __version__,
            "python": platform.python_version(),
            **{key: status.get("versions", {}).get(key) for key in ("keras", "tensorflow")},
        },
        "note": note,
    }
    _files.write_text(folder / shipped_weights.CARD, model_card(manifest))
    names = sorted(file.name for file in folder.iterdir())
    manifest["sha256"] = {file: shipped_weights.sha256(folder / file) for file in names}
    _files.write_json(folder / shipped_weights.MANIFEST, manifest, checked=True)


def save_half(model: keras.Model, path: Path) -> None:
    """Writes a weight file of Keras whose floating-point arrays are in half precision.

    The state of the optimizer is left out.

    Raises:
        ValueError: if a weight does not fit.
    """
    import h5py
    import numpy as np

    whole = path.with_name("whole.weights.h5")
    model.save_weights(whole)

    def copy(source, target):
        for key, value in source.attrs.items():
            target.attrs[key] = value
        for key, item in source.items():
            if item.name == "/optimizer":
                continue
            if isinstance(item, h5py.Group):
                copy(item, target.create_group(key))
                continue
            array = np.asarray(item)
            if np.issubdtype(array.dtype, np.floating):
                with np.errstate(over="ignore"):  # told below
                    half = array.astype("float16")
                if not np.isfinite(half).all():
                    raise ValueError(f"{item.name} has values that half precision does not hold.")
                array = half
            options = {"compression": "gzip", "shuffle": True} if array.ndim else {}
            target.create_dataset(key, data=array, **options)

    try:
        with h5py.File(whole, "r") as source, h5py.File(path, "w", libver="v110") as target:
            copy(source, target)
    finally:
        whole.unlink()


def training_command(recipe: Recipe, status: dict[str, Any]) -> str:
    """The command that trains as a run was trained."""
    words = ["keras-seq train", recipe.name]
    if status.get("data_dir"):
        words.append("--data-dir DIR")
    before, after = _flat(zoo.recipe(recipe.name)), _flat(recipe)
    for key, value in after.items():
        if before.get(key, ...) == value or key == "model.vocabulary_size":
            continue
        if key in _OPTIONS:
            words.append(f"{_OPTIONS[key]} {value}")
        else:
            text = json.dumps(value, separators=(",", ":"))
            words.append(f"--set {key}={text}" if '"' not in text else f"--set '{key}={text}'")
    if status.get("max_steps"):
        words.append(f"--max-steps {status['max_steps']}")
    return " ".join(words)


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Settings by dotted key; a mapping of options is one level deep."""
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(recipe).items():
        if key in (*_NOT_SET, "variants"):
            continue
        if isinstance(value, dict):
            for inner, item in value.items():
                if isinstance(item, dict):
                    flat |= {f"{key}.{inner}.{last}": entry for last, entry in item.items()}
                else:
                    flat[f"{key}.{inner}"] = item
        else:
            flat[key] = value
    return _files.plain(flat)


def model_card(manifest: dict[str, Any]) -> str:
    """The description of a set of weights for people, in Markdown."""
    lines = [
        f"# `{manifest['model']}`, weights `{manifest['name']}`",
        "",
        manifest["summary"],
        *([manifest["note"]] if manifest["note"] else []),
        "",
        f"- data: `{manifest['data']}`",
        f"- parameters: {manifest['parameters']:,}, in half precision",
        f"- trained with: `{manifest['command']}`",
        f"- {manifest['epochs']} epochs, {manifest['steps']} steps, {manifest['seconds']:.0f} s; "
        f"the best epoch, number {manifest['best_epoch']}, by the validation split",
        "- with: " + ", ".join(f"{key} {value}" for key, value in manifest["versions"].items()),
        "",
        "Figures of these weights, as packed:",
        "",
        "| split | " + " | ".join(_names(manifest)) + " |",
        "| --- |" + " --- |" * len(_names(manifest)),
    ]
    for split, figures in manifest["figures"].items():
        cells = [_figure(figures[key]) for key in _names(manifest)]
        lines.append(f"| {split} | " + " | ".join(cells) + " |")
    reported = manifest["reported"]
    if reported["value"] is not None:
        told = metric_of(reported["metric"]).reported(reported["value"])
        lines += ["", f"The paper reports {told} ({reported['source']})."]
    lines += [
        "",
        "```python",
        f'model = keras_seq.zoo.{manifest["model"]}(weights="{manifest["name"]}")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _names(manifest: dict[str, Any]) -> list[str]:
    names = list(next(iter(manifest["figures"].values()), {}))
    return [name for name in names if name != "loss" or len(names) < 3]


def _figure(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
