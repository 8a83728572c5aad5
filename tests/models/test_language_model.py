"""The language model: loss, state, training through `fit`, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_causal, check_chunks, check_config, check_export, check_fresh_process

from keras_seq.layers import AdaptiveSoftmax, MixtureOfSoftmaxes, TrellisNet
from keras_seq.models import LanguageModel

VOCABULARY = 23


def make(state="exact", **options) -> LanguageModel:
    core = TrellisNet(
        units=5,
        output_units=options.pop("output_units", 6),
        levels=4,
        auxiliary_frequency=options.pop("auxiliary_frequency", None),
        hidden_dropout=options.pop("hidden_dropout", 0.0),
        weight_dropout=options.pop("weight_dropout", 0.0),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=3),
        state=state,
        seed=5,
    )
    model = LanguageModel(VOCABULARY, 6, core, seed=7, **options)
    model.build((None, None))
    return model


def tokens(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length)).astype("int32")


HEADS = {
    "tied": lambda: "tied",
    "softmax": lambda: "softmax",
    "mixture": lambda: MixtureOfSoftmaxes(VOCABULARY, experts=3, embedding_dim=6, seed=1),
    "adaptive": lambda: AdaptiveSoftmax(VOCABULARY, cutoffs=[5, 12], tied=True),
}


@pytest.mark.parametrize("head", HEADS)
def test_log_probabilities_and_losses_agree(head):
    model = make(head=HEADS[head]())
    ids, targets = tokens(3, 9), tokens(3, 9, 1)
    log_probs = model(ids).numpy()
    assert log_probs.shape == (3, 9, VOCABULARY)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-4)
    picked = np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(model.token_losses(ids, targets).numpy(), -picked, rtol=1e-4)


def test_configuration_round_trip():
    options = {"embedding_dropout": 0.1, "input_dropout": 0.2, "output_dropout": 0.3, "history": 2}
    model = make(head=HEADS["mixture"](), auxiliary_frequency=2, auxiliary_weight=0.1, **options)
    check_config(model)


@pytest.mark.slow
def test_loads_in_a_fresh_process(tmp_path):
    cases = [(make(head=HEADS[name]()), tokens(2, 7)) for name in HEADS]
    compiled = make(carry_state=True, state="history")
    compiled.compile(keras.optimizers.Adam(1e-3))
    compiled.fit(tokens(4, 6), tokens(4, 6), batch_size=2, verbose=0)
    check_fresh_process([*cases, (compiled, tokens(2, 7))], tmp_path)


def test_causal():
    model = make()
    embedded = np.random.default_rng(0).normal(size=(2, 9, 6)).astype("float32")
    check_causal(lambda x: model.core(x), embedded, at=4)
    ids = tokens(2, 9)
    changed = ids.copy()
    changed[:, 5:] = (changed[:, 5:] + 1) % VOCABULARY
    np.testing.assert_allclose(model(ids)[:, :5], model(changed)[:, :5], rtol=1e-5)


def test_chunks_equal_the_full_pass():
    check_chunks(make(), tokens(2, 12), [5, 1, 6])


def test_export_at_other_lengths(tmp_path):
    check_export(make(), [tokens(2, 5), tokens(3, 11)], tmp_path / "saved")


def test_loss_is_the_sum_of_its_documented_parts():
    model = make(
        auxiliary_frequency=2,
        auxiliary_weight=0.3,
        activation_regularization=2.0,
        temporal_activation_regularization=1.5,
        history=3,
    )
    ids, targets = tokens(2, 8), tokens(2, 8, 1)
    features = model.features(ids, return_auxiliary=True)

    def nll(hidden):
        log_probs = model.head(hidden, tables=model.tables).numpy()
        return -np.take_along_axis(log_probs, targets[:, 3:, None], -1)[..., 0]

    outputs = features.outputs.numpy()[:, 3:]
    expected = nll(features.outputs[:, 3:]).mean()
    for level in range(2):
        expected += 0.3 * nll(features.auxiliary[:, level, 3:]).mean()
    expected += 2.0 * np.square(outputs).mean()
    expected += 1.5 * np.square(np.diff(outputs, axis=1)).mean()
    loss, _, terms = model._loss(ids, targets, None, "train", training=True)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(terms.report.numpy(), nll(features.outputs[:, 3:]), rtol=1e-4)


def test_evaluation_counts_exactly_the_weighted_tokens():
    model = make(history=3)
    model.compile("sgd")
    ids, targets = tokens(4, 8), tokens(4, 8, 1)
    weights = (np.random.default_rng(2).random((4, 8)) < 0.6).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((ids, targets, weights)).batch(2)
    result = model.evaluate(data, verbose=0, return_dict=True)
    nll = (model.token_losses(ids, targets).numpy() * weights).sum() / weights.sum()
    assert int(result["tokens"]) == int(weights.sum())
    np.testing.assert_allclose(result["nll"], nll, rtol=1e-5)
    np.testing.assert_allclose(result["loss"], nll, rtol=1e-5)
    np.testing.assert_allclose(result["perplexity"], np.exp(nll), rtol=1e-5)
    np.testing.assert_allclose(result["bits"], nll / np.log(2), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_learns(jit_compile):
    model = make(
        head="tied",
        hidden_dropout=0.1,
        weight_dropout=0.1,
        embedding_dropout=0.1,
        input_dropout=0.1,
        output_dropout=0.1,
        auxiliary_frequency=2,
        auxiliary_weight=0.1,
    )
    model.compile(keras.optimizers.Adam(0.03), jit_compile=jit_compile)
    stream = np.tile(np.arange(VOCABULARY), 20)[: 16 * 25 + 1].astype("int32")
    ids, targets = stream[:-1].reshape(16, 25), stream[1:].reshape(16, 25)
    losses = model.fit(ids, targets, batch_size=4, epochs=10, verbose=0).history["nll"]
    assert losses[0] > 2.0
    assert losses[-1] < 0.6 * losses[0]


def test_carried_state_equals_a_hand_written_loop():
    """Batch k + 1 starts from the last level's final state of batch k, and each epoch from zero."""
    model = make(carry_state=True, state="history")
    twin = make(carry_state=True, state="history")
    twin.set_weights(model.get_weights())
    ids, targets = tokens(2, 15), tokens(2, 15, 1)
    windows = [(ids[:, i : i + 5], targets[:, i : i + 5]) for i in (0, 5, 10)]
    data = tf.data.Dataset.from_generator(
        lambda: iter(windows),
        output_signature=(tf.TensorSpec((2, 5), tf.int32), tf.TensorSpec((2, 5), tf.int32)),
    ).apply(tf.data.experimental.assert_cardinality(3))
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(data, epochs=2, verbose=0)
    for _ in range(2):
        state = twin.get_initial_state(2)
        for x, y in windows:
            with tf.GradientTape() as tape:
                features = twin.features(x, initial_state=state, return_state=True)
                loss = tf.reduce_mean(twin.head.nll(features.outputs, y, tables=twin.tables))
            for v, g in zip(
                twin.trainable_weights, tape.gradient(loss, twin.trainable_weights), strict=True
            ):
                v.assign_sub(0.5 * tf.convert_to_tensor(g))
            state = [s.numpy() for s in features.state]
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    carried = model.carried_state.get()
    for a, b in zip(carried, state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_carried_state_of_evaluation_is_its_own():
    model = make(carry_state=True)
    model.compile("sgd")
    ids, targets = tokens(2, 12), tokens(2, 12, 1)
    windows = np.stack([ids[:, :6], ids[:, 6:]]).reshape(4, 6)
    labels = np.stack([targets[:, :6], targets[:, 6:]]).reshape(4, 6)
    result = model.evaluate(windows, labels, batch_size=2, verbose=0, return_dict=True)
    expected = model.token_losses(ids, targets).numpy().mean()
    np.testing.assert_allclose(result["nll"], expected, rtol=1e-5)


def test_mixed_precision_trains():
    core = TrellisNet(5, 6, 3, dtype="mixed_bfloat16")
    model = LanguageModel(VOCABULARY, 6, core, dtype="mixed_bfloat16")
    model.compile(keras.optimizers.Adam(0.02))
    stream = np.tile(np.arange(VOCABULARY), 20)[: 16 * 25 + 1].astype("int32")
    ids, targets = stream[:-1].reshape(16, 25), stream[1:].reshape(16, 25)
    losses = model.fit(ids, targets, batch_size=4, epochs=4, verbose=0).history["nll"]
    assert losses[-1] < losses[0]
    assert all(w.dtype == "float32" for w in model.trainable_weights)
    assert model(ids).dtype == tf.float32


def test_a_loaded_model_is_compiled_and_trains_on(tmp_path):
    """Saved in the middle of training, it goes on as if it had not been."""
    ids, targets = tokens(4, 8), tokens(4, 8, 1)
    model = make()
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(ids, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, again):
        one.fit(ids, targets, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_metrics_given_to_compile_see_log_probabilities():
    model = make()
    model.compile("sgd", metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    ids, targets = tokens(4, 8), tokens(4, 8, 1)
    result = model.evaluate(ids, targets, verbose=0, return_dict=True)
    expected = (model(ids).numpy().argmax(-1) == targets).mean()
    np.testing.assert_allclose(result["accuracy"], expected, atol=1e-6)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="`loss` must be left out"):
        make().compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="`auxiliary_weight` needs a core"):
        make(auxiliary_weight=0.1)
    with pytest.raises(ValueError, match="`head` must be"):
        make(head="tyed")
    with pytest.raises(ValueError, match="embedding_dim=6, and a core whose output has width 8"):
        LanguageModel(11, 6, TrellisNet(units=4, output_units=8, levels=2)).build()
    LanguageModel(11, 6, TrellisNet(units=4, output_units=8, levels=2), head="softmax").build()
    with pytest.raises(ValueError, match="`history` must not be negative"):
        make(history=-1)
    with pytest.raises(ValueError, match="`batch_size` must be given"):
        model = make(carry_state=True)
        model.compile("sgd")
        model.fit(tokens(2, 4), tokens(2, 4))
    with pytest.raises(ValueError, match="vocabulary_size"):
        make(head=AdaptiveSoftmax(99, cutoffs=[5], tied=True))


def test_fit_on_a_dataset_is_quiet(recwarn):
    """A dataset has its order: Keras' warning that it is not shuffled has nothing to say."""
    model = make()
    model.compile("sgd")
    dataset = tf.data.Dataset.from_tensors((tokens(2, 5), tokens(2, 5, 1)))
    model.fit(dataset, verbose=0)
    assert not [w for w in recwarn if "shuffle" in str(w.message)]
    with pytest.warns(UserWarning, match="shuffle"):
        model.fit(dataset, verbose=0, shuffle=True)
