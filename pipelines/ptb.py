"""`ptb_word`, `ptb_char`: Penn Treebank as prepared by Mikolov et al. (2010, 2012)."""

from keras_seq.pipelines.corpus_files import CorpusFiles
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.published import CorpusOptions, load_published
from keras_seq.pipelines.registry import Request, register
from keras_seq.pipelines.text_source import SpelledSource

_HOMEPAGE = "the `simple-examples` archive of Mikolov's RNNLM toolkit"

WORDS = CorpusFiles(
    title="Penn Treebank (words)",
    names={
        "train": ("ptb.train.txt", "train.txt"),
        "validation": ("ptb.valid.txt", "valid.txt"),
        "test": ("ptb.test.txt", "test.txt"),
    },
    folders=("ptb", "penn", "ptb_word", "simple-examples/data"),
    archives=("simple-examples.tgz",),
    homepage=_HOMEPAGE,
)
CHARACTERS = CorpusFiles(
    title="Penn Treebank (characters)",
    names={
        "train": ("ptb.char.train.txt", "train.txt", "ptb.train.txt"),
        "validation": ("ptb.char.valid.txt", "valid.txt", "ptb.valid.txt"),
        "test": ("ptb.char.test.txt", "test.txt", "ptb.test.txt"),
    },
    folders=("ptb_char", "pennchar", "simple-examples/data", "ptb", "penn"),
    archives=("simple-examples.tgz",),
    homepage=_HOMEPAGE,
)


@register("ptb_word", CorpusOptions())
def ptb_word(request: Request, options: CorpusOptions) -> Data:
    """Words, `<eos>` for each line end: 929,589 / 73,760 / 82,430 tokens, 10,000 types."""
    return load_published(request, options, WORDS, builder="keras_seq_ptb/word")


@register("ptb_char", CorpusOptions())
def ptb_char(request: Request, options: CorpusOptions) -> Data:
    """Characters, `_` for a space, `<eos>` for each line end: 5,017,482 / 393,042 / 442,423 tokens.

    The alphabet is 50 with `<eos>`. The files hold characters separated by spaces; where there are
    only the word files, they are spelt out the same way.
    """
    return load_published(
        request,
        options,
        CHARACTERS,
        builder="keras_seq_ptb/character",
        level="character",
        space="_",
        adapt=SpelledSource,
    )
