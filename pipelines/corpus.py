"""A text corpus: split sources, and the rule that turns them into tokens."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from keras_seq.pipelines.errors import DataError
from keras_seq.pipelines.text_source import TextSource
from keras_seq.pipelines.vocabulary import EOS, Vocabulary


class Corpus:
    """Split sources and the rule that turns them into tokens.

    Args:
        name: for messages and file names.
        sources: split name to source.
        form: `"words"`: words between white space, and `<eos>` for each line end;
            `"characters"`: every character (Unicode code point), line ends included.
    """

    def __init__(self, name: str, sources: Mapping[str, TextSource], form: str = "words"):
        self.name = name
        self.sources = dict(sources)
        self.form = form

    def counts(self, split: str) -> Counter:
        """Occurrences of each token of a split, in order of first appearance."""
        counter: Counter = Counter()
        source = self.sources[split]
        if self.form == "words":
            for tokens in self._words(source):
                counter.update(tokens)
            return counter
        for text in self._characters(source):
            counter.update(text)
        return Counter({character.encode(): n for character, n in counter.items()})

    def encode(self, split: str, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
        """Blocks of ids of a split."""
        source, unk = self.sources[split], vocabulary.unk_id
        lines = characters = 0
        if self.form == "words":
            for tokens in self._words(source):
                ids = vocabulary.encode_tokens(tokens)
                if unk is None and ids.size and ids.min() < 0:
                    at = int(np.argmax(ids < 0))
                    raise _unknown(source, tokens[at], f"line {lines + 1 + tokens[:at].count(EOS)}")
                yield np.where(ids < 0, unk or 0, ids)
                lines += tokens.count(EOS)
            return
        table = np.full(0x110000, -1, np.int64)
        for token, i in vocabulary.index.items():
            character = token.decode("utf-8", "replace")
            if len(character) == 1:
                table[ord(character)] = i
        for text in self._characters(source):
            ids = table[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
            if unk is None and ids.size and ids.min() < 0:
                at = int(np.argmax(ids < 0))
                raise _unknown(source, text[at].encode(), f"character {characters + at}")
            yield np.where(ids < 0, unk or 0, ids)
            characters += len(text)

    def _words(self, source: TextSource) -> Iterator[list[bytes]]:
        for chunk in source.chunks():
            if not chunk.endswith(b"\n") and chunk[chunk.rfind(b"\n") + 1 :].strip():
                chunk += b"\n"
            yield chunk.replace(b"\n", b" <eos> ").split()

    def _characters(self, source: TextSource) -> Iterator[str]:
        position, line = 0, 1
        for chunk in source.chunks():
            try:
                yield chunk.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"the byte {chunk[error.start]:#04x} is not valid UTF-8 here.",
                    path=source.label,
                    place=f"byte {position + error.start}, "
                    f"line {line + chunk[: error.start].count(10)}",
                    remedy="Convert the file to UTF-8, for example with `iconv -t UTF-8`.",
                ) from error
            position += len(chunk)
            line += chunk.count(10)


def _unknown(source: TextSource, token: bytes, place: str) -> DataError:
    return DataError(
        f"{token!r} is not in the vocabulary, which has no <unk>.",
        path=source.label,
        place=place,
        remedy="Add <unk> to the vocabulary, or use the one that belongs to this text.",
    )
