"""Training follows an independent float64 computation; a bfloat16 policy trains too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from convert.numpy_training import NumpyTrellisModel

from keras_seq.convert import load_reference
from keras_seq.layers import TrellisNet
from keras_seq.models import LanguageModel

WORDS, EMBEDDING, UNITS, LEVELS = 120, 12, 10, 8
BATCH, LENGTH, STEPS, RATE = 8, 12, 50, 1.0


def drawn_weights(normalised: bool, words: int, seed: int = 7) -> dict[str, np.ndarray]:
    """Weights under PyTorch names, drawn as those of the golden files: N(0, 0.3²)."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    width = UNITS + EMBEDDING
    found = {"encoder.weight": draw(words, EMBEDDING), "decoder.bias": draw(words)}
    prefix, ending = "tnet.module.full_conv.", "_v" if normalised else ""
    found[f"{prefix}bias2"] = draw(4 * width)
    for name, inputs in (("weight1", EMBEDDING), ("weight2", width)):
        found[f"{prefix}{name}{ending}"] = draw(4 * width, inputs, 2)
        if normalised:
            found[f"{prefix}{name}_g"] = np.abs(draw(4 * width, 1, 1)) + 1
    return found


def numpy_weights(reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as the NumPy model wants them."""
    names = {"encoder.weight": "table", "decoder.bias": "bias", "bias2": "gates"}
    names |= {"weight1": "input", "weight2": "hidden"}
    names |= {"weight1_v": "input", "weight2_v": "hidden"}
    names |= {"weight1_g": "gain_input", "weight2_g": "gain_hidden"}
    found = {}
    for name, array in reference.items():
        ours = names[name.removeprefix("tnet.module.full_conv.")]
        if ours in ("input", "hidden"):
            array = np.transpose(array, (2, 1, 0))
        found[ours] = array.reshape(-1) if ours.startswith("gain") else array
    return found


def language_model(normalised: bool, words: int) -> LanguageModel:
    core = TrellisNet(UNITS, EMBEDDING, LEVELS, weight_normalization=normalised, state="history")
    built = LanguageModel(words, EMBEDDING, core, carry_state=True)
    built.build((None, None))
    return built


class BatchLosses(keras.callbacks.Callback):
    """Notes the loss of each batch."""

    def on_train_begin(self, logs=None):
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append((logs or {})["loss"])
        self.model.reset_metrics()


def windows(ids: np.ndarray):
    """Consecutive windows of contiguous lanes and what follows them, (steps, b, t) each."""
    lanes = ids[: BATCH * (STEPS * LENGTH + 1)].reshape(BATCH, -1)
    cut = [lanes[:, k * LENGTH : (k + 1) * LENGTH + 1] for k in range(STEPS)]
    return np.stack([x[:, :-1] for x in cut]), np.stack([x[:, 1:] for x in cut])


def follows(ids: np.ndarray, words: int, normalised: bool) -> None:
    """50 steps of `fit` in float32 and of the NumPy model in float64 stay together."""
    reference = drawn_weights(normalised, words)
    built = language_model(normalised, words)
    load_reference(built, reference)
    built.compile(keras.optimizers.SGD(RATE))
    inputs, targets = windows(ids)
    noted = BatchLosses()
    data = tf.data.Dataset.from_tensor_slices((inputs.astype(np.int32), targets.astype(np.int32)))
    built.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=[noted])

    numpy_model = NumpyTrellisModel(numpy_weights(reference), LEVELS, EMBEDDING)
    expected = [numpy_model.step(x, y, RATE) for x, y in zip(inputs, targets, strict=True)]
    assert len(noted.losses) == STEPS
    assert np.mean(expected[-5:]) < 0.9 * np.mean(expected[:5])  # it does learn
    np.testing.assert_allclose(noted.losses, expected, rtol=2e-5)
    core = built.core
    ours = {
        "table": built.embedding.embeddings,
        "bias": built.head.bias,
        "input": core.kernel_input,
        "hidden": core.kernel_hidden,
        "gates": core.bias,
    }
    if normalised:
        ours |= {"gain_input": core.gain_input, "gain_hidden": core.gain_hidden}
    assert set(ours) == set(numpy_model.w)
    for name, weight in ours.items():
        wanted = numpy_model.w[name]
        error = np.max(np.abs(weight.numpy() - wanted)) / np.max(np.abs(wanted))
        assert error < 5e-5, (name, error)


def synthetic_text(count: int, words: int) -> np.ndarray:
    """A text in which each word has few likely successors."""
    rng = np.random.default_rng(11)
    successors = rng.integers(0, words, (words, 3))
    ids = np.zeros(count, np.int64)
    for k in range(1, count):
        ids[k] = successors[ids[k - 1], rng.integers(3)]
    return ids


@pytest.mark.parametrize("normalised", [False, True])
def test_fifty_steps_follow_numpy(normalised):
    follows(synthetic_text(BATCH * (STEPS * LENGTH + 1), 30), 30, normalised)


def test_fifty_steps_on_penn_treebank_follow_numpy(shared_data):
    path = shared_data / "ptb" / "train.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open("rb") as file:
        words = b" <eos> ".join(file.read(400_000).split(b"\n")).split()
    names, counts = np.unique(words, return_counts=True)
    frequent = names[np.argsort(-counts)][: WORDS - 1]
    table = {name: index for index, name in enumerate(frequent)}
    ids = np.array([table.get(word, WORDS - 1) for word in words])
    follows(ids, WORDS, normalised=True)


def test_numpy_gradients_are_right():
    """Central differences of the computation that the tests above compare with."""
    rng = np.random.default_rng(2)
    weights = numpy_weights(drawn_weights(True, 9))
    ids, targets = rng.integers(0, 9, (2, 2, 5))
    numpy_model = NumpyTrellisModel(weights, 3, EMBEDDING)
    numpy_model.differentiate(targets, ids)
    state = numpy_model.state
    _, gradients = numpy_model.differentiate(ids, targets)
    for name, gradient in gradients.items():
        for _ in range(4):
            index = tuple(rng.integers(0, n) for n in gradient.shape)
            kept, losses = numpy_model.w[name][index], []
            for shift in (1e-5, -1e-5):
                numpy_model.w[name][index] = kept + shift
                numpy_model.state = state
                losses.append(numpy_model.differentiate(ids, targets)[0])
            numpy_model.w[name][index] = kept
            slope = (losses[0] - losses[1]) / 2e-5
            assert abs(slope - gradient[index]) < 1e-8 + 1e-6 * abs(slope), (name, index)


def test_bfloat16_policy_trains():
    ids = synthetic_text(BATCH * (STEPS * LENGTH + 1), 30)
    inputs, targets = windows(ids)
    last = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(3)
        core = TrellisNet(UNITS, EMBEDDING, LEVELS, state="history", dtype=policy)
        built = LanguageModel(30, EMBEDDING, core, carry_state=True, dtype=policy)
        built.compile(keras.optimizers.Adam(0.02))
        noted = BatchLosses()
        data = tf.data.Dataset.from_tensor_slices((inputs, targets))
        built.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=[noted])
        assert all(np.isfinite(noted.losses))
        assert all(weight.dtype == "float32" for weight in built.trainable_weights)
        assert built(inputs[0]).dtype == tf.float32  # log-probabilities
        last[policy] = np.mean(noted.losses[-5:])
        assert last[policy] < 0.85 * noted.losses[0]
    assert abs(last["mixed_bfloat16"] - last["float32"]) < 0.1 * last["float32"]
