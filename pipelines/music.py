"""`nottingham`, `jsb_chorales`, `muse_data`, `piano_midi`: polyphonic music as piano rolls."""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq._reading import TooMuchUnpackedError, bounded
from keras_seq.pipelines.buckets import Buckets, bucket_bounds
from keras_seq.pipelines.corpus_files import data_folder
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.epochs import EpochSource
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.token_file import as_tensor

NOTES = 88  # column 0 is the key A0
KEYS = {"train": "traindata", "validation": "validdata", "test": "testdata"}
_HEADER = 128  # bytes of a MATLAB file before its elements
_COMPRESSED = 15  # the type of packed elements
_FETCH = "Give the published file of Boulanger-Lewandowski et al. (2012)."


@dataclass(frozen=True)
class MusicOptions:
    """Options of the music data sets.

    Attributes:
        buckets: number of lengths that batches are padded to. Tunes are sorted into as many buckets
            by length, chosen so that the padding is least, and a batch holds tunes of one bucket;
            a training step is then traced, or compiled, for no more shapes than that. 0 for none:
            a batch holds any tunes and is as long as its longest (with `batch_size=1` there is no
            padding at all).
        transpose: at each visit of a training tune, all its notes are moved by the same number of
            semitones, drawn from -`transpose` to `transpose` (of these, from those that keep the
            tune within the 88 notes, so that no note is lost). The draws follow from the seed and
            the epoch. Validation and test tunes stay as they are. 0 for none.
    """

    buckets: int = 8
    transpose: int = 0


@register("nottingham", MusicOptions())
def nottingham(request: Request, options: MusicOptions) -> Data:
    """British and American folk tunes: 694 / 173 / 170."""
    return _load(request, options, "Nottingham.mat")


@register("jsb_chorales", MusicOptions())
def jsb_chorales(request: Request, options: MusicOptions) -> Data:
    """Chorales of J. S. Bach: 229 / 76 / 77."""
    return _load(request, options, "JSB_Chorales.mat")


@register("muse_data", MusicOptions())
def muse_data(request: Request, options: MusicOptions) -> Data:
    """Orchestral and piano music of the MuseData library: 524 / 135 / 124."""
    return _load(request, options, "MuseData.mat")


@register("piano_midi", MusicOptions())
def piano_midi(request: Request, options: MusicOptions) -> Data:
    """Classical piano music: 87 / 12 / 25."""
    return _load(request, options, "Piano_midi.mat")


def _load(request: Request, options: MusicOptions, file_name: str) -> Data:
    if request.length is not None or request.history:
        raise ValueError(
            f"The tunes of {request.name!r} have lengths of their own. Received: length="
            f"{request.length}, history={request.history}. Leave both out."
        )
    if options.buckets < 0:
        raise ValueError(f"`buckets` must not be negative. Received: buckets={options.buckets}.")
    if not 0 <= options.transpose < NOTES:
        raise ValueError(
            f"`transpose` must be a number of semitones from 0 to {NOTES - 1}. "
            f"Received: transpose={options.transpose}."
        )
    path = find_music(data_folder(request.data_dir), file_name)
    tunes = read_music(path)
    every = np.concatenate([[len(tune) - 1 for tune in split] for split in tunes.values()])
    bounds = bucket_bounds(every, options.buckets) if options.buckets else np.array([every.max()])
    splits = {name: _Split(split, bounds, bool(options.buckets)) for name, split in tunes.items()}
    train = splits["train"]
    source = EpochSource(
        lambda epoch: train.shuffled(epoch, request.seed, request.batch_size, options.transpose),
        train.fetch,
        train.steps(request.batch_size),
        parallel=True,
        copy_constants=False,
    )
    held_out = {
        name: splits[name].in_order(request.eval_batch_size) for name in ("validation", "test")
    }
    return Data(
        name=request.name,
        train=source.repeated(),
        validation=held_out["validation"],
        test=held_out["test"],
        info={
            "examples": {name: len(split) for name, split in tunes.items()},
            "steps": {name: int(sum(map(len, split))) for name, split in tunes.items()},
            # The first frame of a tune is context only.
            "frames": {name: int(splits[name].lengths_total) for name in tunes},
            "notes": NOTES,
            "bounds": [int(bound) for bound in bounds] if options.buckets else [],
            "source": str(path),
        },
        epoch_fn=source.epoch,
    )


def find_music(folder: Path | None, file_name: str) -> Path:
    """The path of a data set's file: in `music/` of the data folder, or in the folder itself.

    Raises:
        MissingDataError: if it is in neither.
    """
    places = [] if folder is None else [folder / "music" / file_name, folder / file_name]
    for path in places:
        if path.is_file():
            return path
    raise MissingDataError(
        f"no {file_name}, here or in music/.",
        path=folder,
        remedy="Give `data_dir`, the folder of the file. " + _FETCH,
    )


def read_music(path: Path | str) -> dict[str, list[np.ndarray]]:
    """Reads the tunes of a MATLAB file.

    Args:
        path: a file with `traindata`, `validdata` and `testdata`, each a cell array of piano rolls.

    Returns:
        For `train`, `validation` and `test` the tunes, uint8 arrays (steps, 88) of zeros and ones.

    Raises:
        DataError: if the file is no such file.
        ImportError: without SciPy.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            "The music data sets are MATLAB files, which SciPy reads: "
            'pip install "keras-seq[music]"'
        ) from error
    path = Path(path)
    try:
        _check_packed(path)
        arrays: dict[str, Any] = loadmat(str(path))
    except TooMuchUnpackedError as error:
        raise DataError(str(error), path=path, remedy=_FETCH) from None
    except Exception as error:  # scipy, zlib and struct each raise errors of their own
        raise DataError(
            f"not a readable MATLAB file ({error}).", path=path, remedy=_FETCH
        ) from None
    missing = [key for key in KEYS.values() if key not in arrays]
    if missing:
        raise DataError(f"there is no {', '.join(missing)} in it.", path=path, remedy=_FETCH)
    return {
        name: [_check_tune(tune, path, f"{key} {i}") for i, tune in enumerate(arrays[key].ravel())]
        for name, key in KEYS.items()
    }


def _check_packed(path: Path) -> None:
    """Refuses a MATLAB file whose packed elements hold far more than its own size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER)[-2:])
        while order and len(tag := file.read(8)) == 8:
            kind, count = struct.unpack(f"{order}II", tag)
            if kind != _COMPRESSED:
                file.seek(count, os.SEEK_CUR)
                continue
            packed, unpacker = file.read(count), zlib.decompressobj()

            def blocks(packed=packed, unpacker=unpacker) -> Iterator[bytes]:
                while packed and (block := unpacker.decompress(packed, 1 << 20)):
                    packed = unpacker.unconsumed_tail
                    yield block

            for _ in bounded(blocks(), size):
                pass


def _check_tune(tune: Any, path: Path, place: str) -> np.ndarray:
    tune = np.asarray(tune)
    fits = tune.ndim == 2 and tune.shape[1] == NOTES and len(tune) > 1
    if not fits or not np.isin(tune, (0, 1)).all():
        raise DataError(
            f"a tune must be an array (steps, {NOTES}) of zeros and ones with two steps or more. "
            f"Found: {tune.dtype} {tune.shape}.",
            path=path,
            place=place,
            remedy=_FETCH,
        )
    return tune.astype(np.uint8)


def _range(tune: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest note of a tune; of a silent one, the whole range."""
    used = np.flatnonzero(tune.any(axis=0))
    return (int(used[0]), int(used[-1])) if len(used) else (0, NOTES - 1)


class _Split:
    """The tunes of one split, laid end to end, and their buckets."""

    def __init__(self, tunes: list[np.ndarray], bounds: np.ndarray, padded_to_bound: bool):
        steps = np.array([len(tune) for tune in tunes])
        lengths = steps - 1  # frames with a frame before them
        self.lengths_total = lengths.sum()
        self.padded_to_bound = padded_to_bound
        self.frames = as_tensor(np.concatenate(tunes))
        self.ranges = as_tensor(np.array([_range(tune) for tune in tunes], np.int32))
        self.starts = as_tensor(np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int32))
        self.lengths = as_tensor(lengths.astype(np.int32))
        self.buckets = Buckets(lengths, bounds, pass_on=False)

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return self.buckets.steps(batch_size)

    def shuffled(self, epoch, seed: int, batch_size: int, transpose: int = 0):
        """The plan of an epoch, see `Buckets.shuffled`; if tunes are transposed, also by how many
        semitones (steps, b)."""
        key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
        rows, bounds = self.buckets.shuffled(key, batch_size)
        if not transpose:
            return rows, bounds
        return rows, bounds, self._shifts(rows, transpose, key - tf.constant([1, 0], tf.int64))

    def _shifts(self, rows, transpose: int, key):
        """Semitones for each visit of a tune, such that no note leaves the keyboard."""
        ranges = tf.gather(self.ranges, tf.maximum(rows, 0))
        least = tf.maximum(-transpose, -ranges[..., 0])
        most = tf.minimum(transpose, NOTES - 1 - ranges[..., 1])
        draws = tf.random.stateless_uniform(tf.shape(rows), key)
        choices = tf.cast(most - least + 1, tf.float32)
        return tf.minimum(least + tf.cast(draws * choices, tf.int32), most)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Every tune once, the shorter ones first; the last batch of a bucket may be smaller."""
        return self.buckets.in_order(batch_size, self.fetch)

    def fetch(self, rows, bound, shifts=None):
        """A batch: frames x (b, t, 88), the frames that follow y, and weights (b, t)."""
        real = rows >= 0
        chosen = tf.maximum(rows, 0)
        lengths = tf.where(real, tf.gather(self.lengths, chosen), 0)
        width = bound if self.padded_to_bound else tf.reduce_max(lengths)
        steps = tf.range(width)[None]
        weights = tf.cast(steps < lengths[:, None], tf.float32)
        places = tf.gather(self.starts, chosen)[:, None] + tf.minimum(steps, lengths[:, None] - 1)
        places = tf.maximum(places, 0)

        def frames(index):
            chosen = tf.gather(self.frames, index)
            if shifts is not None:
                notes = (tf.range(NOTES)[None] - shifts[:, None]) % NOTES
                chosen = tf.gather(chosen, notes, axis=2, batch_dims=1)
            return tf.cast(chosen, tf.float32) * weights[..., None]

        return frames(places), frames(places + 1), weights
