"""`wikitext2`, `wikitext103` (Merity et al. 2017)."""

from keras_seq.pipelines.corpus_files import CorpusFiles
from keras_seq.pipelines.data import Data
from keras_seq.pipelines.published import CorpusOptions, load_published
from keras_seq.pipelines.registry import Request, register


def _files(size: str, *folders: str) -> CorpusFiles:
    return CorpusFiles(
        title=f"WikiText-{size}",
        names={
            "train": ("wiki.train.tokens", "train.txt"),
            "validation": ("wiki.valid.tokens", "valid.txt"),
            "test": ("wiki.test.tokens", "test.txt"),
        },
        folders=(f"wikitext-{size}", f"wikitext{size}", f"wikitext-{size}-v1", *folders),
        archives=(f"wikitext-{size}-v1.zip",),
        homepage=f"the released archive wikitext-{size}-v1.zip",
    )


WIKITEXT2, WIKITEXT103 = _files("2", "wikitext"), _files("103")


@register("wikitext2", CorpusOptions())
def wikitext2(request: Request, options: CorpusOptions) -> Data:
    """Words, `<eos>` for each line end: 2,088,628 / 217,646 / 245,569 tokens, 33,278 types."""
    return load_published(request, options, WIKITEXT2, builder="keras_seq_wikitext/wikitext2")


@register("wikitext103", CorpusOptions())
def wikitext103(request: Request, options: CorpusOptions) -> Data:
    """Words, `<eos>` for each line end: 103,227,021 / 217,646 / 245,569 tokens, 267,735 types."""
    return load_published(request, options, WIKITEXT103, builder="keras_seq_wikitext/wikitext103")
