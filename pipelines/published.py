"""Corpora that others published: local files, or TensorFlow Datasets builders of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.corpus_data import load_corpus
from keras_seq.pipelines.corpus_files import CorpusFiles, data_folder, find_sources
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.registry import Request
from keras_seq.pipelines.text_options import TextOptions, checked_splits
from keras_seq.pipelines.text_source import TextSource
from keras_seq.pipelines.tfds_source import LineSource, prepared_builder

SOURCES = ("auto", "files", "tfds")


@dataclass(frozen=True)
class CorpusOptions(TextOptions):
    """Options of the published corpora, beside those of every text.

    Attributes:
        source: `"files"` reads the raw files in `data_dir`; `"tfds"` reads what TensorFlow Datasets
            prepared in `data_dir` (default: its own folder); `"auto"` is `"files"` where there is
            a `data_dir` or `$KERAS_SEQ_DATA`, else `"tfds"`.
        download: lets TensorFlow Datasets fetch and prepare what is not there yet.
        manual_dir: folder of the published files for TensorFlow Datasets, in place of a download.
    """

    source: str = "auto"
    download: bool = False
    manual_dir: str | Path | None = None


def chosen_source(source: str, folder: Path | None) -> str:
    """`"files"` or `"tfds"`, see `CorpusOptions.source`."""
    if source not in SOURCES:
        raise ValueError(f"`source` must be one of {SOURCES}. Received: source={source!r}.")
    if source == "files" and folder is None:
        raise ValueError('`source="files"` needs `data_dir`, the folder of the raw files.')
    if source != "auto":
        return source
    return "tfds" if folder is None else "files"


def load_published(
    request: Request,
    options: CorpusOptions,
    files: CorpusFiles,
    *,
    builder: str,
    level: str = "word",
    space: str | None = None,
    adapt: Callable[[TextSource], TextSource] = lambda source: source,
) -> Data:
    """`Data` of a published corpus.

    Args:
        request, options: what is asked for.
        files: the raw files.
        builder: name and config of the TensorFlow Datasets builder.
        level, space: of the `Vocabulary`.
        adapt: applied to each source.
    """
    splits = checked_splits(options)
    folder = data_folder(request.data_dir)
    if chosen_source(options.source, folder) == "files" and folder is not None:
        sources = find_sources(files, folder, splits)
    else:
        prepared = prepared_builder(builder, request.data_dir, options.download, options.manual_dir)
        sources = {split: LineSource(prepared, split) for split in splits}
    corpus = Corpus(request.name, {split: adapt(source) for split, source in sources.items()})
    return load_corpus(request, options, corpus, level=level, space=space)
