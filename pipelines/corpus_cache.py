"""Vocabulary and ids of a corpus, from the cache where it holds them."""

import contextlib
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.errors import DataError
from keras_seq.pipelines.text_options import TextOptions
from keras_seq.pipelines.token_file import id_dtype, read_token_file, write_token_file
from keras_seq.pipelines.vocabulary import UNK, Vocabulary
from keras_seq.pipelines.vocabulary_file import description_file

FORMAT = 2  # of the cached files: raise it when the encoding changes
logger = logging.getLogger(__name__)


def cache_folder(cache_dir: str | Path | bool | None = None) -> Path:
    """`cache_dir`, else `$KERAS_SEQ_CACHE`, else `~/.cache/keras_seq`."""
    if cache_dir is not None and not isinstance(cache_dir, bool):
        return Path(cache_dir).expanduser()
    given = os.environ.get("KERAS_SEQ_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "keras_seq"


def _key(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def corpus_vocabulary(
    corpus: Corpus,
    options: TextOptions,
    hashes: Mapping[str, str],
    level: str,
    space: str | None,
) -> Vocabulary:
    """The vocabulary of the sources, counted once."""
    counted = tuple(options.splits) if options.vocabulary == "splits" else ("train",)
    if options.cache_dir is False:
        return _build_vocabulary(corpus, options, counted, level, space)
    facts = {
        "format": FORMAT,
        "form": corpus.form,
        "sources": dict(hashes),
        "counted": counted,
        "settings": [level, space, options.max_size, options.min_count, options.unk],
        "order": options.vocabulary_order,
    }
    path = cache_folder(options.cache_dir) / f"{corpus.name}.vocabulary.{_key(facts)}.txt"
    if description_file(path).is_file():  # else its writer was killed, perhaps within the tokens
        with contextlib.suppress(DataError, OSError):
            return Vocabulary.load(path)
    vocabulary = _build_vocabulary(corpus, options, counted, level, space)
    with contextlib.suppress(OSError):
        vocabulary.save(path)
    return vocabulary


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


def corpus_stream(corpus, split, vocabulary, source_hash, cache_dir) -> np.ndarray:
    """Ids of a split, from the cache where it holds them."""

    def encode():
        return corpus.encode(split, vocabulary)

    def in_memory():
        ids = bytearray()  # it grows in place: a list of blocks would be there twice
        for block in encode():
            ids += np.asarray(block, id_dtype(vocabulary.size)).tobytes()
        return np.frombuffer(ids, id_dtype(vocabulary.size))

    if cache_dir is False:
        return in_memory()
    tokens = hashlib.sha256(b"\n".join(vocabulary.tokens)).hexdigest()
    facts = {
        "format": FORMAT,
        "form": corpus.form,
        "source_sha256": source_hash,
        "vocabulary_sha256": tokens,
    }
    folder = cache_folder(cache_dir)
    path = folder / f"{corpus.name}.{split}.{_key(facts)}.ids"
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
