"""Dropout of kernel elements."""

import numpy as np
import pytest

from keras_seq.layers import weight_drop, weight_drop_mask

SEED = 3


@pytest.mark.parametrize(
    ("taps", "temporal", "dropped"), [(3, True, 2), (3, False, 3), (2, True, 1), (1, True, 1)]
)
def test_only_the_taps_of_past_steps_are_dropped(taps, temporal, dropped):
    kernel = np.ones((taps, 30, 40), "float32")
    mask = np.asarray(weight_drop_mask(kernel.shape, 0.25, SEED, temporal))
    assert mask.shape == (dropped, 30, 40)
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.75], rtol=1e-6)
    assert abs(mask.mean() - 1) < 0.05
    result = np.asarray(weight_drop(kernel, mask))
    np.testing.assert_array_equal(result[:dropped], mask)
    np.testing.assert_array_equal(result[dropped:], kernel[dropped:])


def test_masks_differ_with_the_seed():
    first, again, other = (
        np.asarray(weight_drop_mask((2, 5, 6), 0.5, seed)) for seed in (SEED, SEED, SEED + 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
