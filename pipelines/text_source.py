"""Where the bytes of a text split come from: plain or packed files, or memory."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from keras_seq.pipelines.errors import DataError, MissingDataError

CHUNK = 1 << 23
_DAMAGED = (
    EOFError,
    KeyError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_MAGIC = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class TextSource:
    """The text of one split.

    Args:
        path: a file; `.gz` files are unpacked while read.
        member: name of a file inside `path`, which is then a zip or tar file.
        content: the text itself, in place of a file.
        label: the text in messages. Defaults to the path.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        member: str | None = None,
        content: bytes | None = None,
        label: str | None = None,
    ):
        self.path = None if path is None else Path(path)
        self.member = member
        self.content = content
        self.label = label or (f"{path}/{member}" if member else str(path or "text in memory"))

    def __repr__(self) -> str:
        return f"TextSource({self.label!r})"

    def fingerprint(self) -> str:
        """SHA-256 of the stored bytes."""
        digest = hashlib.sha256((self.member or "").encode())
        if self.content is not None:
            digest.update(self.content)
        elif self.path is not None:
            with self._open_raw() as file:
                while block := file.read(CHUNK):
                    digest.update(block)
        return digest.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Blocks of the text; each but the last ends with a line end.

        Raises:
            DataError: for a file that is missing, packed in another format, cut short or not text.
        """
        rest, position, empty = b"", 0, True
        for block in self._blocks():
            self._check(block, position)
            empty = empty and not block
            position += len(block)
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut]
                rest = block[cut:]
            else:
                rest += block
        if rest:
            yield rest
        if empty:
            raise DataError("the file is empty.", path=self.label, remedy="Fetch it again.")

    def read(self) -> bytes:
        """The whole text."""
        return b"".join(self.chunks())

    def _open_raw(self) -> BinaryIO:
        try:
            return Path(str(self.path)).open("rb")
        except FileNotFoundError as error:
            raise MissingDataError(
                "no such file.", path=self.path, remedy="Check `data_dir`."
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot be read ({error.strerror}).", path=self.path, remedy="Check its rights."
            ) from error

    def _blocks(self) -> Iterator[bytes]:
        if self.content is not None:
            yield self.content
            return
        position = 0
        with self._open_raw() as raw:
            try:
                for block in self._unpacked(raw):
                    position += len(block)
                    yield block
            except _DAMAGED as error:
                raise DataError(
                    f"the packed file is cut short or damaged ({error}).",
                    path=self.label,
                    place=f"after byte {position} of the unpacked text",
                    remedy="Fetch it again and compare its size or checksum with the source's.",
                ) from error

    def _unpacked(self, raw: BinaryIO) -> Iterator[bytes]:
        if self.member is not None and _is_tar(self.path):
            with tarfile.open(fileobj=raw) as archive:
                file = archive.extractfile(self.member)
                while file is not None and (block := file.read(CHUNK)):
                    yield block
        elif self.member is not None:
            with zipfile.ZipFile(raw) as archive, archive.open(self.member) as file:
                while block := file.read(CHUNK):
                    yield block
        elif str(self.path).endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as file:
                while block := file.read1(CHUNK):
                    yield block
        else:
            while block := raw.read(CHUNK):
                yield block

    def _check(self, block: bytes, position: int) -> None:
        if position == 0:
            for magic, kind in _MAGIC.items():
                if block.startswith(magic):
                    raise DataError(
                        f"not text but {kind} data.",
                        path=self.label,
                        place="byte 0",
                        remedy="Unpack it, or give the file the ending of its format (.gz, .zip).",
                    )
        null = block.find(b"\0")
        if null >= 0:
            raise DataError(
                "a zero byte: this is not a text file in UTF-8 or ASCII.",
                path=self.label,
                place=f"byte {position + null}",
                remedy="Convert the file to UTF-8, for example with `iconv -t UTF-8`.",
            )


class SpelledSource(TextSource):
    """Words as characters, in the form of the character-level Penn Treebank.

    Each character is followed by a space and `_` stands for the space between two words. A text
    that has this form already is passed on as it is.

    Args:
        source: the text.
    """

    def __init__(self, source: TextSource):
        super().__init__(label=source.label)
        self.source = source

    def fingerprint(self) -> str:
        return f"spelled:{self.source.fingerprint()}"

    def chunks(self) -> Iterator[bytes]:
        spelled = None
        for chunk in self.source.chunks():
            if spelled is None:
                spelled = all(len(token) == 1 for token in chunk[:CHUNK].split())
            if spelled:
                yield chunk
            else:
                yield b"\n".join(spell_line(line) for line in chunk.split(b"\n"))


def spell_line(line: bytes) -> bytes:
    """A line of words as characters: `b"a cat"` becomes `b"a _ c a t "`."""
    words = b"_".join(line.split()).decode("utf-8", "surrogateescape")
    return "".join(f"{character} " for character in words).encode("utf-8", "surrogateescape")


def _is_tar(path: Path | None) -> bool:
    return path is not None and path.name.endswith((".tgz", ".tar.gz", ".tar"))


def _members(path: Path) -> list[str]:
    """Files inside a zip or tar file."""
    try:
        if _is_tar(path):
            with tarfile.open(path) as archive:
                return archive.getnames()
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _DAMAGED as error:
        raise DataError(
            f"the packed file is cut short or damaged ({error}).",
            path=path,
            remedy="Fetch it again and compare its size or checksum with the source's.",
        ) from error


def find_split(
    folders: Sequence[Path], file_names: Sequence[str], archives: Sequence[str] = ()
) -> TextSource | None:
    """First of the files that exists: plain, with `.gz`, or inside a zip or tar file."""
    for folder in folders:
        for name in file_names:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return TextSource(path)
        for archive in archives:
            path = folder / archive
            if not path.is_file():
                continue
            members = _members(path)
            for name in file_names:
                for member in members:
                    if member == name or member.endswith(f"/{name}"):
                        return TextSource(path, member=member)
    return None
