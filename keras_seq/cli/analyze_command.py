"""The command `analyze`: entropies, saliency and embeddings of a language model."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq.cli.errors import UsageError, check_choice
from keras_seq.cli.options import SPLITS, DataDir, RunOrModel, Split, Weights
from keras_seq.cli.output import Output, command
from keras_seq.cli.sources import check_source


@command
def analyze(
    output: Output,
    source: RunOrModel,
    text: Annotated[
        str | None,
        typer.Option(help="The passage of the saliency map.  [default: the first of the split]"),
    ] = None,
    tags: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Lines WORD<TAB>TAG, for example parts of speech, to group by."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder to write.  [default: RUN/analysis, or else analysis/MODEL]"
        ),
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the largest gradient that counts as covered."),
    ] = 0.1,
    split: Split = "test",
    weights: Weights = None,
    data_dir: DataDir = None,
) -> None:
    """Look into a language model: how sure it is, what it looks at, how its words lie.

    Writes analysis.json, entropy.png, saliency.png and embeddings.png, and the pictures for
    TensorBoard. Without matplotlib, --json still gives the numbers.
    """
    check_choice("--split", split, SPLITS)
    if fraction >= 1:
        raise UsageError(f"--fraction must be below 1. Received: {fraction}.")
    if tags is not None and not tags.is_file():
        raise UsageError(f"--tags {tags}: no such file.")
    check_source(source)
    from keras_seq import analysis
    from keras_seq.analysis import pictures

    draw = pictures.available() or not output.json_wanted
    numbers = analysis.analyze(
        source,
        data_dir,
        split,
        weights=weights,
        text=text,
        tags=tags,
        to=to,
        fraction=fraction,
        draw=draw,
    )
    if output.json_wanted:
        output.document(numbers)
        return
    _show(output, numbers)


def _show(output: Output, numbers: dict[str, Any]) -> None:
    entropy, coverage = numbers["entropy"], numbers["coverage"]
    output.line(f"{numbers['model']}, weights: {numbers['weights']}")
    output.line(f"{numbers['data']}, {numbers['split']}: {entropy['tokens']:,} tokens")
    output.line(f"  entropy     mean {entropy['mean']:.4g}, median {entropy['median']:.4g} nats")
    output.line(f"  loss        {entropy['loss']:.4g} nats")
    count = coverage["passages_read"]
    if count:
        output.line(f"  coverage    {coverage['passages']:.1%} of the inputs, {count} passages")
    output.line(f"  coverage    {coverage['shown']:.1%} of the inputs, in the picture")
    embeddings = numbers["embeddings"]
    output.line(f"  embeddings  variance {embeddings['variance']:.4g}")
    for band in embeddings["bands"]:
        ranks = f"{band['first']}-{band['last']}"
        output.line(f"    rank {ranks:14}{band['variance']:.4g}")
    for row in embeddings["tags"] or ():
        output.line(f"    {row['tag']:19}{row['variance']:.4g}  ({row['words']} words)")
    for file in numbers["files"]:
        output.line(f"{file}: written.")
    if numbers["logs"]:
        output.line(f"Next: tensorboard --logdir {shlex.quote(str(Path(numbers['logs']).parent))}")
