"""What the processes of one training know of its run: the chief's folder, copied where needed."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from keras_seq.training.cluster import Cluster
from keras_seq.training.run import Run
from keras_seq.zoo import Recipe

_OF_RUN = ("recipe.json", "status.json", "metrics.csv", "vocabulary.txt", "vocabulary.json")


class Chosen(NamedTuple):
    """What a training works on.

    Attributes:
        folder: the run folder; `None` where the recipe's own is to be made.
        recipe: the recipe with its changes.
        former: the status of a run that goes on; else nothing.
        start: the run whose weights a new one begins with.
    """

    folder: Path | None
    recipe: Recipe
    former: dict[str, Any]
    start: Run | str | Path | None


def tell(cluster: Cluster, chosen: Chosen) -> None:
    """Tells the other processes what the chief has chosen.

    The machines need no file system in common: what is needed of a run that goes on, or of one
    whose weights another begins with, is copied.

    Args:
        cluster: the processes.
        chosen: the chief's choice.
    """
    resumed, begun = bool(chosen.former), chosen.start is not None
    document = {"recipe": chosen.recipe.to_json(), "former": chosen.former}
    cluster.share(json.dumps({**document, "resumed": resumed, "begun": begun}).encode())
    if resumed and chosen.folder is not None:
        names = (*_OF_RUN, "start.weights.h5", "backup/checkpoint.npz")
        _send(cluster, chosen.folder, names)
    if chosen.start is not None:
        start = chosen.start
        folder = start.folder if isinstance(start, Run) else Path(start)
        _send(cluster, folder, (*_OF_RUN, "best.weights.h5"))


def hear(cluster: Cluster, scratch: Path) -> Chosen:
    """What the chief has chosen, with folders of this process's own in place of the chief's.

    Args:
        cluster: the processes.
        scratch: a folder for them.
    """
    told = json.loads(cluster.share(None))
    run, start = scratch / "run", scratch / "start"
    run.mkdir()
    if told["resumed"]:
        _receive(cluster, run)
    if told["begun"]:
        _receive(cluster, start)
    recipe = Recipe.from_json(told["recipe"])
    return Chosen(run, recipe, told["former"], start if told["begun"] else None)


def _send(cluster: Cluster, folder: Path, names: tuple[str, ...]) -> None:
    there = [name for name in names if (folder / name).is_file()]
    cluster.share(json.dumps(there).encode())
    for name in there:
        cluster.share((folder / name).read_bytes())


def _receive(cluster: Cluster, folder: Path) -> None:
    for name in json.loads(cluster.share(None)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(cluster.share(None))
