"""Where the bytes of a text split come from: plain or packed files, or memory."""

import codecs
import gzip
import hashlib
import itertools
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from keras_seq._reading import (
    UNPACK,
    BoundedFile,
    BrokenFileError,
    TooMuchUnpackedError,
    bounded,
    regular,
)
from keras_seq.pipelines.errors import DataError, MissingDataError

CHUNK = 1 << 20
_DAMAGED = (
    EOFError,
    KeyError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_MAGIC = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
CONVERT = "Convert the file to UTF-8, for example with `iconv -t UTF-8`."
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # its byte order marks


class TextSource:
    """The text of one split.

    Args:
        path: a file; `.gz` files are unpacked while read.
        member: name of a file inside `path`, which is then a zip or tar file.
        content: the text itself, in place of a file (`bytes`, or a view of some).
        label: the text in messages. Defaults to the path.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        member: str | None = None,
        content: bytes | memoryview | None = None,
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

    def blocks(self) -> Iterator[bytes]:
        """Blocks of the text, cut anywhere, without a byte order mark.

        Raises:
            DataError: for a file that is missing, packed in another format, cut short, not text, or
            packed and much larger than such a file.
        """
        position, empty = 0, True
        for block in self._blocks():
            self._check(block, position)
            if not position:
                block = block.removeprefix(codecs.BOM_UTF8)
            position += len(block)
            if block:
                empty = False
                yield block
        if empty:
            raise DataError(
                "the file is empty.", path=self.label, remedy="Give or fetch one with text in it."
            )

    def read(self) -> bytearray:
        """The whole text."""
        text = bytearray()
        for block in self.blocks():
            text += block
        return text

    def _open_raw(self) -> BinaryIO:
        try:
            return regular(str(self.path), "Copy what it gives to a file.").open("rb")
        except BrokenFileError as error:
            raise DataError(error.problem, path=self.path, remedy=error.remedy) from error
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
            for start in range(0, len(self.content), CHUNK):
                yield bytes(self.content[start : start + CHUNK])
            return
        position = 0
        with self._open_raw() as raw:
            try:
                for block in self._unpacked(raw):
                    position += len(block)
                    yield block
            except TooMuchUnpackedError as error:
                raise DataError(str(error), path=self.label, remedy=UNPACK) from error
            except _DAMAGED as error:
                raise DataError(
                    f"the packed file is cut short or damaged ({error}).",
                    path=self.label,
                    place=f"after byte {position} of the unpacked text",
                    remedy="Fetch it again and compare its size or checksum with the source's.",
                ) from error

    def _unpacked(self, raw: BinaryIO) -> Iterator[bytes]:
        if self.member is None and not str(self.path).endswith(".gz"):
            while block := raw.read(CHUNK):
                yield block
            return
        yield from bounded(self._from_archive(raw), _size(raw))

    def _from_archive(self, raw: BinaryIO) -> Iterator[bytes]:
        if self.member is None:
            with gzip.GzipFile(fileobj=raw) as file:
                while block := file.read1(CHUNK):
                    yield block
        elif _is_tar(self.path):
            with _open_tar(raw) as archive:
                file = archive.extractfile(self.member)
                while file is not None and (block := file.read(CHUNK)):
                    yield block
        else:
            with zipfile.ZipFile(raw) as archive, archive.open(self.member) as file:
                while block := file.read(CHUNK):
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
        if position == 0 and block.startswith(_UTF16):
            raise self._not_utf8("the byte order mark of UTF-16.", 0)
        null = block.find(b"\0")
        if null >= 0:
            raise self._not_utf8("a zero byte.", position + null)

    def _not_utf8(self, problem: str, place: int) -> DataError:
        return DataError(
            f"{problem} This is not a text file in UTF-8 or ASCII.",
            path=self.label,
            place=f"byte {place}",
            remedy=CONVERT,
        )


class _Rewritten(TextSource):
    """Another text, changed block by block.

    Args:
        source: the text.
    """

    kind = ""  # in the fingerprint

    def __init__(self, source: TextSource):
        super().__init__(label=source.label)
        self.source = source

    def fingerprint(self) -> str:
        return f"{self.kind}:{self.source.fingerprint()}"


class UnixLines(_Rewritten):
    """A text whose lines end as in Unix: the carriage returns of Windows' line ends go.

    Args:
        source: the text.
    """

    kind = "unix"

    def blocks(self) -> Iterator[bytes]:
        rest = b""
        for block in self.source.blocks():
            block = rest + block
            rest = b"\r" if block.endswith(b"\r") else b""  # its line end may come next
            yield block.removesuffix(rest).replace(b"\r\n", b"\n")
        if rest:
            yield rest


class SpelledSource(_Rewritten):
    """Words as characters, in the form of the character-level Penn Treebank.

    Each character is followed by a space and `_` stands for the space between two words. A text
    that has this form already is passed on as it is.

    Args:
        source: the text.
    """

    kind = "spelled"

    def blocks(self) -> Iterator[bytes]:
        spelled = None
        for lines in whole_lines(self.source.blocks()):
            if spelled is None:
                spelled = all(len(token) == 1 for token in lines.split())
            if spelled:
                yield lines
            else:
                yield b"\n".join(spell_line(line) for line in lines.split(b"\n"))


def whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same text in blocks of which each but the last ends with a line end."""
    rest = b""
    for block in blocks:
        block = rest + block
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if cut:
            yield block[:cut]
    if rest:
        yield rest


def decoded(source: TextSource) -> Iterator[str]:
    """The characters of a text in UTF-8, in blocks.

    Raises:
        DataError: for bytes that are not UTF-8, besides what `blocks` raises.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, position, line = 0, 0, 1  # the latter two of the first byte that is no character yet
    for block in itertools.chain(source.blocks(), (None,)):
        try:
            text = decoder.decode(block or b"", final=block is None)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            raise DataError(
                f"the byte {error.object[error.start]:#04x} is not valid UTF-8 here.",
                path=source.label,
                place=f"byte {position + len(before)}, line {line + before.count(10)}",
                remedy=CONVERT,
            ) from error
        if text:
            yield text
        line += text.count("\n")
        read += len(block or b"")
        position = read - len(decoder.getstate()[0])


def spell_line(line: bytes) -> bytes:
    """A line of words as characters: `b"a cat"` becomes `b"a _ c a t "`."""
    words = b"_".join(line.split()).decode("utf-8", "surrogateescape")
    return "".join(f"{character} " for character in words).encode("utf-8", "surrogateescape")


def _is_tar(path: Path | None) -> bool:
    return path is not None and path.name.endswith((".tgz", ".tar.gz", ".tar"))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _open_tar(raw: BinaryIO) -> tarfile.TarFile:
    """A tar file, of which no more is unpacked than such a file holds."""
    magic = raw.read(2)
    raw.seek(0)
    if _MAGIC.get(magic) != "gzip":
        return tarfile.open(fileobj=raw)
    file: Any = BoundedFile(gzip.GzipFile(fileobj=raw), _size(raw))
    return tarfile.open(fileobj=file, mode="r:")


def _members(path: Path) -> list[str]:
    """Files inside a zip or tar file."""
    try:
        with path.open("rb") as raw:
            if _is_tar(path):
                with _open_tar(raw) as archive:
                    return archive.getnames()
            with zipfile.ZipFile(raw) as archive:
                return archive.namelist()
    except TooMuchUnpackedError as error:
        raise DataError(str(error), path=path, remedy=UNPACK) from error
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
