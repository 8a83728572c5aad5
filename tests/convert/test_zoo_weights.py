"""Weight files of the original scripts fit the models of the zoo, name by name and size by size."""

import json

import numpy as np
import pytest

from keras_seq import zoo
from keras_seq.convert import bind

# The model here, its variant, and the configuration of the original script.
MODELS = [
    ("trellisnet_ptb_word_mos", None, "trellisnet_ptb_word_mos15"),
    ("trellisnet_ptb_char", None, "trellisnet_ptb_char_nhid1000"),
    ("trellisnet_ptb_char", "released", "trellisnet_ptb_char"),
    ("trellisnet_seq_mnist", "released", "trellisnet_seq_mnist"),
    ("trellisnet_seq_cifar10", "released", "trellisnet_seq_cifar10"),
]


@pytest.mark.parametrize("name,variant,original", MODELS)
def test_names_and_shapes_of_the_release_fit(name, variant, original, golden):
    counts = json.loads((golden / "parameter_counts.json").read_text())[original]
    zero = np.float32(0)
    arrays = {key: np.broadcast_to(zero, shape) for key, shape in counts["shapes"].items()}
    model = getattr(zoo, name)(variant=variant)
    bindings = bind(model, arrays)
    assert len(bindings) == len(arrays) == len(model.weights)
    assert model.count_params() == counts["parameters"]
