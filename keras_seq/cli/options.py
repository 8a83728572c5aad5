"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output and nothing else."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and TensorFlow's messages.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the raw data files, where the data need any."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="For a MODEL, a weights file or the name of shipped weights; `best` or `last` for a "
        "RUN.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, for example --set units=64 or "
        "--set optimizer.learning_rate=1e-3. May be repeated.",
    ),
]

# Options of `evaluate`. The defaults of its settings are those of the functions in `training`.
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Rows read at once.  [default: the recipe's]"),
]
Dynamic = Annotated[
    bool, typer.Option("--dynamic", help="Dynamic evaluation: learn from the text while reading.")
]
DynamicRate = Annotated[
    float | None, typer.Option("--dynamic-rate", min=0, help="Its learning rate.  [default: 0.002]")
]
DynamicDecay = Annotated[
    float | None,
    typer.Option("--dynamic-decay", min=0, help="Pull to the trained weights.  [default: 0.02]"),
]
DynamicSteps = Annotated[
    int | None,
    typer.Option(
        "--dynamic-steps",
        min=1,
        help="Tokens of a row between two updates.  [default: the recipe's length]",
    ),
]
DynamicBatches = Annotated[
    int | None,
    typer.Option(
        "--dynamic-batches",
        min=1,
        help="Training batches for the gradient statistics.  [default: one epoch]",
    ),
]
Cache = Annotated[bool, typer.Option("--cache", help="Add a neural cache of the last words.")]
CacheSize = Annotated[
    int | None, typer.Option("--cache-size", min=1, help="Words in it.  [default: 500]")
]
CacheTheta = Annotated[
    float | None, typer.Option("--cache-theta", min=0, help="Its sharpness.  [default: 0.66]")
]
CacheLambda = Annotated[
    float | None,
    typer.Option("--cache-lambda", min=0, max=1, help="Its share, below 1.  [default: 0.13]"),
]

# Options of `train` about devices and machines.
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="`mirrored`: several devices of this machine; `multi_worker`: the machines of "
        "TF_CONFIG; `one`.",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        help="How many devices, or their names: 2, or GPU:0,GPU:1.  [default: all GPUs]",
    ),
]
DataService = Annotated[
    str | None,
    typer.Option(
        "--data-service",
        metavar="ADDRESS",
        help="Let a tf.data service make the training batches, see `keras-seq data-service`.",
    ),
]
DataServiceShare = Annotated[
    str | None,
    typer.Option(
        "--data-service-share",
        metavar="NAME:INDEX/COUNT",
        help="Read the same batches as COUNT - 1 other runs that are started with this name.",
    ),
]
