"""How far apart the vectors of words lie: their variance by frequency and by tag."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_seq.models import LanguageModel
from keras_seq.pipelines import Vocabulary
from keras_seq.training.dynamic_evaluation import unpack_batch

_WORDS = 8192  # vectors that are looked up at once


def word_vectors(model: LanguageModel) -> np.ndarray:
    """(v, e) the vector that each token enters the model with, for any kind of embedding."""
    model.build()
    size = model.vocabulary_size
    parts = [
        np.asarray(model.embedding(np.arange(start, min(start + _WORDS, size))[None])[0])
        for start in range(0, size, _WORDS)
    ]
    return np.concatenate(parts).astype(np.float32)


def count_tokens(dataset: Iterable, vocabulary_size: int, history: int = 0) -> np.ndarray:
    """(v,) how often each token is a target of a text.

    Args:
        dataset: batches `(ids, targets[, sample_weight])`; targets of weight 0 do not count.
        vocabulary_size: v.
        history: leading targets of a window that an earlier window has had; for batches without
            weights.
    """
    counts = np.zeros(vocabulary_size, np.int64)
    for batch in dataset:
        _, targets, weights = unpack_batch(batch)
        start = history if len(batch) == 2 else 0
        kept = np.asarray(targets)[:, start:][np.asarray(weights)[:, start:] > 0]
        counts += np.bincount(kept, minlength=vocabulary_size)
    return counts


def variance(vectors: np.ndarray) -> float:
    """The mean over the dimensions of the variance over the words.

    Args:
        vectors: (n, e).

    Example:

    >>> keras_seq.analysis.variance(np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    return float(np.mean(np.var(np.asarray(vectors, np.float64), axis=0)))


def variance_by_band(
    vectors: np.ndarray, counts: np.ndarray, edges: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Variance of the word vectors in bands of frequency: Mehta et al. (2018), section 4.3.

    Words are ranked by falling count, equal counts by id; a band is a range of ranks.

    Args:
        vectors: (v, e) word vectors.
        counts: (v,) how often each word occurs.
        edges: the last rank of every band but the last; by default 10, 30, 100, 300 and so on.

    Returns:
        For each band a dictionary: `first` and `last` rank from 1, number of `words`, `most` and
        `least` occurrences of a word in it, `variance`.

    Raises:
        ValueError: if there are not as many counts as vectors, or the edges do not rise.
    """
    vectors, counts = np.asarray(vectors), np.asarray(counts)
    size = len(vectors)
    if counts.shape != (size,):
        raise ValueError(
            f"`counts` must hold a count for each of the {size} vectors. "
            f"Received: an array of shape {counts.shape}."
        )
    if edges is None:
        edges = [mantissa * 10**power for power in range(1, 10) for mantissa in (1, 3)]
    limits = [0, *(edge for edge in edges if edge < size), size]
    if any(low >= high for low, high in zip(limits, limits[1:], strict=False)):
        raise ValueError(f"`edges` must be positive and rise. Received: edges={list(edges)}.")
    order = np.argsort(-counts, kind="stable")
    bands = []
    for low, high in zip(limits, limits[1:], strict=False):
        words = order[low:high]
        bands.append(
            {
                "first": low + 1,
                "last": high,
                "words": high - low,
                "most": int(counts[words[0]]),
                "least": int(counts[words[-1]]),
                "variance": variance(vectors[words]),
            }
        )
    return bands


def read_tags(path: str | Path) -> dict[str, list[bytes]]:
    """Reads words by tag from a file of lines `word<TAB>tag`; empty lines are left out.

    A word may have several lines, and then belongs to each of their tags.

    Raises:
        ValueError: for a line that is not two fields with a tab between.
        FileNotFoundError: if there is no such file.
    """
    tagged: dict[str, dict[bytes, None]] = {}
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, *fields = line.split("\t")
        if not word or len(fields) != 1 or not fields[0].strip():
            raise ValueError(
                f"{path}, line {number}: a line must be a word, a tab and its tag. "
                f"Received: {line!r}."
            )
        tagged.setdefault(fields[0].strip(), {})[word.encode()] = None
    return {tag: list(words) for tag, words in tagged.items()}


def variance_by_tag(
    vectors: np.ndarray, vocabulary: Vocabulary, tagged: dict[str, list[bytes]]
) -> list[dict[str, Any]]:
    """Variance of the word vectors of each tag, for example part of speech.

    Args:
        vectors: (v, e) word vectors.
        vocabulary: the words of the vectors; others of a tag are left out.
        tagged: words by tag, see `read_tags`.

    Returns:
        For each tag of which there are words, by falling number of them, a dictionary: `tag`,
        number of `words`, `variance`.

    Raises:
        ValueError: if no word is in the vocabulary.
    """
    index, rows = vocabulary.index, []
    for tag, words in tagged.items():
        ids = [index[word] for word in words if word in index]
        if ids:
            rows.append(
                {"tag": tag, "words": len(ids), "variance": variance(np.asarray(vectors)[ids])}
            )
    if not rows:
        raise ValueError(
            "None of the tagged words is in the model's vocabulary. Give words as the text has "
            "them, one a line with its tag."
        )
    return sorted(rows, key=lambda row: (-row["words"], row["tag"]))
