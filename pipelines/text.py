"""`text`: any text files."""

import dataclasses
from pathlib import Path

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.corpus_data import load_corpus
from keras_seq.pipelines.corpus_files import data_folder
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.text_options import TextOptions
from keras_seq.pipelines.text_source import TextSource, find_split

_NAMES = {
    "train": ("train.txt",),
    "validation": ("valid.txt", "validation.txt"),
    "test": ("test.txt",),
}


@dataclasses.dataclass(frozen=True)
class UserTextOptions(TextOptions):
    """Options of `text`, beside those of every text.

    Attributes:
        level: `"character"` (Unicode code points) or `"word"` (between ASCII white space; a line
            end is `<eos>`).
        fractions: parts of a single file for training, validation and test, in this order. The
            last ends where the file does. A part of 0 is left out.
        file: the single file. Defaults to the one text file in `data_dir`.
        train_file, validation_file, test_file: the files of the splits. Relative paths are
            looked up in `data_dir`.
    """

    level: str = "character"
    fractions: tuple[float, ...] = (0.9, 0.05, 0.05)
    file: str | Path | None = None
    train_file: str | Path | None = None
    validation_file: str | Path | None = None
    test_file: str | Path | None = None


@register("text", UserTextOptions())
def text(request: Request, options: UserTextOptions) -> Data:
    """Texts of your own: one file that is cut into parts, or one file a split."""
    if options.level not in ("word", "character"):
        raise ValueError(
            f"`level` must be 'word' or 'character'. Received: level={options.level!r}."
        )
    sources = _sources(request, options)
    splits = tuple(split for split in options.splits if split in sources)
    form = "words" if options.level == "word" else "characters"
    if tuple(options.splits) == TextOptions.splits:
        options = dataclasses.replace(options, splits=splits)
    return load_corpus(
        request, options, Corpus("text", sources, form), level=options.level, remedy="Give it."
    )


def _sources(request: Request, options: UserTextOptions) -> dict[str, TextSource]:
    folder = data_folder(request.data_dir)

    def locate(name: str | Path) -> Path:
        path = Path(name).expanduser()
        return path if path.is_absolute() or folder is None else folder / path

    given = {
        "train": options.train_file,
        "validation": options.validation_file,
        "test": options.test_file,
    }
    if any(name is not None for name in given.values()):
        if options.file is not None:
            raise ValueError("Give `file` or the files of the splits, not both.")
        return {s: TextSource(locate(name)) for s, name in given.items() if name is not None}
    if options.file is not None:
        return _parts(locate(options.file), options.fractions)
    if folder is None:
        raise MissingDataError(
            "no text was given.", remedy="Give `data_dir`, or `file`, or `train_file` and others."
        )
    if folder.is_file():
        return _parts(folder, options.fractions)
    if not folder.is_dir():
        raise MissingDataError("no such file or folder.", path=folder, remedy="Check `data_dir`.")
    found = {s: find_split([folder], names) for s, names in _NAMES.items()}
    if found["train"] is not None:
        return {split: source for split, source in found.items() if source is not None}
    texts = sorted(p for p in folder.iterdir() if p.name.endswith((".txt", ".txt.gz")))
    if len(texts) == 1:
        return _parts(texts[0], options.fractions)
    listing = ", ".join(p.name for p in texts) or "none"
    raise MissingDataError(
        f"neither train.txt nor a single text file. Text files here: {listing}.",
        path=folder,
        remedy="Give `file`, or `train_file`, `validation_file` and `test_file`.",
    )


def _parts(path: Path, fractions: tuple[float, ...]) -> dict[str, TextSource]:
    """One file cut by characters; a part that would be empty is left out."""
    if not 1 <= len(fractions) <= 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "`fractions` must be up to three numbers >= 0 whose sum is 1. "
            f"Received: fractions={fractions!r}."
        )
    content = TextSource(path).read()
    try:
        characters = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"the byte {content[error.start]:#04x} is not valid UTF-8 here.",
            path=path,
            place=f"byte {error.start}, line {line}",
            remedy="Convert the file to UTF-8, for example with `iconv -t UTF-8`.",
        ) from error
    parts, start, total = {}, 0, 0.0
    for split, fraction in zip(_NAMES, fractions, strict=False):
        total += fraction
        stop = int(len(characters) * total + 1e-6)
        if fraction:
            label = f"{path} ({split}: characters {start} to {stop})"
            parts[split] = TextSource(content=characters[start:stop].encode(), label=label)
        start = stop
    return parts
