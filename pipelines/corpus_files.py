"""Finds the files of a published corpus in a folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_seq.pipelines.errors import MissingDataError
from keras_seq.pipelines.text_source import TextSource, find_split


@dataclass(frozen=True)
class CorpusFiles:
    """Where the files of a corpus may lie.

    Attributes:
        title: the corpus, for messages.
        names: split to the file names it goes by. Each may also end in `.gz`.
        folders: sub-folders of `data_dir` that are looked into before `data_dir` itself.
        archives: zip files that may hold the files.
        homepage: where they come from.
    """

    title: str
    names: Mapping[str, Sequence[str]]
    folders: Sequence[str]
    archives: Sequence[str] = ()
    homepage: str = ""


def data_folder(data_dir: Path | None) -> Path | None:
    """`data_dir`, else the folder that `$KERAS_SEQ_DATA` names, else `None`."""
    given = os.environ.get("KERAS_SEQ_DATA")
    return data_dir if data_dir is not None else Path(given) if given else None


def find_sources(
    files: CorpusFiles, data_dir: Path, splits: Sequence[str]
) -> dict[str, TextSource]:
    """Sources of the wanted splits.

    Raises:
        MissingDataError: for a folder that is not there, and for a split without a file.
    """
    if not data_dir.is_dir():
        raise MissingDataError(
            f"no such folder (looked for {files.title}).",
            path=data_dir,
            remedy="Give `data_dir`, the folder of the raw files or its parent.",
        )
    folders = [path for name in files.folders if (path := data_dir / name).is_dir()]
    sources: dict[str, TextSource] = {}
    for folder in [*folders, data_dir]:
        found = {
            split: source
            for split in splits
            if (source := find_split([folder], files.names[split], files.archives)) is not None
        }
        if len(found) > len(sources):
            sources = found
    for split in splits:
        if split not in sources:
            looked = " or ".join(dict.fromkeys(files.names[split]))
            others = tuple(s for s in splits if s in sources)
            found_others = f" The others are there: splits={others!r} loads them" if others else ""
            if others:
                found_others += (
                    " (with `vocabulary`, a saved one or 'splits')." if split == "train" else "."
                )
            raise MissingDataError(
                f"the {split} split of {files.title} is missing: no file {looked} "
                "(or with .gz, or in the released archive).",
                path=data_dir,
                remedy=f"Get it from {files.homepage}.{found_others}",
            )
    return sources
