"""A small file that holds very much is refused before it fills the memory."""

import gzip
import io
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from keras_seq import _reading
from keras_seq.pipelines import DataError, text_source
from keras_seq.pipelines.image_files import read_idx, read_npz
from keras_seq.pipelines.music import read_music
from keras_seq.pipelines.text_source import TextSource, find_split

TEXT = b"the same line once more\n" * 20_000  # 480 kB, in 2 kB
ZEROS = np.zeros((1, 1 << 20), np.uint8)


def tar(path, mode):
    with tarfile.open(path, mode) as archive:
        for name in ("deep/other.txt", "deep/train.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = len(TEXT)
            archive.addfile(entry, io.BytesIO(TEXT))
    return path


def zipped(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/train.txt", TEXT)
    return path


def packed(path, content):
    path.write_bytes(gzip.compress(content))
    return path


def idx(path):
    return packed(path, b"\0\0\x08\x02" + np.array(ZEROS.shape, ">i4").tobytes() + ZEROS.tobytes())


def npz(path):
    np.savez_compressed(path, x=ZEROS, y=ZEROS)
    return path


def mat(path):
    cells = np.empty((1, 2), object)
    cells[0, 0] = cells[0, 1] = ZEROS
    savemat(path, {"traindata": cells}, do_compression=True)
    return path


def inside(path):
    """The text of the member that is found in an archive."""
    source = find_split([path.parent], ["train.txt"], [path.name])
    return bytes(source.read()) == TEXT


CASES = {  # what writes a file, and what reads it
    "train.txt.gz": (lambda path: packed(path, TEXT), lambda path: TextSource(path).read()),
    "texts.zip": (zipped, inside),
    "texts.tgz": (lambda path: tar(path, "w:gz"), inside),
    "images-idx2-ubyte.gz": (idx, lambda path: read_idx(path, 2).size == ZEROS.size),
    "images.npz": (npz, lambda path: len(read_npz(path, ("x",), ("y",)))),
}


@pytest.mark.parametrize("name", CASES)
def test_little_files_that_hold_much(tmp_path, monkeypatch, name):
    write, read = CASES[name]
    path = write(tmp_path / name)
    assert read(path)
    monkeypatch.setattr(_reading, "SLACK", 1 << 16)
    with pytest.raises(DataError, match="unpacks to .*[0-9]") as told:
        read(path)
    assert str(path) in str(told.value)
    assert "unpack it with another program" in str(told.value) or name.endswith("npz")


def test_matlab_files(tmp_path, monkeypatch):
    path = mat(tmp_path / "Tunes.mat")
    with pytest.raises(DataError, match="there is no validdata"):
        read_music(path)
    monkeypatch.setattr(_reading, "SLACK", 1 << 16)
    with pytest.raises(DataError, match=r"Tunes\.mat: it unpacks to more than"):
        read_music(path)


def test_members_are_listed_within_the_limit(tmp_path, monkeypatch):
    path = tar(tmp_path / "texts.tgz", "w:gz")
    assert text_source._members(path) == ["deep/other.txt", "deep/train.txt"]
    monkeypatch.setattr(_reading, "SLACK", 0)
    monkeypatch.setattr(_reading, "RATIO", 1)
    with pytest.raises(DataError, match=r"texts\.tgz: it unpacks to more than"):
        text_source._members(path)


def test_a_plain_file_is_of_any_size(tmp_path, monkeypatch):
    path = tmp_path / "plain.txt"
    path.write_bytes(TEXT)
    tar(tmp_path / "texts.tar", "w:")
    tar(tmp_path / "other.tar", "w:xz")  # its name says nothing of that
    monkeypatch.setattr(_reading, "SLACK", 0)
    assert TextSource(path).read() == TEXT
    assert inside(tmp_path / "texts.tar")
    with pytest.raises(DataError, match="unpacks to more than"):
        inside(tmp_path / "other.tar")


def test_what_comes_out_is_counted_as_it_comes(tmp_path):
    """With the limits as they are: 64 MiB and a hundred times the file's own size."""
    path = tmp_path / "train.txt.gz"
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        for _ in range(100):
            file.write(packer.compress(b" " * (1 << 20)))
        file.write(packer.flush())
    read = 0
    with pytest.raises(DataError, match=f"{_reading.most_unpacked(path.stat().st_size):,} bytes"):
        for block in TextSource(path).blocks():
            read += len(block)
    assert read <= (64 << 20) + 100 * path.stat().st_size
