"""Weights of the original PyTorch releases: their names, their layouts, their files."""

from keras_seq.convert.mappings import ANY_PREFIX as ANY_PREFIX
from keras_seq.convert.mappings import CHANNEL_GAIN as CHANNEL_GAIN
from keras_seq.convert.mappings import CONVOLUTION as CONVOLUTION
from keras_seq.convert.mappings import DENSE as DENSE
from keras_seq.convert.mappings import Layout as Layout
from keras_seq.convert.mappings import Slot as Slot
from keras_seq.convert.mappings import Unused as Unused
from keras_seq.convert.mappings import discover as _discover
from keras_seq.convert.mappings import mapping as mapping
from keras_seq.convert.mappings import slots as slots
from keras_seq.convert.reference import ReferenceWeightsError as ReferenceWeightsError
from keras_seq.convert.reference import bind as bind
from keras_seq.convert.reference import convert_file as convert_file
from keras_seq.convert.reference import load_reference as load_reference
from keras_seq.convert.torch_file import TorchFileError as TorchFileError
from keras_seq.convert.torch_file import read_state_dict as read_state_dict

_discover()
