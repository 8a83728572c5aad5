"""Data that TensorFlow Datasets prepared."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.text_source import TextSource

_LINES = 4096  # a block


def prepared_builder(
    name: str, data_dir: Path | None, download: bool = False, manual_dir: str | Path | None = None
) -> Any:
    """The builder `name`, prepared.

    Args:
        name: a name of TensorFlow Datasets, with the config if there are several.
        data_dir: its data folder, `None` for its own default.
        download: whether to prepare what is not prepared.
        manual_dir: folder of files that were fetched by hand, under their published names.

    Raises:
        MissingDataError: where it is not prepared and `download` is false.
        DataError: where preparing fails.
    """
    import tensorflow_datasets as tfds

    import keras_seq.pipelines.tfds_builders  # noqa: F401  (registers our builders)

    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    if not (download or manual_dir):
        files = ", ".join(builder.url_infos or {}) if "keras_seq" in name else ""
        by_hand = (
            f" Or fetch {files} yourself and give the folder as `manual_dir`." if files else ""
        )
        raise MissingDataError(
            f"TensorFlow Datasets has not prepared {name!r}.",
            path=builder.data_path,
            remedy="Give `data_dir`, a folder of the raw files, or `download=True` to fetch them."
            + by_hand,
        )
    try:
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        raise DataError(
            f"TensorFlow Datasets could not prepare {name!r}: {type(error).__name__}: {error}.",
            path=builder.data_path,
            remedy="Fetch the raw files yourself and give their folder as `data_dir`.",
        ) from error
    return builder


class LineSource(TextSource):
    """The lines of a split of one of our builders."""

    def __init__(self, builder: Any, split: str):
        super().__init__(label=f"{builder.info.full_name} ({split})")
        self.builder = builder
        self.split = split

    def fingerprint(self) -> str:
        info = self.builder.info.splits[self.split]
        facts = [self.builder.info.full_name, info.num_examples, info.num_bytes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        import tensorflow_datasets as tfds

        lines = self.builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        ).batch(_LINES)
        for block in tfds.as_numpy(lines):
            yield b"".join(line + b"\n" for line in block["text"])
