"""`python_docs`, `python_docs_char`: the help texts that ship with every CPython."""

import hashlib
import platform

from keras_seq.pipelines.corpus import Corpus
from keras_seq.pipelines.corpus_data import load_corpus
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.text_options import SPLITS, TextOptions
from keras_seq.pipelines.text_source import TextSource

HELD_OUT = 0.05  # of the characters, for validation and for test each
LARGEST = 0.025  # of the characters: a longer topic is never held out


def topic_splits() -> dict[str, dict[str, str]]:
    """Topics of `pydoc_data.topics` by split.

    Topics are ordered by the SHA-256 of their name. Test takes them from the start until it holds
    5% of the characters, then validation does; topics of more than 2.5% and all others are
    for training. Several topics repeat paragraphs of others: a paragraph that is held out
    is left out of training, and validation holds none of test's.
    """
    from pydoc_data.topics import topics

    total = sum(map(len, topics.values()))
    ordered = sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest())
    short = [name for name in ordered if len(topics[name]) <= LARGEST * total]
    splits: dict[str, dict[str, str]] = {"test": {}, "validation": {}, "train": {}}
    seen: set[str] = set()
    for split in ("test", "validation"):
        held = splits[split]
        while short and sum(map(len, held.values())) < HELD_OUT * total:
            name = short.pop(0)
            held[name] = _without(topics[name], seen)
        seen |= {_words(p) for text in held.values() for p in text.split("\n\n")} - {""}
    chosen = splits["test"].keys() | splits["validation"].keys()
    for name in sorted(set(topics) - chosen):
        splits["train"][name] = _without(topics[name], seen)
    return splits


def _without(text: str, seen: set[str]) -> str:
    return "\n\n".join(p for p in text.split("\n\n") if _words(p) not in seen)


def _words(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _corpus(name: str, form: str) -> Corpus:
    label = f"pydoc_data.topics of Python {platform.python_version()}"
    texts = topic_splits()
    sources = {
        split: TextSource(
            content="\n".join(t.rstrip("\n") + "\n" for t in texts[split].values() if t).encode(),
            label=f"{label} ({split})",
        )
        for split in SPLITS
    }
    return Corpus(name, sources, form)


@register("python_docs", TextOptions(min_count=3, unk=True, cache_dir=False))
def python_docs(request: Request, options: TextOptions) -> Data:
    """Words of Python's help texts; words seen fewer than `min_count` times are `<unk>`."""
    return load_corpus(request, options, _corpus("python_docs", "words"))


@register("python_docs_char", TextOptions(min_count=5, unk=True, cache_dir=False))
def python_docs_char(request: Request, options: TextOptions) -> Data:
    """Characters of Python's help texts; those seen fewer than `min_count` times are `<unk>`."""
    corpus = _corpus("python_docs_char", "characters")
    return load_corpus(request, options, corpus, level="character")
