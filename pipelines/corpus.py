"""A text corpus: split sources, and the rule that turns them into tokens."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from keras_seq.pipelines.errors import DataError
from keras_seq.pipelines.text_source import TextSource, decoded
from keras_seq.pipelines.vocabulary import EOS, Vocabulary

_SPACES = (b" ", b"\t", b"\n", b"\r", b"\v", b"\f")  # between words, as `bytes.split` has it


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
        for text in decoded(source):
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
        table = np.full(0x110000, -1, np.int32)
        for token, i in vocabulary.index.items():
            character = token.decode("utf-8", "replace")
            if len(character) == 1:
                table[ord(character)] = i
        for text in decoded(source):
            ids = table[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
            if unk is None and ids.size and ids.min() < 0:
                at = int(np.argmax(ids < 0))
                raise _unknown(source, text[at].encode(), f"character {characters + at}")
            yield np.where(ids < 0, unk or 0, ids)
            characters += len(text)

    def _words(self, source: TextSource) -> Iterator[list[bytes]]:
        rest, begun = b"", False  # a word that may go on; whether its line has words before it
        for block in source.blocks():
            block = rest + block
            cut = max(map(block.rfind, _SPACES)) + 1
            words, rest = block[:cut], block[cut:]
            last = words.rfind(b"\n")
            begun = bool(words[last + 1 :].strip()) or (begun and last < 0)
            yield words.replace(b"\n", b" <eos> ").split()
        if rest or begun:  # the last line has no end
            yield [*rest.split(), EOS]


def _unknown(source: TextSource, token: bytes, place: str) -> DataError:
    return DataError(
        f"{token!r} is not in the vocabulary, which has no <unk>.",
        path=source.label,
        place=place,
        remedy="Add <unk> to the vocabulary, or use the one that belongs to this text.",
    )
