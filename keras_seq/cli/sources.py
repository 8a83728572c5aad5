"""What commands read recipes and models from: the zoo, runs, model files."""

from pathlib import Path

from keras_seq.cli.errors import usage


def find_recipe(name: str, variant: str | None = None):
    """The recipe of a model's name; a `UsageError` for an unknown one."""
    from keras_seq import zoo

    with usage():
        return zoo.recipe(name, variant)


def check_source(source: str) -> None:
    """A `UsageError` for what is neither a run nor a file nor a model."""
    from keras_seq.training import opening

    with usage():
        opening.check_source(source)


def open_source(source: str, weights: str | None, data_dir: Path | None):
    """The model of a source, opened; a `UsageError` where there is none."""
    check_source(source)
    from keras_seq import training

    return training.open_model(source, weights, data_dir)
