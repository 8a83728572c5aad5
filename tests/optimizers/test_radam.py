"""RAdam against its algorithm in NumPy, and what every optimizer here promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.optimizers import RAdam


def by_algorithm(weight, gradients, rate, beta_1, beta_2, epsilon=1e-8, l2=0.0, clip=None):
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    longest = 2 / (1 - beta_2) - 1
    path = []
    for t, gradient in enumerate(gradients, start=1):
        if clip is not None:
            gradient = gradient * min(1, clip / np.linalg.norm(gradient))
        gradient = gradient + l2 * weight
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        length = longest - 2 * t * beta_2**t / (1 - beta_2**t)
        mean = m / (1 - beta_1**t)
        if length > 5:
            r = np.sqrt(
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            )
            weight = weight - rate * r * mean * np.sqrt(1 - beta_2**t) / (np.sqrt(v) + epsilon)
        else:
            weight = weight - rate * mean
        path.append(weight)
    return path


@pytest.mark.parametrize("beta_2", [0.999, 0.9, 0.5])
@pytest.mark.parametrize(("l2", "clip"), [(0.0, None), (0.1, 0.5)])
def test_equals_the_algorithm(beta_2, l2, clip):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 2)), rng.normal(size=(12, 3, 2))
    variable = keras.Variable(start, dtype="float64")
    optimizer = RAdam(0.1, beta_2=beta_2, l2=l2, global_clipnorm=clip)
    want = by_algorithm(start, gradients, 0.1, 0.9, beta_2, l2=l2, clip=clip)
    for gradient, expected in zip(gradients, want, strict=True):
        optimizer.apply([tf.constant(gradient)], [variable])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_minimises_and_resumes_where_it_was(tmp_path):
    x = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32")

    def model():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(RAdam(0.05, global_clipnorm=1.0), loss="mse")
        return model

    whole = model()
    losses = whole.fit(x, y, epochs=20, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    first = model()
    first.fit(x, y, epochs=8, shuffle=False, verbose=0)
    first.save(tmp_path / "m.keras")
    second = keras.saving.load_model(tmp_path / "m.keras")
    rest = second.fit(x, y, epochs=12, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(rest, losses[8:], rtol=1e-6)


def test_configuration_and_refusals():
    optimizer = RAdam(0.1, beta_1=0.8, beta_2=0.99, epsilon=1e-6, l2=0.2)
    again = RAdam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match="`beta_2` must be in"):
        RAdam(beta_2=1.0)
    with pytest.raises(ValueError, match="`l2` must not be negative"):
        RAdam(l2=-1.0)
