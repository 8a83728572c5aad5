"""Reads images from local files: IDX (MNIST), npz, and the binary files of CIFAR-10.

All give `(images, labels)`: uint8 `(n, ...)` and uint8 `(n,)`.
"""

import gzip
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_seq._reading import UNPACK, TooMuchUnpackedError, bounded, check_unpacked
from keras_seq.pipelines.errors import DataError

Images = tuple[np.ndarray, np.ndarray]

_FETCH = "Fetch it again and compare its size or checksum with the source's."
_UNSIGNED_BYTE = 8  # type code of IDX


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: the file; one whose name ends in `.gz` is unpacked.
        dimensions: the number of dimensions that it must have.

    Raises:
        DataError: for a file that is cut short, damaged, or something else.
    """
    raw = _read(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE or raw[3] != dimensions:
        raise DataError(
            f"not an IDX file of unsigned bytes with {dimensions} dimensions: it begins with "
            f"{raw[:4].hex(' ') or 'nothing'}, not 00 00 08 {dimensions:02x}.",
            path=path,
            place="byte 0",
            remedy="Give the published file; name it .gz if it is gzipped.",
        )
    header = 4 + 4 * dimensions
    if len(raw) < header:
        raise DataError("the header is cut short.", path=path, place=f"byte {len(raw)}",
                        remedy=_FETCH)  # fmt: skip
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    size = int(np.prod(shape, dtype=np.int64))
    if len(raw) != header + size:
        raise DataError(
            f"the header announces {shape}, that is {header + size} bytes; there are {len(raw)}.",
            path=path,
            place=f"byte {min(len(raw), header + size)}",
            remedy=_FETCH,
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def read_npz(path: Path, image_keys: tuple[str, ...], label_keys: tuple[str, ...]) -> Images:
    """Reads images and labels from an npz file, each under the first key that is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive)
        with np.load(path, allow_pickle=False) as arrays:
            found = [
                next((k for k in keys if k in arrays), None) for keys in (image_keys, label_keys)
            ]
            if None in found:
                raise DataError(
                    f"the arrays are named {', '.join(arrays.files)}; looked for "
                    f"{' or '.join(image_keys)} and {' or '.join(label_keys)}.",
                    path=path,
                    remedy="Save them under these names with `numpy.savez`.",
                )
            images, labels = (arrays[str(key)] for key in found)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise errors of their own
        raise DataError(f"not a readable npz file ({error}).", path=path, remedy=_FETCH) from error
    return images, labels.reshape(-1)


def read_cifar_binary(paths: list[Path]) -> Images:
    """Reads the binary files of CIFAR-10: a label, then 3 planes of 32 x 32, an image."""
    record = 1 + 3 * 32 * 32
    blocks = []
    for path in paths:
        raw = _read(path)
        if not raw or len(raw) % record:
            raise DataError(
                f"{len(raw)} bytes are no whole number of records of {record} bytes.",
                path=path,
                place=f"byte {len(raw) - len(raw) % record}",
                remedy=_FETCH,
            )
        blocks.append(np.frombuffer(raw, np.uint8).reshape(-1, record))
    data = np.concatenate(blocks)
    images = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), data[:, 0].copy()


def check_images(
    images: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], classes: int, path: object
) -> Images:
    """Raises `DataError` unless images are uint8 `(n, *shape)` and labels `n` class numbers."""
    if images.ndim == len(shape) and images.shape[1:] == shape[:-1] and shape[-1] == 1:
        images = images[..., None]
    place = str(path)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(
            f"images must be uint8 (n, {', '.join(map(str, shape))}). "
            f"Found: {images.dtype} {images.shape}.",
            path=place,
            remedy="Give the published images, not normalised.",
        )
    if len(images) != len(labels):
        raise DataError(
            f"{len(images)} images but {len(labels)} labels.", path=place, remedy=_FETCH
        )
    if not len(images):
        raise DataError("the split has no images.", path=place, remedy=_FETCH)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"label {labels[wrong[0]]} is out of range for {classes} classes.",
            path=place,
            place=f"image {wrong[0]}",
            remedy="Fetch the labels again.",
        )
    return images, labels.astype(np.uint8)


def _read(path: Path) -> bytes:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as file:
                blocks = iter(lambda: file.read(1 << 20), b"")
                return b"".join(bounded(blocks, path.stat().st_size))
        return path.read_bytes()
    except TooMuchUnpackedError as error:
        raise DataError(str(error), path=path, remedy=UNPACK) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the gzip file is cut short or damaged ({error}).",
            path=path,
            place=f"byte {path.stat().st_size} of the packed file",
            remedy=_FETCH,
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}).", path=path, remedy="Check its rights."
        ) from error
