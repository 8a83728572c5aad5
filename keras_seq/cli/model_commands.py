"""Commands about models: `list`, `describe`, `convert`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from keras_seq._tasks import metric_of
from keras_seq.cli.errors import UsageError
from keras_seq.cli.options import DEFAULT_MODEL, Settings, Variant
from keras_seq.cli.output import Output, command
from keras_seq.cli.settings import apply_settings, known_keys
from keras_seq.cli.sources import find_recipe


@command
def list_models(output: Output) -> None:
    """List the models of the zoo with their sizes and the figures that their papers report."""
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
        "validation": recipe.reported.validation,
        "metric": recipe.reported.metric,
        "source": recipe.reported.source,
        "size": recipe.reported.size,
        "data": recipe.data.name,
        "variants": sorted(recipe.variants),
        "summary": recipe.summary,
        "paper": recipe.paper,
    }


def _figure(row: dict[str, Any]) -> str:
    value, of = row["reported"], ""
    if value is None:
        value, of = row["validation"], " (validation)"
    return "-" if value is None else f"{metric_of(row['metric']).reported(value)}{of}"


@command
def describe(
    output: Output,
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="A model's name or a run folder.")
    ] = DEFAULT_MODEL,
    settings: Settings = None,
    variant: Variant = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build the model and list its weights.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the architecture to a PNG file."),
    ] = None,
    cost: Annotated[
        bool, typer.Option(help="Count operations and memory, which takes seconds.")
    ] = True,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Run three training steps and measure their memory, too."),
    ] = False,
) -> None:
    """Describe a model: its paper, its settings, what it costs and how it is trained.

    Operations and memory are counted for the batch of the recipe, in a graph that is never run.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture must end in .png. Received: {picture}.")
    recipe = apply_settings(_recipe_of(model, variant), settings or [])
    facts = model_row(recipe) | {
        "notes": recipe.notes,
        "settings": known_keys(recipe),
    }
    facts["variants"] = {name: dict(changes) for name, changes in recipe.variants.items()}
    if build:
        facts["built"] = _built(recipe)
    if cost:
        facts["cost"] = _cost(recipe)
    if measure:
        from keras_seq.analysis import measure_step

        facts["measured_step_bytes"] = measure_step(recipe)
    if picture is not None:
        facts["picture"] = str(picture)
        _draw(recipe, picture, facts.get("cost"))
    if output.json_wanted:
        output.document(facts)
        return
    output.line(f"{recipe.name}: {recipe.summary}")
    output.line(recipe.paper)
    if recipe.notes:
        output.line(recipe.notes)
    output.line()
    lines = [("parameters", f"{recipe.parameters:,}"), *_costs(facts)]
    lines.append(("reported", f"{_figure(facts)} ({recipe.reported.source})"))
    for name, changes in facts["variants"].items():
        listed = ", ".join(f"{key}={value}" for key, value in changes.items())
        lines.append(("variant", f"{name}: {listed}"))
    for label, text in lines:
        output.line(f"{label:<17}{text}")
    output.line("\nSettings, each of which --set changes:")
    for key, value in facts["settings"].items():
        absent = "(default)" if key.startswith("model.") else "(none)"
        output.line(f"  {key} = {absent if value is None else value}")
    if build:
        built = facts["built"]
        output.line(f"\nWeights ({built['parameters']:,} trainable parameters):")
        for weight in built["weights"]:
            output.line(f"  {weight['path']}  {tuple(weight['shape'])}")
    if picture is not None:
        output.line(f"\n{picture}: the architecture.")


def _cost(recipe) -> dict[str, Any]:
    """What `describe --json` says of the cost."""
    from keras_seq import analysis

    found = analysis.cost(recipe)
    return {**dataclasses.asdict(found), "step_bytes": found.step_bytes}


def _costs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Labels and figures of what a model costs."""
    lines = []
    cost = facts.get("cost")
    if cost is not None:
        flops = f"{cost['flops_per_token']:,} a token"
        if cost["solver_steps"]:
            flops = (
                f"at most {flops}: {cost['solver_steps']} solver steps of "
                f"{cost['flops_per_solver_step']:,}"
            )
        lines.append(("FLOPs", f"{flops} (matrix products and convolutions, forward)"))
        kept = _mebibytes(cost["activation_bytes"])
        total = _mebibytes(cost["step_bytes"])
        batch = f"{cost['batch_size']} x {cost['steps']} steps"
        lines.append(
            ("memory", f"{total} a training step of {batch}, estimated; activations: {kept}")
        )
        field = cost["receptive_field"]
        lines.append(("receptive field", _steps(field)))
    if "measured_step_bytes" in facts:
        lines.append(("measured", f"{_mebibytes(facts['measured_step_bytes'])} for such a step"))
    return lines


def _steps(field: int | str) -> str:
    return f"{field} steps" if isinstance(field, int) else field


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _draw(recipe, picture: Path, cost: dict[str, Any] | None) -> None:
    from keras_seq import _files, analysis

    footer = f"{recipe.parameters:,} parameters"
    if cost is not None:
        most = "at most " if cost["solver_steps"] else ""
        footer = f"{cost['parameters']:,} parameters · {most}{cost['flops_per_token']:,} FLOPs a "
        footer += f"token · receptive field: {_steps(cost['receptive_field'])}"
    drawn = analysis.draw_architecture(analysis.architecture(recipe), footer)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with _files.atomic(picture, suffix=".png") as temporary:
        temporary.write_bytes(drawn)


def _recipe_of(model: str, variant: str | None):
    if (Path(model) / "recipe.json").is_file():
        from keras_seq.training import load_run

        return load_run(model).recipe.variant(variant)
    return find_recipe(model, variant)


def _built(recipe) -> dict[str, Any]:
    import tensorflow as tf

    from keras_seq.models.size import count_parameters
    from keras_seq.training.building import build_model

    with tf.Graph().as_default():  # nothing is allocated there
        model = build_model(recipe)
    return {
        "parameters": count_parameters(model),
        "receptive_field": model.receptive_field,
        "weights": [
            {"path": weight.path, "shape": list(weight.shape)}
            for weight in model.trainable_variables
        ],
    }


@command
def convert(
    output: Output,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A weight file of a release, or of keras-tcn.")
    ],
    to: Annotated[
        Path, typer.Option("--to", help="File to write, ending in .weights.h5 or .keras.")
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="The model that it belongs to. Without: that of a .keras file of keras-tcn.",
        ),
    ] = None,
    settings: Settings = None,
    variant: Variant = None,
) -> None:
    """Convert the weights of an original PyTorch release, or of keras-tcn, to a model of the zoo.

    Nothing in the file is executed. The result holds the recipe too: `keras-seq evaluate` takes it.
    Without MODEL, a `.keras` file of keras-tcn becomes the same Keras model with layers of ours.
    """
    if not to.name.endswith((".weights.h5", ".keras")):
        raise UsageError(f"--to must end in .weights.h5 or .keras. Received: {to}.")
    if model is None:
        if settings or variant or file.suffix != ".keras":
            raise UsageError(
                "Give the MODEL that the weights belong to. Without, FILE must be a .keras file of "
                f"keras-tcn, and neither --set nor --variant is taken. Received: {file}."
            )
        _convert_keras_tcn(output, file, to)
        return
    recipe = apply_settings(find_recipe(model, variant), settings or [])
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    from keras_seq import convert as conversion
    from keras_seq.models.size import count_parameters
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


def _convert_keras_tcn(output: Output, file: Path, to: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    from keras_seq import convert as conversion
    from keras_seq.convert.reference import write_model
    from keras_seq.models.size import count_parameters

    model = conversion.load_keras_tcn(file)
    write_model(model, to)
    count = count_parameters(model)
    if output.json_wanted:
        output.document({"model": model.name, "file": str(to), "parameters": count})
        return
    output.line(f"{to}: {count:,} parameters of the Keras model {model.name!r}.")
