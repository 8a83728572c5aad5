"""`Data` of a text corpus."""

from collections.abc import Mapping

import numpy as np

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.corpus_cache import corpus_stream, corpus_vocabulary
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.errors import DataError, MissingDataError
from keras_seq.pipelines.registry import Request
from keras_seq.pipelines.text_options import TextOptions, checked_splits
from keras_seq.pipelines.token_stream import eval_dataset, train_source
from keras_seq.pipelines.vocabulary import Vocabulary


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
    splits = checked_splits(options)
    if request.length is None:
        raise ValueError(f"`length` must be given for {corpus.name!r}: the steps of a window.")
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
        vocabulary = corpus_vocabulary(corpus, options, hashes, level, space)
    if vocabulary.level != level:
        raise ValueError(
            f"{corpus.name!r} needs a vocabulary of level {level!r}. "
            f"Received: vocabulary={vocabulary!r}."
        )
    streams = {}
    for split in splits:
        streams[split] = corpus_stream(corpus, split, vocabulary, hashes[split], options.cache_dir)
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
