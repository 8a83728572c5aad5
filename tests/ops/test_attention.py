"""Attention in blocks, and the shift of relative attention, against naive ones."""

import numpy as np
import pytest
from naive_checks import check_equals_naive

from keras_seq.ops import causal_attention, naive
from keras_seq.ops.causal_attention import attend
from keras_seq.ops.relative_positions import shift, visibility

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("causal", "span", "rate", "padded", "ahead"),
    [
        (True, None, 0.0, False, 0),
        (True, 3, 0.0, True, 2),
        (False, None, 0.4, True, 0),
        (True, 4, 0.4, False, 0),
    ],
)
def test_attend(causal, span, rate, padded, ahead, monkeypatch):
    monkeypatch.setattr(causal_attention, "_BLOCK", 3)  # so that nine queries are three blocks
    query = RNG.normal(size=(2, 2, 9, 4))
    key, value = (RNG.normal(size=(2, 2, 9 + ahead, 4)) for _ in range(2))
    valid = RNG.random((2, 9 + ahead)) < 0.8 if padded else None
    if valid is not None:
        valid[:, 0] = True
        valid = valid.astype("int32")
    seed = np.array([3, 4], "int32") if rate else None

    def run(function, written_gradient, in_blocks):
        def of(query, key, value):
            given = (valid, causal, span, rate, seed, written_gradient, in_blocks)
            return function(query, key, value, *given)[0]

        return of

    in_blocks = not rate  # a block has masks of its own
    for written_gradient in (True, False):
        fast = run(attend, written_gradient, in_blocks)
        check_equals_naive(fast, run(naive.attend, False, False), query, key, value)


@pytest.mark.parametrize("total", [4, 6])
def test_shift(total):
    """In the past of each query; what lies in its future holds no sensible value."""
    length = 4
    past = np.tril(np.ones((length, total)), total - length)
    scores = RNG.normal(size=(2, 3, length, total + 1))
    for mode in ("eager", "graph"):
        check_equals_naive(
            lambda scores: shift(scores, length, total) * past,
            lambda scores: naive.shift(scores, length, total) * past,
            scores,
            mode=mode,
        )


def test_visibility_in_half_precision_is_finite():
    bias = np.asarray(visibility(3, 5, 2, "float16"))
    assert np.isfinite(bias).all()
    assert (bias[0, 0] == 0).sum() == 6  # two keys a query
