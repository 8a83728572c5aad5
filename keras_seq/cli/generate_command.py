"""The command `generate`: text or a tune from a trained model."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_seq._tasks import TASKS
from keras_seq.cli.errors import UsageError
from keras_seq.cli.options import DEFAULT_MODEL, DataDir, Weights
from keras_seq.cli.output import Output, command
from keras_seq.cli.parsing import stop_texts
from keras_seq.cli.sources import open_source

TUNES = ("train", "validation", "test")  # the splits that --prime takes tunes from
PICTURE = ".png"  # of a tune, beside its MIDI file


@command
def generate(
    output: Output,
    source: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|MODEL]",
            help="A run folder, a model's name (without --weights, its shipped weights are taken), "
            "or a .weights.h5 or .keras file.",
        ),
    ] = DEFAULT_MODEL,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    length: Annotated[int, typer.Option(min=1, help="Tokens, or frames, to generate.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 for likelier text, 0 for the likeliest token.")
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(min=0, help="Draw from the so many likeliest tokens; 0 for all.")
    ] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Draw from this share of the probability.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help=r"End before this token or text, as <eos> or '\n\n'. May be repeated.",
        ),
    ] = None,
    ban: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="Never take it, for example <unk>. May be repeated."),
    ] = None,
    repetition_penalty: Annotated[
        float,
        typer.Option(help="Above 1, tokens that the text holds become less likely; 1 for none."),
    ] = 1.0,
    beams: Annotated[
        int,
        typer.Option(min=1, help="Above 1, search the likeliest text with so many beams."),
    ] = 1,
    length_penalty: Annotated[
        float,
        typer.Option(min=0.0, help="Of the search: 0 compares texts, 1 their mean token."),
    ] = 0.0,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File to write: a MIDI file, with a picture beside it; or text."),
    ] = None,
    prime: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SPLIT:N",
            help="The tune to continue: a MIDI file, or one of the data, for example test:12.",
        ),
    ] = None,
    prime_frames: Annotated[
        int, typer.Option(min=1, help="The first so many frames of --prime are taken.")
    ] = 64,
    top_notes: Annotated[
        int, typer.Option(min=0, help="At most so many notes in a frame; 0 for any number.")
    ] = 0,
    weights: Weights = None,
    data_dir: DataDir = None,
) -> None:
    """Continue a text token by token, or a tune frame by frame.

    Without a model, text comes from a small one that ships with the package. A tune is written to
    the MIDI file of --to, with its piano roll as a picture beside it.
    """
    opened = open_source(source, weights or _shipped(source), data_dir)
    recipe = opened.recipe
    makes = TASKS[recipe.task].makes
    if makes is None:
        raise UsageError(
            f"{recipe.name} is no language model and no model of tunes; it generates nothing."
        )
    draws = {"length": length, "seed": seed, "temperature": temperature}
    only = {  # the options of what a model makes, where they are given
        "text": {
            "--prompt": prompt,
            "--top-k": top_k,
            "--top-p": top_p < 1,
            "--stop": stop,
            "--ban": ban,
            "--repetition-penalty": repetition_penalty != 1,
            "--beams": beams > 1,
            "--length-penalty": length_penalty,
        },
        "tunes": {"--prime": prime, "--top-notes": top_notes},
    }
    (others,) = (options for kind, options in only.items() if kind != makes)
    for name, given in others.items():
        if given:
            raise UsageError(f"{recipe.name} makes {makes}, for which there is no {name}.")
    if makes == "text":
        drawing = {"--temperature": temperature != 1, "--top-k": top_k, "--top-p": top_p < 1}
        for name, given in drawing.items():
            if given and beams > 1:
                raise UsageError(f"--beams searches and draws nothing. Leave {name} out.")
        _text(
            output,
            opened,
            to,
            prompt,
            top_k=top_k,
            top_p=top_p,
            stop=stop_texts(stop, opened.vocabulary),
            ban=ban or [],
            repetition_penalty=repetition_penalty,
            beams=beams,
            length_penalty=length_penalty,
            **draws,
        )
        return
    if to is None:
        raise UsageError(f"{recipe.name} makes tunes. Give the MIDI file to write: --to tune.mid.")
    if to.suffix.lower() == PICTURE:  # the picture would take the place of the tune
        raise UsageError(
            f"--to is the MIDI file of the tune, beside which its picture ends in {PICTURE}. "
            f"Give another ending, for example {to.with_suffix('.mid')}. Received: {to}."
        )
    start = None if prime is None else _prime(prime, opened)[:prime_frames]
    _tune(output, opened, to, start, top_notes=top_notes, **draws)


def _shipped(source: str) -> str | None:
    """The shipped weights of a model's name; `None` for others, and where none ship."""
    from keras_seq import zoo

    if (Path(source) / "recipe.json").is_file() or Path(source).is_file():
        return None
    sets = zoo.weights(source)
    return sets[0].name if sets else None


def _text(output: Output, opened, to: Path | None, prompt: str, **options: Any) -> None:
    from keras_seq import _files, generation

    pieces = generation.generate(opened.model, opened.vocabulary, prompt, **options)
    if not output.json_wanted and to is None:
        sys.stdout.write(prompt)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    text = "".join(pieces)
    if to is not None:
        _files.write_text(to, f"{prompt}{text}\n")
    if output.json_wanted:
        output.document({"model": opened.recipe.name, "prompt": prompt, "text": text})
    else:
        output.line(f"{to}: written.")


def _tune(output: Output, opened, to: Path, start, **options: Any) -> None:
    import numpy as np

    from keras_seq import generation

    name = opened.recipe.name
    made = np.array(list(generation.generate_frames(opened.model, start, **options)))
    begun = 0 if start is None else len(start)
    frames = made if start is None else np.concatenate([start, made])
    generation.write_midi(to, frames)
    picture = to.with_suffix(PICTURE)
    drawn = generation.draw_piano_roll(picture, frames, prime=begun, title=name)
    if output.json_wanted:
        pitches = [[int(note) + 21 for note in np.flatnonzero(frame)] for frame in made]
        document = {"model": name, "midi": str(to), "picture": str(picture) if drawn else None}
        output.document({**document, "prime_frames": begun, "pitches": pitches})
        return
    output.line(f"{to}: {begun} frames of the prime and {len(made)} made.")
    if drawn:
        output.line(f"{picture}: the piano roll.")
    else:
        output.line('No picture: it needs matplotlib (pip install "keras-seq[plots]").')


def _prime(prime: str, opened):
    """The frames of a MIDI file, or of a tune of the data."""
    from keras_seq import generation

    if Path(prime).is_file():
        return generation.read_midi(prime)
    split, colon, number = prime.partition(":")
    if not colon or split not in TUNES or not number.isdecimal():
        raise UsageError(
            "--prime takes a MIDI file that exists, or a tune of the data as test:12 "
            f"(splits: {', '.join(TUNES)}). Received: {prime}."
        )
    from keras_seq.pipelines.music import read_music

    tunes = read_music(Path(opened.data().info["source"]))[split]
    if int(number) >= len(tunes):
        raise UsageError(f"--prime {prime}: {split} has the tunes 0 to {len(tunes) - 1}.")
    return tunes[int(number)]
