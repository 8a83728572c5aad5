"""A text corpus from its sources: vocabulary, cached token files, `Data`."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seq.pipelines.data import Data
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request
from keras_seq.pipelines.text_source import TextSource
from keras_seq.pipelines.token_file import id_dtype, read_token_file, write_token_file
from keras_seq.pipelines.token_stream import eval_dataset, train_source
from keras_seq.pipelines.vocabulary import EOS, UNK, Vocabulary

SPLITS = ("train", "validation", "test")
FORMAT = 1  # of the cached files: raise it when the encoding changes
logger = logging.getLogger(__name__)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, else `$KERAS_SEQ_CACHE`, else `~/.cache/keras_seq`."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    given = os.environ.get("KERAS_SEQ_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "keras_seq"


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
        position = 0
        for chunk in source.chunks():
            try:
                yield chunk.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"the byte {chunk[error.start]:#04x} is not valid UTF-8 here.",
                    path=source.label,
                    place=f"byte {position + error.start}, "
                    f"line {chunk[: error.start].count(10) + 1} of this block",
                    remedy="Convert the file to UTF-8, for example with `iconv -t UTF-8`.",
                ) from error
            position += len(chunk)


def _unknown(source: TextSource, token: bytes, place: str) -> DataError:
    return DataError(
        f"{token!r} is not in the vocabulary, which has no <unk>.",
        path=source.label,
        place=place,
        remedy="Add <unk> to the vocabulary, or use the one that belongs to this text.",
    )


@dataclass(frozen=True)
class TextOptions:
    """Options of the text data sets.

    Attributes:
        splits: the splits to load.
        vocabulary: a `Vocabulary`, the path of a saved one, `"splits"` to build one from the splits
            that are loaded, or `None` to build it from the training split.
        vocabulary_order: `"frequency"`, or `"appearance"` as the original programs number tokens.
        max_size, min_count: see `Vocabulary.from_counts`.
        unk: `True` puts `<unk>` into the vocabulary, `"auto"` only where a split needs it, `False`
            never (a token that needs it is then an error).
        random_lengths, length_multiple: see `train_source`.
        cache_dir: folder of encoded token files. Defaults to `$KERAS_SEQ_CACHE`, then to
            `~/.cache/keras_seq`; `False` keeps them in memory.
    """

    splits: Sequence[str] = SPLITS
    vocabulary: Vocabulary | str | Path | None = None
    vocabulary_order: str = "frequency"
    max_size: int | None = None
    min_count: int = 1
    unk: bool | str = "auto"
    random_lengths: bool = False
    length_multiple: int = 1
    cache_dir: str | Path | bool | None = None


def load_corpus(
    request: Request,
    options: TextOptions,
    corpus: Corpus,
    *,
    level: str = "word",
    space: str | None = None,
    remedy: str = "Give `splits`, the splits to load.",
) -> Data:
    """Builds the `Data` of a corpus.

    Args:
        request, options: what is asked for.
        corpus: sources and form.
        level, space: of the `Vocabulary`.
        remedy: what to do about a missing split.
    """
    splits = tuple(options.splits)
    if request.length is None:
        raise ValueError(f"`length` must be given for {corpus.name!r}: the steps of a window.")
    if not splits or any(split not in SPLITS for split in splits):
        raise ValueError(f"`splits` must name some of {SPLITS}. Received: splits={splits!r}.")
    for split in splits:
        if split not in corpus.sources:
            raise MissingDataError(f"{corpus.name}: no {split} split here.", remedy=remedy)
    hashes = {split: corpus.sources[split].fingerprint() for split in splits}
    given = options.vocabulary
    if given is None and "train" not in splits:
        raise DataError(
            f"{corpus.name} is loaded without its training split, which gives the vocabulary.",
            remedy='Give `vocabulary`: a saved one, or "splits" to build it from what is loaded.',
        )
    if isinstance(given, Vocabulary):
        vocabulary = given
    elif given is not None and given != "splits":
        vocabulary = Vocabulary.load(given, level=level, space=space)
    else:
        counted = splits if given == "splits" else ("train",)
        vocabulary = _build_vocabulary(corpus, options, counted, level, space)
    streams = {}
    for split in splits:
        streams[split] = _stream(corpus, split, vocabulary, hashes[split], options.cache_dir)
        if not streams[split].size:
            raise DataError(
                "the split has no tokens.",
                path=corpus.sources[split].label,
                remedy="Fetch the file again, or leave the split out with `splits`.",
            )
    labels = {split: corpus.sources[split].label for split in splits}
    return corpus_data(request, options, streams, vocabulary, labels)


def corpus_data(
    request: Request,
    options: TextOptions,
    streams: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    labels: Mapping[str, str],
) -> Data:
    """`Data` of streams of ids, split name to stream."""
    length = request.length or 1
    train = None
    if "train" in streams:
        train = train_source(
            streams["train"],
            batch_size=request.batch_size,
            length=length,
            history=request.history,
            random_lengths=options.random_lengths,
            length_multiple=options.length_multiple,
            seed=request.seed,
            name=labels["train"],
        )
    held_out = {
        split: eval_dataset(
            ids,
            batch_size=request.eval_batch_size,
            length=length,
            history=request.history,
            context_id=vocabulary.eos_id or 0,
        )
        for split, ids in streams.items()
        if split != "train"
    }
    return Data(
        name=request.name,
        train=None if train is None else train.repeated(),
        validation=held_out.get("validation"),
        test=held_out.get("test"),
        vocabulary=vocabulary,
        info={
            "tokens": {split: int(ids.size) for split, ids in streams.items()},
            "vocabulary_size": vocabulary.size,
            "source": dict(labels),
        },
        epoch_fn=None if train is None else train.epoch,
    )


def _build_vocabulary(
    corpus: Corpus, options: TextOptions, counted: Sequence[str], level: str, space: str | None
) -> Vocabulary:
    counts: Counter = Counter()
    for split in counted:
        counts.update(corpus.counts(split))

    def build(specials: Sequence[bytes]) -> Vocabulary:
        return Vocabulary.from_counts(
            counts,
            level,
            max_size=options.max_size,
            min_count=options.min_count,
            specials=specials,
            order=options.vocabulary_order,
            space=space,
        )

    if options.unk is True:
        return build([UNK])
    vocabulary = build([])
    if options.unk == "auto" and vocabulary.unk_id is None:
        for split in options.splits:
            if split not in counted and not corpus.counts(split).keys() <= vocabulary.index.keys():
                return build([UNK])
    elif options.unk is False and vocabulary.unk_id is not None and UNK not in counts:
        raise ValueError(
            "`unk=False` needs a vocabulary of every token. Received: "
            f"min_count={options.min_count}, max_size={options.max_size}. Leave these out."
        )
    return vocabulary


def _stream(corpus, split, vocabulary, source_hash, cache_dir) -> np.ndarray:
    """Ids of a split, from the cache where it holds them."""

    def encode():
        return corpus.encode(split, vocabulary)

    def in_memory():
        blocks = [np.asarray(b, id_dtype(vocabulary.size)) for b in encode()]
        return np.concatenate(blocks) if blocks else np.zeros(0, id_dtype(vocabulary.size))

    if cache_dir is False:
        return in_memory()
    tokens = hashlib.sha256(b"\n".join(vocabulary.tokens)).hexdigest()
    facts = {
        "format": FORMAT,
        "form": corpus.form,
        "source_sha256": source_hash,
        "vocabulary_sha256": tokens,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder(None if cache_dir is True else cache_dir)
    path = folder / f"{corpus.name}.{split}.{key}.ids"
    ids = read_token_file(path, facts)
    if ids is not None:
        return ids
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_token_file(path, encode(), vocabulary.size, facts)
        ids = read_token_file(path, facts)
    except DataError:
        raise
    except OSError as error:
        logger.warning("The cache folder %s cannot be used (%s).", folder, error)
    return in_memory() if ids is None else ids
