"""Commands about models: `list`, `describe`, `convert`."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from keras_seq.cli.errors import UsageError
from keras_seq.cli.options import Debug, Json, Settings
from keras_seq.cli.output import Output, command
from keras_seq.cli.settings import apply_settings, known_keys


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("list")(list_models)
    app.command("describe")(describe)
    app.command("convert")(convert)


def find_recipe(name: str, variant: str | None = None):
    """The recipe of a model's name; a `UsageError` for an unknown one."""
    from keras_seq import zoo

    try:
        return zoo.recipe(name, variant)
    except ValueError as error:
        raise UsageError(str(error)) from None


def list_models(json_wanted: Json = False, debug: Debug = False) -> None:
    """List the models of the zoo with their sizes and the figures that their papers report."""
    command(_list)(json_wanted, debug)


def _list(output: Output) -> None:
    from keras_seq import zoo

    rows = [model_row(zoo.recipe(name)) for name in zoo.names()]
    if output.json_wanted:
        output.document(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "family", "task", "parameters", "reported", "source"):
        right = title in ("parameters", "reported")
        table.add_column(title, justify="right" if right else "left", no_wrap=title == "model")
    for row in rows:
        table.add_row(
            row["name"],
            row["family"],
            row["task"].replace("_", " "),
            f"{row['parameters']:,}",
            _figure(row),
            row["source"],
        )
    if not output.console.is_terminal:
        output.console.width = 160
    output.console.print(table)


def model_row(recipe) -> dict[str, Any]:
    """What `list --json` says of a model."""
    return {
        "name": recipe.name,
        "family": recipe.family,
        "task": recipe.task,
        "parameters": recipe.parameters,
        "reported": recipe.reported.value,
        "metric": recipe.reported.metric,
        "source": recipe.reported.source,
        "size": recipe.reported.size,
        "data": recipe.data.name,
        "variants": sorted(recipe.variants),
        "summary": recipe.summary,
        "paper": recipe.paper,
    }


def _figure(row: dict[str, Any]) -> str:
    if row["reported"] is None:
        return "-"
    return f"{row['reported']:g} {row['metric'].replace('_', ' ')}"


def describe(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="A model's name or a run folder.")
    ] = "trellisnet_python_docs",
    settings: Settings = None,
    variant: Annotated[str | None, typer.Option(help="A named variant of the recipe.")] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build the model and list its weights.")
    ] = False,
    json_wanted: Json = False,
    debug: Debug = False,
) -> None:
    """Describe a model: its paper, its settings and how it is trained."""
    command(_describe)(
        json_wanted, debug, model=model, settings=settings or [], variant=variant, build=build
    )


def _describe(
    output: Output, model: str, settings: list[str], variant: str | None, build: bool
) -> None:
    recipe = apply_settings(_recipe_of(model, variant), settings)
    facts = model_row(recipe) | {
        "notes": recipe.notes,
        "settings": known_keys(recipe),
    }
    facts["variants"] = {name: dict(changes) for name, changes in recipe.variants.items()}
    if build:
        facts["built"] = _built(recipe)
    if output.json_wanted:
        output.document(facts)
        return
    output.line(f"{recipe.name}: {recipe.summary}")
    output.line(recipe.paper)
    if recipe.notes:
        output.line(recipe.notes)
    output.line(f"\nparameters  {recipe.parameters:,}")
    output.line(f"reported    {_figure(facts)} ({recipe.reported.source})")
    for name, changes in facts["variants"].items():
        listed = ", ".join(f"{key}={value}" for key, value in changes.items())
        output.line(f"variant     {name}: {listed}")
    output.line("\nSettings, each of which --set changes:")
    for key, value in facts["settings"].items():
        absent = "(default)" if key.startswith("model.") else "(none)"
        output.line(f"  {key} = {absent if value is None else value}")
    if build:
        built = facts["built"]
        output.line(f"\nWeights ({built['parameters']:,} trainable parameters):")
        for weight in built["weights"]:
            output.line(f"  {weight['path']}  {tuple(weight['shape'])}")
        if built["receptive_field"]:
            output.line(f"receptive field  {built['receptive_field']} steps")


def _recipe_of(model: str, variant: str | None):
    if (Path(model) / "recipe.json").is_file():
        from keras_seq.training import load_run

        return load_run(model).recipe.variant(variant)
    return find_recipe(model, variant)


def _built(recipe) -> dict[str, Any]:
    from keras_seq.training.building import build_model

    model = build_model(recipe)
    return {
        "parameters": count_parameters(model),
        "receptive_field": getattr(getattr(model, "core", None), "receptive_field", None),
        "weights": [
            {"path": weight.path, "shape": list(weight.shape)}
            for weight in model.trainable_variables
        ],
    }


def count_parameters(model) -> int:
    """Trainable parameters of a model."""
    return sum(math.prod(weight.shape) for weight in model.trainable_variables)


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weight file of a release.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model that it belongs to.")],
    to: Annotated[
        Path, typer.Option("--to", help="File to write, ending in .weights.h5 or .keras.")
    ],
    settings: Settings = None,
    variant: Annotated[str | None, typer.Option(help="A named variant of the recipe.")] = None,
    json_wanted: Json = False,
    debug: Debug = False,
) -> None:
    """Convert the weights of an original PyTorch release to a model of the zoo.

    Nothing in the file is executed. The result holds the recipe too: `keras-seq evaluate` takes it.
    """
    command(_convert)(
        json_wanted,
        debug,
        file=file,
        model=model,
        to=to,
        settings=settings or [],
        variant=variant,
    )


def _convert(
    output: Output, file: Path, model: str, to: Path, settings: list[str], variant: str | None
) -> None:
    if not to.name.endswith((".weights.h5", ".keras")):
        raise UsageError(f"--to must end in .weights.h5 or .keras. Received: {to}.")
    recipe = apply_settings(find_recipe(model, variant), settings)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    from keras_seq import convert as conversion
    from keras_seq.training.building import build_model
    from keras_seq.training.weights_file import save_model_file

    built = build_model(recipe)
    conversion.load_reference(built, file)
    save_model_file(built, to, recipe)
    count = count_parameters(built)
    if output.json_wanted:
        output.document({"model": recipe.name, "file": str(to), "parameters": count})
        return
    output.line(f"{to}: {count:,} parameters of {recipe.name}.")
    output.line(f"Next: keras-seq evaluate {to}")
