"""The loss of one cluster, in chunks, against that of all tokens at once."""

import numpy as np
import pytest
from naive_checks import check_equals_naive

from keras_seq.ops import naive
from keras_seq.ops.cluster_nll import cluster_nll

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("count", "mode"), [(0, "graph"), (0, "xla"), (5, "eager"), (5, "xla"), (9, "graph")]
)
def test_cluster_nll(count, mode):
    targets, tokens = RNG.integers(0, 6, 9).astype("int32"), RNG.permutation(9).astype("int32")
    start = 9 - count

    def run(function):
        def of(hidden, table, bias, projection):
            weights = (table, bias, projection)
            return function(hidden, targets, tokens, start, count, weights, 12, "float64")

        return of

    shapes = ((9, 4), (6, 3), (6,), (4, 3))  # two tokens' logits at once
    tensors = [RNG.normal(size=shape) for shape in shapes]
    check_equals_naive(run(cluster_nll), run(naive.cluster_nll), *tensors, mode=mode)


def test_cluster_nll_without_bias_and_projection():
    targets, tokens = np.arange(5, dtype="int32"), np.arange(5, dtype="int32")

    def run(function):
        def of(hidden, table):
            return function(hidden, targets, tokens, 1, 3, (table, None, None), 100, "float64")

        return of

    tensors = RNG.normal(size=(5, 4)), RNG.normal(size=(6, 4))
    check_equals_naive(run(cluster_nll), run(naive.cluster_nll), *tensors)
