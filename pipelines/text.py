"""`text`: any text files."""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.corpus_data import load_corpus
from keras_seq.pipelines.corpus_files import data_folder
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.text_options import TextOptions
from keras_seq.pipelines.text_source import CHUNK, TextSource, UnixLines, decoded, find_split
from keras_seq.pipelines.vocabulary import Vocabulary

ENDINGS = (".txt", ".txt.gz")
SHOWN = 5  # file names in a message
logger = logging.getLogger(__name__)
_NAMES = {
    "train": ("train.txt",),
    "validation": ("valid.txt", "validation.txt"),
    "test": ("test.txt",),
}


@dataclasses.dataclass(frozen=True)
class UserTextOptions(TextOptions):
    """Options of `text`, beside those of every text.

    Attributes:
        level: `"character"` (Unicode code points; the carriage returns of Windows' line ends go,
            except for a `vocabulary` that has them) or `"word"` (between ASCII white space; a line
            end is `<eos>`).
        fractions: parts of a single file for training, validation and test, in this order, cut
            by characters. The last ends where the file does. A part of 0 is left out.
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
    vocabulary = options.vocabulary
    if isinstance(vocabulary, str | Path) and vocabulary != "splits":
        vocabulary = Vocabulary.load(vocabulary, level=options.level)
    # A vocabulary with the carriage return in it is of a text whose lines kept theirs.
    kept = isinstance(vocabulary, Vocabulary) and b"\r" in vocabulary
    lines = (lambda source: source) if kept else UnixLines
    found = _find(request, options)
    if isinstance(found, Path):
        sources = _parts(found, options.fractions, options.level, lines)
    else:
        sources = {split: lines(source) for split, source in found.items()}
    splits = tuple(split for split in options.splits if split in sources)
    form = "words" if options.level == "word" else "characters"
    options = dataclasses.replace(options, vocabulary=vocabulary)
    if tuple(options.splits) == TextOptions.splits:
        options = dataclasses.replace(options, splits=splits)
    return load_corpus(
        request, options, Corpus("text", sources, form), level=options.level, remedy="Give it."
    )


def _find(request: Request, options: UserTextOptions) -> Path | dict[str, TextSource]:
    """The single file, or the files of the splits."""
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
        return locate(options.file)
    if folder is None:
        raise MissingDataError(
            "no text was given.", remedy="Give `data_dir`, or `file`, or `train_file` and others."
        )
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise MissingDataError("no such file or folder.", path=folder, remedy="Check `data_dir`.")
    found = {s: find_split([folder], names) for s, names in _NAMES.items()}
    if found["train"] is not None:
        return {split: source for split, source in found.items() if source is not None}
    texts = sorted(p for p in folder.iterdir() if p.name.endswith(ENDINGS))
    if len(texts) == 1:
        below = _texts_below(folder)
        if below:
            logger.warning(
                "%s is read alone, not the texts in folders beside it: %s. Give `file` or "
                "`train_file` for others.",
                texts[0],
                ", ".join(below),
            )
        return texts[0]
    listing = ", ".join(p.name for p in texts) or "none"
    raise MissingDataError(
        f"neither train.txt nor a single text file. Text files here: {listing}.",
        path=folder,
        remedy="Give `file`, or `train_file`, `validation_file` and `test_file`.",
    )


def _texts_below(folder: Path) -> list[str]:
    """Some of the text files in the sub-folders, which nobody asked to read; none of runs."""
    names = (
        str(path.relative_to(folder))
        for sub in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
        for path in sorted(sub.glob("*"))
        if path.name.endswith(ENDINGS) and not (sub / "recipe.json").exists()
    )
    return list(itertools.islice(names, SHOWN))


def _parts(
    path: Path, fractions: tuple[float, ...], level: str, lines: Callable
) -> dict[str, TextSource]:
    """One file cut by characters; a part of 0 is left out."""
    if not 1 <= len(fractions) <= 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "`fractions` must be up to three numbers >= 0 whose sum is 1. "
            f"Received: fractions={fractions!r}."
        )
    content = memoryview(lines(TextSource(path)).read())
    if level == "character":
        for _ in decoded(TextSource(content=content, label=str(path))):
            pass  # what is not UTF-8 is told by its place in the whole file
    characters = _Characters(content)
    parts, start, total = {}, 0, 0.0
    for split, fraction in zip(_NAMES, fractions, strict=False):
        total += fraction
        stop = int(characters.count * total + 1e-6)
        if fraction and start == stop:
            raise DataError(
                f"{characters.count} characters are too few for fractions={tuple(fractions)!r}: "
                f"none is left for {split}.",
                path=path,
                remedy="Give a longer text, or fewer parts, as fractions=(1,) does.",
            )
        if fraction:
            label = f"{path} ({split}: characters {start} to {stop})"
            part = content[characters.place(start) if start else 0 : characters.place(stop)]
            parts[split] = TextSource(content=part, label=label)
        start = stop
    return parts


class _Characters:
    """Where the characters of a text begin: at each byte that does not continue one in UTF-8."""

    def __init__(self, content: memoryview):
        self.bytes = np.frombuffer(content, np.uint8)
        self.starts = range(0, self.bytes.size, CHUNK)
        self.counts = [int(np.count_nonzero(self._begin(start))) for start in self.starts]
        self.count = sum(self.counts)

    def place(self, number: int) -> int:
        """The byte at which a character begins, or the text ends."""
        for start, count in zip(self.starts, self.counts, strict=True):
            if number < count:
                return start + int(np.flatnonzero(self._begin(start))[number])
            number -= count
        return self.bytes.size

    def _begin(self, start: int) -> np.ndarray:
        return (self.bytes[start : start + CHUNK] & 0xC0) != 0x80
