"""Reads `.ts` files, the text format of the UCR and UEA archives of time series.

Lines that begin with `#` are comments, those that begin with `@` say what the file holds. After
`@data` each line is a series: its dimensions between colons, the values of each between commas, `?`
where one is missing, and the label last.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seq._reading import BrokenFileError, reading, regular
from keras_seq.pipelines.errors import DataError

_FETCH = "Mend the line, or fetch the file again."
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class SeriesFile:
    """What a `.ts` file holds.

    Attributes:
        path: the file.
        problem: the name that it gives itself; empty where it gives none.
        series: float32 arrays (t, d), NaN where a value is missing.
        labels: the label of each series as it is written; empty where the file has none.
        classes: the labels that the header lists, in its order; empty where it lists none.
        lines: the line of each series, from 1.
    """

    path: Path
    problem: str
    series: tuple[np.ndarray, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    lines: tuple[int, ...]

    @property
    def features(self) -> int:
        """Values of a step."""
        return self.series[0].shape[1]


def read_ts(path: str | Path) -> SeriesFile:
    """Reads a `.ts` file.

    Args:
        path: the file.

    Raises:
        DataError: where the file is no such file, or does not hold what its header says. It names
            the line, and the dimension and the value in it.
        FileNotFoundError: if there is no file.

    Example:

    >>> from pathlib import Path
    >>> from keras_seq.pipelines.ts_files import read_ts
    >>> lines = ["@classLabel true low high", "@data", "1,2,3:7,8,9:low", "4,5:0,?:high"]
    >>> _ = Path("two.ts").write_text("\\n".join(lines))
    >>> read = read_ts("two.ts")
    >>> [series.shape for series in read.series], read.labels
    ([(3, 2), (2, 2)], ('low', 'high'))
    """
    path = Path(path)
    lines = _lines(path)
    header = _Header.of(lines, path)
    series, labels, places = [], [], []
    for number, line in lines:
        values, label = _read_series(line, header, path, number)
        if series and values.shape[1] != series[0].shape[1]:
            raise DataError(
                f"this series has {values.shape[1]} dimensions, the ones before it have "
                f"{series[0].shape[1]}.",
                path=path,
                place=f"line {number}",
                remedy=_FETCH,
            )
        series.append(values)
        places.append(number)
        if label is not None:
            labels.append(label)
    if not series:
        raise DataError("there is no series after @data.", path=path, remedy="Fetch it again.")
    return SeriesFile(
        path, header.problem, tuple(series), tuple(labels), header.classes, tuple(places)
    )


@dataclass(frozen=True)
class _Header:
    """What the lines before `@data` say."""

    problem: str
    dimensions: int | None
    length: int | None
    labelled: bool
    classes: tuple[str, ...]

    @classmethod
    def of(cls, lines: Iterator[tuple[int, str]], path: Path) -> "_Header":
        """Reads the lines up to `@data`, and leaves the others."""
        said: dict[str, tuple[int, list[str]]] = {}
        for number, line in lines:
            if not line.startswith("@"):
                raise DataError(
                    f"a series before @data: {line[:40]!r}.",
                    path=path,
                    place=f"line {number}",
                    remedy="Give a .ts file: a header of lines that begin with @, then @data, then "
                    "a series a line.",
                )
            key, *rest = line[1:].split() or [""]
            if key.lower() == "data":
                return cls._from(said, path)
            said[key.lower()] = (number, rest)
        raise DataError(
            "there is no line @data.",
            path=path,
            remedy="Give a .ts file: a header of lines that begin with @, then @data, then a "
            "series a line.",
        )

    @classmethod
    def _from(cls, said: Mapping[str, tuple[int, list[str]]], path: Path) -> "_Header":
        def flag(key: str) -> bool:
            number, rest = said.get(key, (0, ["false"]))
            if not rest or rest[0].lower() not in ("true", "false"):
                raise DataError(
                    f"@{key} must be true or false. Found: {' '.join(rest)!r}.",
                    path=path,
                    place=f"line {number}",
                    remedy=_FETCH,
                )
            return rest[0].lower() == "true"

        def count(*keys: str) -> int | None:
            for key in keys:
                number, rest = said.get(key, (0, None))
                if rest is None:
                    continue
                if len(rest) != 1 or not rest[0].isdecimal() or not int(rest[0]):
                    raise DataError(
                        f"@{key} must be a positive number. Found: {' '.join(rest)!r}.",
                        path=path,
                        place=f"line {number}",
                        remedy=_FETCH,
                    )
                return int(rest[0])
            return None

        if flag("timestamps"):
            raise DataError(
                "series with time stamps are not read.",
                path=path,
                place=f"line {said['timestamps'][0]}",
                remedy="Write the values alone, at equal distances, and @timeStamps false.",
            )
        dimensions = 1 if flag("univariate") else count("dimensions", "dimension")
        number, rest = said.get("classlabel", (0, []))
        labelled, classes = flag("classlabel"), tuple(rest[1:])
        if len(set(classes)) < len(classes):
            raise DataError(
                f"@classLabel lists a class twice: {' '.join(classes)}.",
                path=path,
                place=f"line {number}",
                remedy=_FETCH,
            )
        return cls(
            " ".join(said.get("problemname", (0, []))[1]),
            dimensions,
            count("serieslength") if flag("equallength") else None,
            labelled or flag("targetlabel"),
            classes if labelled else (),
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    try:
        with reading(path, "a .ts file", "Check its rights."):
            content = regular(path, "Give the path of a .ts file.").read_bytes()
    except BrokenFileError as error:
        raise DataError(error.problem, path=path, remedy=error.remedy) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # old files have names of people in their comments
        text = content.decode("latin-1")

    def found() -> Iterator[tuple[int, str]]:
        for number, line in enumerate(text.split("\n"), 1):
            line = line.strip()
            if line and not line.startswith(("#", "%")):
                yield number, line

    return found()


def _read_series(
    line: str, header: _Header, path: Path, number: int
) -> tuple[np.ndarray, str | None]:
    """The values (t, d) of a line, and its label."""

    def broken(problem: str, place: str = "", remedy: str = _FETCH) -> DataError:
        return DataError(problem, path=path, place=f"line {number}{place}", remedy=remedy)

    *dimensions, last = line.split(":")
    label = last.strip() if header.labelled else None
    if label is None:
        dimensions.append(last)
    elif not label or (header.classes and label not in header.classes):
        known = f" The header's classes: {', '.join(header.classes)}." if header.classes else ""
        raise broken(f"the label must stand last, after a colon. Found: {label[:40]!r}.{known}")
    if not dimensions or header.dimensions not in (None, len(dimensions)):
        wanted = header.dimensions or "at least 1"
        raise broken(f"a series must have {wanted} dimensions. Found: {len(dimensions)}.")
    values = []
    for place, dimension in enumerate(dimensions, 1):
        row = _numbers(dimension)
        if isinstance(row, int):
            token = dimension.split(",")[row].strip()
            what = f"{token[:40]!r} is no number within float32's range" if token else "it is empty"
            raise broken(
                f"{what}.",
                f", dimension {place}, value {row + 1}",
                "Write a number, or ? where a value is missing.",
            )
        if values and len(row) != len(values[0]):
            raise broken(
                f"{len(row)} values, but dimension 1 has {len(values[0])}.",
                f", dimension {place}",
                "Give all dimensions of a series the same steps, with ? where a value is missing.",
            )
        values.append(row)
    if header.length is not None and len(values[0]) != header.length:
        raise broken(
            f"the header says that each series has {header.length} steps. Found: {len(values[0])}.",
            remedy="Mend the line, or write @equalLength false.",
        )
    return np.stack(values, axis=1).astype(np.float32), label


def _numbers(text: str) -> list[float] | int:
    """The numbers of a dimension; of a text that is none, the place."""
    found = []
    for place, token in enumerate(text.split(",")):
        token = token.strip()
        try:
            value = math.nan if token == "?" else float(token)
        except ValueError:
            return place
        if abs(value) > _LARGEST or "_" in token:
            return place
        found.append(value)
    return found
