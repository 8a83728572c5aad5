"""Options of the text data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_seq.pipelines.vocabulary import Vocabulary

SPLITS = ("train", "validation", "test")


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


def checked_splits(options: TextOptions) -> tuple[str, ...]:
    """The splits to load; raises `ValueError` for names that are no splits."""
    splits = tuple(options.splits)
    if not splits or any(split not in SPLITS for split in splits):
        raise ValueError(f"`splits` must name some of {SPLITS}. Received: splits={splits!r}.")
    return splits
