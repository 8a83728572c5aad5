"""WikiText for TensorFlow Datasets."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from keras_seq.pipelines.tfds_builders.lines import line_info, read_lines

_URL = "https://s3.amazonaws.com/research.metamind.io/wikitext/"
_ARCHIVES = {
    "wikitext2": (
        "wikitext-2-v1.zip",
        4475746,
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    ),
    "wikitext103": (
        "wikitext-103-v1.zip",
        190229076,
        "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
    ),
}
_FILES = {
    "train": "wiki.train.tokens",
    "validation": "wiki.valid.tokens",
    "test": "wiki.test.tokens",
}
_CITATION = """\
@inproceedings{merity2017pointer,
  title = {Pointer Sentinel Mixture Models},
  author = {Merity, Stephen and Xiong, Caiming and Bradbury, James and Socher, Richard},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}"""


class KerasSeqWikitext(tfds.core.GeneratorBasedBuilder):
    """WikiText (Merity et al. 2017): configs `wikitext2` and `wikitext103`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="wikitext2", description="WikiText-2, words."),
        tfds.core.BuilderConfig(name="wikitext103", description="WikiText-103, words."),
    ]
    url_infos = {
        _URL + name: tfds.download.checksums.UrlInfo(size=size, checksum=digest, filename=name)
        for name, size, digest in _ARCHIVES.values()
    }

    def _info(self) -> Any:
        return line_info(
            self,
            "Verified good and featured articles of Wikipedia, one paragraph a line, rare words "
            "as <unk>. Licence CC BY-SA 3.0.",
            "https://blog.salesforceairesearch.com/"
            "the-wikitext-long-term-dependency-language-modeling-dataset/",
            _CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        archive = _ARCHIVES[self.builder_config.name][0]
        folder = dl_manager.download_and_extract(_URL + archive) / archive.removesuffix("-v1.zip")
        return {split: self._generate_examples(folder / name) for split, name in _FILES.items()}

    def _generate_examples(self, path: Any) -> Iterator[tuple[int, dict[str, bytes]]]:
        for number, line in enumerate(read_lines(path)):
            yield number, {"text": line}
