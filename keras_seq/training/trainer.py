"""`train`: from a recipe to a run."""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_seq import _files
from keras_seq._export import plain
from keras_seq._tasks import TASKS
from keras_seq.pipelines import Data
from keras_seq.training import building, joining, run_folder, starting
from keras_seq.training.cluster import Cluster, scratch_folder
from keras_seq.training.data_service import Source
from keras_seq.training.fitting import Training
from keras_seq.training.joining import Chosen
from keras_seq.training.progress import Reporter
from keras_seq.training.reproducibility import order_operations
from keras_seq.training.run import Run
from keras_seq.training.session import COLUMNS, Limits
from keras_seq.training.state import TrainingError as TrainingError
from keras_seq.training.strategy import Devices, resolve
from keras_seq.training.watching import Watch
from keras_seq.zoo import Recipe


def train(
    recipe: Recipe | str | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    *,
    start: Run | str | Path | None = None,
    data: Data | None = None,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int | None = None,
    console: Console | None = None,
    watch: bool | None = None,
    strategy: Any = None,
    devices: Devices = None,
    data_service: str | None = None,
    data_service_share: str | None = None,
) -> Run:
    """Trains the model of a recipe.

    Keras' `fit` does the work, an epoch at a time; all settings come from the recipe. Everything
    that is needed to continue is saved at the end of each epoch and every `checkpoint_seconds`
    within one. With `resume=True`, a run that was killed at any moment goes on from there and, on
    the same machine, ends with the weights that it would have had without the kill.

    Args:
        recipe: a recipe or the name of one. May be left out when a run folder is resumed.
        data_dir: folder of the raw files of the data set, where it needs them.
        run_dir: the run folder; by default `runs/<name>-<number>`, or, to resume, the newest of
            them.
        epochs: epochs in place of the recipe's.
        max_steps: optimizer steps after which the run ends, even within an epoch. A resumed run
            remembers its own.
        seed: seed of weights, dropout and data order, in place of the recipe's.
        resume: continue the run in the folder; where there is none yet, begin one.
        callbacks: Keras callbacks. They see one training from the first to the last epoch. Those
            with `get_state()` and `set_state(state)` are saved and resumed.
        verbose: 0 for nothing, 1 for a progress bar, 2 for one line an epoch, `"auto"` for 1 on a
            terminal and 2 elsewhere.
        start: another run, or its folder, whose best weights this one begins with, as a
            fine-tuning stage does. It must be of the same architecture; dropout, regularisers,
            optimizer and schedule may differ. Its vocabulary is taken too. The new run has copies
            of both, so it is resumed without `start`.
        data: the data, if it is loaded already; `data_dir` is then not read.
        checkpoint_seconds: time between two checkpoints within an epoch.
        checkpoint_steps: steps between two checkpoints, instead of a time.
        console: a `rich` console to report on.
        watch: write what TensorBoard shows beside the curves: the paper's figure, pictures,
            embeddings, HParams. By default without pictures for a run of a few seconds.
        strategy: `"mirrored"` to train on several devices of this machine, `"multi_worker"` on
            several machines, `"one"` on one device; or a `tf.distribute.Strategy`. See
            `keras_seq.training.strategy`. A resumed run remembers its own.
        devices: which devices, see `keras_seq.training.strategy`.
        data_service: address of a tf.data service that makes the training batches, as
            `keras_seq.training.DataService` or `keras-seq data-service` starts one.
        data_service_share: `NAME:INDEX/COUNT`, if COUNT runs with the same data read the same
            batches, in step, from one job of the service. NAME must be a new one each time.

    Returns:
        The finished `Run`; or the stopped one, if Ctrl-C or SIGTERM asked for it. Of several
        machines, only the first has the whole run; on the others it is a copy that ends with the
        process.

    Raises:
        ValueError: for settings that do not fit.
        FileExistsError: if the folder holds a run and `resume` is not set.
        RuntimeError: if another process trains in the folder.
        TrainingError: if the loss was not a finite number. The run keeps the best weights, and its
            checkpoint the last good ones. Or if another of several machines is gone.

    Example:

    ```python
    run = keras_seq.training.train("trellisnet_python_docs", max_steps=10, epochs=1)
    print(run.history[-1]["val_bits"], run.folder)
    ```
    """
    console = console or Console()
    epochs, max_steps, seed = plain((epochs, max_steps, seed))
    where = {"strategy": strategy, "devices": devices}
    if resume and strategy is None and devices is None:
        where = _remembered(recipe, run_dir)
    if where["strategy"] != "multi_worker":  # there, one thread would also answer the others
        order_operations()
    cluster = Cluster(resolve(where["strategy"], where["devices"]))
    with contextlib.ExitStack() as held:
        with cluster.together():
            if cluster.chief:
                former_folder = run_folder.find(recipe, run_dir) if resume else None
                if former_folder is not None and (former_folder / "recipe.json").is_file():
                    held.enter_context(run_folder.held(former_folder, new=False))
                    run_dir = former_folder
                chosen = Chosen(*run_folder.choose(recipe, run_dir, epochs, seed, resume), start)
                if cluster.workers > 1:
                    joining.tell(cluster, chosen)
            else:
                chosen, verbose = joining.hear(cluster, scratch_folder()), 0
        folder, recipe, former, start = chosen
        resumed = Run(folder) if folder is not None and former else None
        source = starting.source(start if cluster.chief or not former else None, resumed)
        if source is not None and source.recipe.data.name == recipe.data.name:
            data_dir = data_dir or source.status.get("data_dir")
        data_dir = data_dir or former.get("data_dir")
        max_steps = max_steps or former.get("max_steps")
        with cluster.together(), building.precision(recipe):
            keras.utils.set_random_seed(recipe.seed)
            if data is None:
                changes = starting.data_changes(recipe, source)
                data = building.load_data(recipe, data_dir, **changes)
            if resumed is not None:
                starting.keep_vocabulary(resumed, data)
            fitted = building.fit_to_data(recipe, data)
            limits = Limits(
                fitted.epochs, max_steps, data.steps_per_epoch, checkpoint_seconds, checkpoint_steps
            )
            items, vocabulary = _items_per_step(fitted, data), data.vocabulary
            level = None if vocabulary is None else vocabulary.level
            reporter = Reporter(fitted, console, verbose, limits, items, level)
            for name, size in building.sizes_of(data).items():
                if fitted.model.get(name) != recipe.model.get(name):
                    what = "tokens" if name == "vocabulary_size" else name
                    reporter.note(f"The data have {size} {what}: model.{name}={size}.")
            batches = Source(data, cluster, data_service, data_service_share)
            with cluster.scope():
                model = building.build_model(fitted)
            _check_monitor(fitted, model)
            cluster.check(model, fitted)
            if resumed is None and source is not None:
                starting.check(fitted, data, source)
            facts = {
                "data": dict(data.info),
                "data_dir": None if data_dir is None else str(_absolute(data_dir)),
                "max_steps": max_steps,
                "strategy": _to_remember(where, cluster),
                "versions": {
                    "python": sys.version.split()[0],
                    "keras": keras.version(),
                    "tensorflow": _tensorflow_version(),
                },
            }
            # Only now, when recipe and data have proved to fit, is there anything to keep.
            folder = folder or run_folder.new_folder(fitted.name)
            if resumed is None:
                held.enter_context(run_folder.held(folder, new=True))
                starting.prepare(folder, data, source, facts)
            else:
                resumed.update_status(**facts)
            whole = json.loads(fitted.to_json())
            _files.write_json(folder / "recipe.json", whole, checked=True)  # the last of a new run
            run = Run(folder)
            training = Training(run, fitted, data, limits, reporter, cluster, batches)
            # Not on several machines: what one alone reads of the model could wait for the others.
            watching = cluster.workers == 1 and watch is not False
            more = [Watch(run, fitted, data, reporter.note, bool(watch))] if watching else []
            with cluster.scope():
                training.go(model, [*callbacks, *more])
    return run


def _remembered(recipe: Recipe | str | None, run_dir: str | Path | None) -> dict[str, Any]:
    """The strategy and the devices of the run that is to go on."""
    folder = run_folder.find(recipe, run_dir)
    known: dict[str, Any] = {}
    if folder is not None and (folder / "recipe.json").is_file():
        known = Run(folder).status.get("strategy") or {}
    return {"strategy": known.get("name"), "devices": known.get("devices")}


def _check_monitor(recipe: Recipe, model: keras.Model) -> None:
    """Refuses a quantity that no epoch will have, before the first one is trained."""
    known = ["loss", *(metric.name for metric in model.metrics), *COLUMNS]
    if recipe.monitor.removeprefix("val_") not in known:
        names = ", ".join(f"val_{name}" for name in dict.fromkeys(known) if name not in COLUMNS)
        raise ValueError(
            f"`monitor` must be one of: {names}, or without val_ for the training split. "
            f"Received: monitor={recipe.monitor!r}."
        )


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _to_remember(where: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """What the status says of the devices. A strategy that was given as an object has no name."""
    name, devices = where["strategy"], where["devices"]
    if name is None and devices is not None:
        name = "mirrored"
    if not isinstance(devices, str | int | None):
        devices = list(devices)
    named = {"name": name, "devices": devices} if isinstance(name, str) else {}
    place = {"workers": cluster.workers, "index": cluster.index}
    return {**named, "replicas": cluster.replicas, **place}


def _items_per_step(recipe: Recipe, data: Data) -> float:
    """Tokens that a training step scores on average; for other tasks, examples."""
    size = recipe.data.batch_size
    if not TASKS[recipe.task].of_text:
        return size
    tokens = data.info.get("tokens", {})
    if isinstance(tokens, dict) and "train" in tokens:
        return min(tokens["train"] / data.steps_per_epoch, size * (recipe.data.length or 1e9))
    return size * (recipe.data.length or 1)


def _tensorflow_version() -> str:
    import tensorflow as tf

    return tf.__version__
