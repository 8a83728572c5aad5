"""What commands read models from: runs, models of the zoo, model files."""

from pathlib import Path
from typing import Annotated

import typer

from keras_seq.cli.errors import UsageError

RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN|MODEL", help="A run folder, a model's name, or a .weights.h5 or .keras file."
    ),
]


def check_source(source: str) -> None:
    """A `UsageError` for what is neither a run nor a file nor a model."""
    from keras_seq import zoo

    if Path(source).is_file() or (Path(source) / "recipe.json").is_file():
        return
    if source not in zoo.names():
        from keras_seq.training.evaluation import unknown_source

        raise UsageError(unknown_source(source))


def vocabulary_of(source: str, recipe, run, weights: str | None, data_dir: Path | None):
    """The vocabulary of a run, of shipped weights, or of the data of a recipe.

    `None` for a model without one.
    """
    if run is not None:
        return run.vocabulary
    if recipe.task != "language_model":
        return None
    from keras_seq import training
    from keras_seq.pipelines import Vocabulary

    shipped = training.shipped_set(source, weights)
    if shipped is not None and shipped.vocabulary_file is not None:
        return Vocabulary.load(shipped.vocabulary_file)
    from keras_seq.training.building import load_data

    return load_data(recipe, data_dir).vocabulary
