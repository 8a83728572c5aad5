"""Files to `tf.data`: texts, pixel sequences and synthetic tasks.

`load(name, ...)` gives a `Data` with train, validation and test datasets of known cardinality.
"""

from keras_seq.pipelines.data import Data as Data
from keras_seq.pipelines.errors import DataError as DataError
from keras_seq.pipelines.errors import MissingDataError as MissingDataError
from keras_seq.pipelines.registry import load as load
from keras_seq.pipelines.registry import names as names
from keras_seq.pipelines.registry import options as options
from keras_seq.pipelines.registry import register as register
from keras_seq.pipelines.vocabulary import Vocabulary as Vocabulary

__all__ = [
    "Data",
    "DataError",
    "MissingDataError",
    "Vocabulary",
    "load",
    "names",
    "options",
    "register",
]
