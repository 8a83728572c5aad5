"""TensorFlow Datasets builders. Importing this package registers them with TensorFlow Datasets.

Lines are stored in their order (`disable_shuffling`), without their line end. A file that lies in
`DownloadConfig(manual_dir=...)` under its published name is used in place of a download; its
checksum is compared all the same. A new builder is a new module of this folder.
"""

import importlib
import pkgutil

from keras_seq.pipelines.tfds_builders.ptb import KerasSeqPtb as KerasSeqPtb
from keras_seq.pipelines.tfds_builders.wikitext import KerasSeqWikitext as KerasSeqWikitext

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["KerasSeqPtb", "KerasSeqWikitext"]
