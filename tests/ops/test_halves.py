"""Every other feature, as parts of complex numbers, against slices."""

import numpy as np
import pytest
from naive_checks import check_equals_naive

from keras_seq.ops import naive
from keras_seq.ops.halves import halves


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_halves(mode):
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    check_equals_naive(halves, naive.halves, x, mode=mode, tolerance=1e-6)
