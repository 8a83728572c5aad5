"""Weights of the original releases: their names, their layouts, their files."""

from keras_seq.convert.keras_tcn import keras_tcn_layer, load_keras_tcn
from keras_seq.convert.mappings import (
    ANY_PREFIX,
    CHANNEL_GAIN,
    CONVOLUTION,
    DENSE,
    Layout,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.convert.mappings import discover as _discover
from keras_seq.convert.reference import ReferenceWeightsError, bind, convert_file, load_reference
from keras_seq.convert.torch_file import TorchFileError, read_state_dict

__all__ = [
    "ANY_PREFIX",
    "CHANNEL_GAIN",
    "CONVOLUTION",
    "DENSE",
    "Layout",
    "ReferenceWeightsError",
    "Slot",
    "TorchFileError",
    "Unused",
    "bind",
    "convert_file",
    "keras_tcn_layer",
    "load_keras_tcn",
    "load_reference",
    "mapping",
    "read_state_dict",
    "slots",
]

_discover()
