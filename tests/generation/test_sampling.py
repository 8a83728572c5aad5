"""`sample`: what is drawn, how often, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.generation import sample

PROBABILITIES = np.array([0.05, 0.4, 0.0, 0.25, 0.1, 0.2])
with np.errstate(divide="ignore"):
    LOG_PROBS = np.log(PROBABILITIES).astype("float32")


def frequencies(rows: int = 40_000, **options) -> np.ndarray:
    """How often each token is drawn."""
    tokens = sample(np.tile(LOG_PROBS, (rows, 1)), seed=11, **options).numpy()
    return np.bincount(tokens, minlength=len(LOG_PROBS)) / rows


def share(keep, power: float = 1.0) -> np.ndarray:
    """The distribution that is left when only the tokens `keep` may be drawn."""
    weights = np.where(np.isin(np.arange(len(PROBABILITIES)), keep), PROBABILITIES**power, 0)
    return weights / weights.sum()


EVERY = [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, share(EVERY)),
        ({"temperature": 2.0}, share(EVERY, 0.5)),
        ({"temperature": 0.5}, share(EVERY, 2.0)),
        ({"top_k": 2}, share([1, 3])),
        ({"top_k": 3, "temperature": 2.0}, share([1, 3, 5], 0.5)),
        ({"top_k": 100}, share(EVERY)),
        ({"top_p": 0.5}, share([1, 3])),
        ({"top_p": 0.39}, share([1])),
        ({"top_p": 1e-45}, share([1])),  # the smallest number that float32 has
        ({"top_k": 3, "top_p": 0.6}, share([1, 3])),  # 0.4 / 0.85 < 0.6 <= 0.65 / 0.85
        ({"top_p": 1e-9}, share([1])),
        # The ends of what is allowed, and numbers that float32 and int32 do not hold.
        ({"top_p": 1e-45}, share([1])),
        ({"top_p": 1e-300}, share([1])),
        ({"top_p": 1 - 1e-12}, share(EVERY)),
        ({"temperature": 1e-45}, share([1])),
        ({"temperature": 1e-38, "top_p": 0.9}, share([1])),
        ({"temperature": 1e-300}, share([1])),
        ({"temperature": 3e38}, share(EVERY, 0.0)),
        ({"temperature": 1e300}, share(EVERY, 0.0)),
        ({"temperature": 10**400}, share(EVERY, 0.0)),
        ({"top_k": 2**40}, share(EVERY)),
        # All are equal at such a temperature; of equal ones the first are kept.
        ({"top_k": 2**31 - 1, "top_p": 1e-45, "temperature": 1e300}, share([0])),
    ],
)
def test_draws_from_the_distribution(options, expected):
    got = frequencies(**options)
    assert not got[expected == 0].any()
    np.testing.assert_allclose(got, expected, atol=0.01)  # 4 standard deviations


def test_zero_temperature_takes_the_first_of_the_likeliest():
    rows = np.log([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]])
    assert sample(rows, temperature=0).numpy().tolist() == [1, 0]
    assert sample(rows, temperature=tf.constant(0.0)).numpy().tolist() == [1, 0]
    assert sample(rows, temperature=1e-30, top_p=0.9, seed=1).numpy()[0] == 1


def test_top_k_keeps_exactly_k_of_equals():
    drawn = sample(tf.zeros((500, 6)), top_k=2, seed=5).numpy()
    assert sorted(set(drawn)) == [0, 1]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.7, "temperature": 1.5}])
def test_graph_and_tensors_give_what_numbers_give(options):
    rows = np.tile(LOG_PROBS, (50, 1))
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
    whole = {"temperature": tf.float32, "top_k": tf.int32, "top_p": tf.float32}
    tensors = {name: tf.constant(value, whole[name]) for name, value in defaults.items()}
    want = sample(rows, seed=3, **options).numpy()
    assert len(set(want)) > 1
    np.testing.assert_array_equal(sample(rows, seed=3, **tensors), want)
    np.testing.assert_array_equal(tf.function(sample)(rows, seed=3, **tensors), want)
    assert (sample(rows, seed=4, **options).numpy() != want).any()
    assert (sample(rows, **options).numpy() != want).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_type_of_log_probabilities(dtype):
    """Half precision is computed with in float32: a temperature of 1e5 is not infinite in it."""
    rows = tf.cast(np.tile(LOG_PROBS, (20_000, 1)), dtype)
    for options, expected in (
        ({}, share(EVERY)),
        ({"temperature": 1e5}, share(EVERY, 0.0)),
        ({"temperature": 1e-7}, share([1])),
        ({"top_p": tf.constant(1e-45, tf.float64)}, share([1])),
        ({"temperature": tf.constant(1e300, tf.float64)}, share(EVERY, 0.0)),
        ({"top_k": tf.constant(2**40)}, share(EVERY)),
    ):
        drawn = sample(rows, seed=2, **options).numpy()
        got = np.bincount(drawn, minlength=len(LOG_PROBS)) / len(drawn)
        assert len(got) == len(LOG_PROBS) and not got[expected == 0].any()
        np.testing.assert_allclose(got, expected, atol=0.02)
    assert sample([[0, 3, 1]], temperature=0).numpy() == 1  # integers are logits too


def test_rows_with_one_token_that_can_be():
    row = np.full((1, 5), -np.inf, "float32")
    row[0, 3] = -1e30
    for options in ({}, {"temperature": 1e300}, {"temperature": 1e-45}, {"top_p": 1e-45}):
        assert sample(np.tile(row, (200, 1)), seed=4, **options).numpy().tolist() == [3] * 200


def test_rows_have_their_own_options_and_seeds():
    rows = np.tile(LOG_PROBS, (4, 1))
    options = {
        "temperature": tf.constant([0.0, 1.0, 1.5, 2.0]),
        "top_k": tf.constant([0, 1, 3, 0]),
        "top_p": tf.constant([1.0, 1.0, 0.9, 1.0]),
    }
    seeds = tf.constant([[1, 9], [2, 9], [3, 8], [1, 7]])
    together = sample(rows, seed=seeds, **options).numpy()
    assert together[0] == 1 and together[1] == 1
    for i in range(4):
        alone = {name: value[i : i + 1] for name, value in options.items()}
        assert sample(rows[:1], seed=seeds[i : i + 1], **alone).numpy()[0] == together[i]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "`temperature`.*Received: temperature=-1.0"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"temperature": float("inf")}, "`temperature`"),
        ({"temperature": "hot"}, "`temperature`"),
        ({"top_k": -1}, "`top_k`.*Received: top_k=-1"),
        ({"top_k": 1.5}, "`top_k`"),
        ({"top_p": 0.0}, "`top_p`.*Received: top_p=0.0"),
        ({"top_p": 1.01}, "`top_p`"),
        ({"top_p": True}, "`top_p`"),
        ({"seed": 2**40}, "`seed` must fit in 32 bits"),
        ({"seed": 1.5}, "`seed` must be an integer"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(LOG_PROBS[None], **options)


def test_tensors_out_of_range_are_refused():
    for options in (
        {"temperature": tf.constant(-1.0)},
        {"top_k": tf.constant([-1])},
        {"top_p": tf.constant(0.0)},
    ):
        (name,) = options
        with pytest.raises(tf.errors.InvalidArgumentError, match=name):
            sample(LOG_PROBS[None], **options)
        with pytest.raises(tf.errors.InvalidArgumentError, match=name):
            tf.function(sample)(LOG_PROBS[None], **options)


def test_log_probabilities_without_sense_are_refused():
    with pytest.raises(ValueError, match=r"`log_probs` must be of shape \(batch, vocabulary\)"):
        sample(LOG_PROBS)
    for bad in ([0.0, np.nan], [-np.inf, -np.inf]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
            sample(np.array([bad], "float32"))
