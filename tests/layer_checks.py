"""Checks that every layer of the library passes; each raises with a clear message."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def check_config(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The configuration survives JSON, and the revived layer has the same configuration and
    attributes."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    revived = keras.saving.deserialize_keras_object(config)
    assert type(revived) is type(layer)
    first, second = layer.get_config(), revived.get_config()
    assert json.dumps(first, default=str, sort_keys=True) == json.dumps(
        second, default=str, sort_keys=True
    )
    assert set(dir(revived)) == set(dir(layer))
    return revived


def check_unknown_argument_refused(cls, **arguments):
    """A misspelt argument is refused."""
    try:
        cls(**arguments, no_such_option=1)
    except (TypeError, ValueError) as error:
        assert "no_such_option" in str(error)
    else:
        raise AssertionError(f"{cls.__name__} took an unknown argument")


def wrap(layer: keras.layers.Layer, shape: tuple, dtype="float32") -> keras.Model:
    """A functional model of one layer. `shape` is without the batch; `None` for a free length."""
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layer(inputs))


_LOADER = """
import sys, numpy as np
import keras, keras_seq
for index in range(int(sys.argv[2])):
    folder = f"{sys.argv[1]}/{index}"
    with np.load(folder + "/inputs.npz") as data:
        arrays = [data[k] for k in data.files]
    model = keras.models.load_model(folder + "/model.keras")
    outputs = model(arrays[0] if len(arrays) == 1 else arrays, training=False)
    model.save(folder + "/again.keras")
    keras.models.load_model(folder + "/again.keras")
    np.savez(folder + "/outputs.npz", *[np.asarray(keras.ops.convert_to_numpy(o)) for o in
    keras.tree.flatten(outputs)])
"""


def check_fresh_process(cases, folder: Path, rtol: float = 1e-5):
    """Models saved as `.keras` load, run and save again in a process that only imports `keras_seq`.

    Args:
        cases: pairs of a built model and its input array (or list of arrays).
        folder: an empty folder.
    """
    expected = []
    for index, (model, arrays) in enumerate(cases):
        place = folder / str(index)
        place.mkdir(parents=True)
        model.save(place / "model.keras")
        arrays = arrays if isinstance(arrays, list) else [arrays]
        np.savez(place / "inputs.npz", *arrays)
        outputs = model(arrays[0] if len(arrays) == 1 else arrays, training=False)
        expected.append([keras.ops.convert_to_numpy(o) for o in keras.tree.flatten(outputs)])
    result = subprocess.run(
        [sys.executable, "-c", _LOADER, str(folder), str(len(expected))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    for index, arrays in enumerate(expected):
        with np.load(folder / str(index) / "outputs.npz") as data:
            loaded = [data[k] for k in data.files]
        assert len(loaded) == len(arrays)
        for got, want in zip(loaded, arrays, strict=True):
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6)


def check_causal(function, x: np.ndarray, at: int):
    """Changing the input at step `at` and later leaves all earlier outputs alone, and changes a
    later one.

    Args:
        function: maps (b, t, ...) to outputs with time as the second axis.
        x: an input.
        at: the first changed time step.
    """
    changed = np.array(x)
    # Not the same in each feature, which a normalisation over them would take out.
    step = 1 if np.issubdtype(x.dtype, np.integer) else np.arange(1, x.shape[-1] + 1)
    changed[:, at:] = changed[:, at:] + step
    before, after = np.asarray(function(x)), np.asarray(function(changed))
    np.testing.assert_allclose(before[:, :at], after[:, :at], rtol=1e-5, atol=1e-6)
    assert np.abs(before[:, at:] - after[:, at:]).max() > 1e-6


def check_chunks(
    layer,
    x: np.ndarray,
    chunks: list[int],
    rtol: float = 1e-5,
    kind: str | None = None,
    **arguments,
):
    """Chunks with the state carried give the outputs of the full pass.

    Args:
        layer: a layer or model of the state contract.
        x: (b, t, ...).
        chunks: lengths of the chunks; they sum to t.
        rtol: relative tolerance.
        kind: of state; `None` for the layer's default.
        **arguments: of the call.
    """
    assert sum(chunks) == x.shape[1]
    full = keras.ops.convert_to_numpy(layer(x, **arguments))
    state = layer.get_initial_state(x.shape[0], **({"kind": kind} if kind else {}))
    outputs, start = [], 0
    for length in chunks:
        output, state = layer(
            x[:, start : start + length], initial_state=state, return_state=True, **arguments
        )
        outputs.append(keras.ops.convert_to_numpy(output))
        start += length
    np.testing.assert_allclose(np.concatenate(outputs, 1), full, rtol=rtol, atol=1e-6)


def check_gradients(layer, x: np.ndarray, step: float = 1e-5, rtol: float = 1e-4, probes: int = 4):
    """Gradients of inputs and weights agree with central differences in float64.

    Args:
        layer: a built layer of dtype float64.
        x: a float64 input.
    """
    rng = np.random.default_rng(0)
    x = tf.Variable(x, dtype="float64")
    weights = [x, *[w.value for w in layer.trainable_variables]]
    assert len(weights) > 1, "build the layer before, so that its weights are there"
    out_shape = keras.ops.convert_to_numpy(layer(x)).shape
    coefficients = rng.normal(size=out_shape)

    def loss():
        return tf.reduce_sum(layer(x) * coefficients)

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.name
        gradient = tf.convert_to_tensor(gradient).numpy()
        for _ in range(probes):
            direction = rng.normal(size=weight.shape)
            start = weight.numpy()
            weight.assign(start + step * direction)
            up = loss().numpy()
            weight.assign(start - step * direction)
            down = loss().numpy()
            weight.assign(start)
            expected = (up - down) / (2 * step)
            got = np.sum(gradient * direction)
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-7, err_msg=weight.name)


def check_mixed_precision(factory, x: np.ndarray):
    """The layer runs under both mixed policies, keeps float32 weights and gives finite outputs near
    float32's.

    Args:
        factory: `factory(dtype=...)` makes the layer.
        x: a float input.
    """
    reference = factory(dtype="float32")
    want = keras.ops.convert_to_numpy(reference(x))
    for policy, tolerance in (("mixed_float16", 2e-2), ("mixed_bfloat16", 1e-1)):
        layer = factory(dtype=policy)
        layer.build(x.shape)
        layer.set_weights(reference.get_weights())
        got = keras.ops.convert_to_numpy(keras.ops.cast(layer(x), "float32"))
        assert np.isfinite(got).all()
        assert all(w.dtype == "float32" for w in layer.trainable_variables)
        scale = max(np.abs(want).max(), 1e-3)
        assert np.abs(got - want).max() / scale < tolerance, policy


def check_jit(function, *arrays, rtol: float = 1e-4):
    """XLA gives the eager result."""
    want = [np.asarray(a) for a in keras.tree.flatten(function(*arrays))]
    compiled = tf.function(function, jit_compile=True)
    got = [np.asarray(a) for a in keras.tree.flatten(compiled(*map(tf.constant, arrays)))]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


def check_export(model: keras.Model, arrays: list[np.ndarray], folder: Path):
    """The exported SavedModel gives the model's outputs, at every given length.

    Args:
        model: built with a free length.
        arrays: inputs of different lengths.
        folder: where to export to.
    """
    model.export(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder))
    for x in arrays:
        np.testing.assert_allclose(
            served.serve(x).numpy(), model(x, training=False).numpy(), rtol=1e-5, atol=1e-6
        )
