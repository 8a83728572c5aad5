"""The contract of causal layers: every law, on every public layer that derives from the base."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import (
    check_causal,
    check_chunks,
    check_config,
    check_fresh_process,
    check_mixed_precision,
    check_unknown_argument_refused,
)
from small_layers import CAUSAL, EXACT, PARTS, WIDTH, dropping, each_of, sequence

from keras_seq import layers

NAMES = [name for name in CAUSAL if "," not in name]
every_causal = pytest.mark.parametrize("name", each_of(CAUSAL))
every_layer = pytest.mark.parametrize(
    "names", [NAMES, pytest.param(list(CAUSAL), marks=pytest.mark.slow)], ids=["layers", "variants"]
)
flatten = keras.tree.flatten
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def exact(name: str, **options):
    """A layer whose outputs are those of its equations."""
    return CAUSAL[name](**EXACT.get(name, {}), **options)


def equal(got, expected, **options):
    """Two nests of tensors hold the same."""
    for one, other in zip(flatten(got), flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE, **options)


def test_every_public_causal_layer_has_small_settings():
    found = {
        name
        for name in layers.__all__
        if inspect.isclass(kind := getattr(layers, name)) and issubclass(kind, layers.CausalLayer)
    }
    assert found - {"CausalLayer"} == set(NAMES)
    for name, make in CAUSAL.items():
        assert type(make()).__name__ == name.split(",")[0]


@every_causal
def test_configuration(name):
    layer = CAUSAL[name]()
    check_config(layer)
    check_config(dropping(name))
    check_unknown_argument_refused(CAUSAL[name])


@every_causal
def test_steps_and_their_state(name):
    """Causal; chunks and single steps give what the whole gives, from every kind of state."""
    layer, x = exact(name), sequence()
    assert layer(x).shape == (*x.shape[:2], layer.output_units)
    if not layer.is_causal:
        for ask in (
            lambda: layer(x, return_state=True),
            lambda: layer(x, initial_state=[]),
            lambda: layer.get_initial_state(2),
        ):
            with pytest.raises(ValueError, match="`(padding|causal)` must be .* for a state"):
                ask()
        return
    check_causal(layer, x * np.arange(1, WIDTH + 1, dtype="float32"), at=3)
    check_chunks(layer, x[:, :4], [2, 1, 1], rtol=1e-4, kind="exact")
    states = [None, layer.get_initial_state(2, kind="exact")]
    whole = layer(x[:, :4], initial_state=states[1], return_state=True)
    equal(whole[0], layer(x[:, :4]))
    for state in states:
        _, state = layer(x[:, :3], initial_state=state, return_state=True)
        kind = layer.kind_of(state)
        keras.tree.assert_same_structure(state, layer.get_initial_state(2, kind=kind))
        if kind in (None, "exact"):
            equal(layer(x[:, 3:4], initial_state=state), whole[0][:, 3:])
    with pytest.raises(ValueError, match="`kind` must be"):
        layer.get_initial_state(2, kind="no such kind")


@every_causal
def test_dropout_is_in_the_masks_alone(name):
    layer, x = dropping(name), sequence()
    plain = layer(x)
    masks = layer.get_masks(2)
    for training in (True, False):
        np.testing.assert_allclose(layer(x, training=training, masks={}), plain, 1e-5, 1e-6)
    if not masks:
        equal(layer(x, training=True), plain)
        return
    dropped = layer(x, masks=masks)
    assert np.abs(np.asarray(dropped) - np.asarray(plain)).max() > 1e-4
    equal(layer(x, training=True, masks=masks), dropped)
    drawn = np.asarray(layer(x, training=True))
    assert np.abs(drawn - np.asarray(plain)).max() > 1e-4


@every_causal
def test_reach(name):
    """A step reaches as many outputs as the layer says, its own included, before it or after."""
    layer = exact(name)
    layer.build((None, None, WIDTH))
    reach = layer.reach
    assert layer.receptive_field in (None, reach)
    if not layer.is_causal:
        x = sequence(9 if reach is None else 2 * reach + 1, batch=4)
        with_other = np.array(x)
        with_other[:, x.shape[1] // 2] += np.arange(1, WIDTH + 1)
        change = np.abs(np.asarray(layer(x)) - np.asarray(layer(with_other))).max(axis=(0, 2))
        assert np.ptp(np.flatnonzero(change > 1e-8)) + 1 == (reach or x.shape[1])
        return
    x = sequence(9 if reach is None else reach + 4, batch=4)
    changed = np.array(x)
    changed[:, 1] += np.arange(1, WIDTH + 1)
    change = np.abs(np.asarray(layer(x)) - np.asarray(layer(changed))).max(axis=(0, 2))
    end = x.shape[1] if reach is None else reach + 1
    np.testing.assert_allclose([*change[:1], *change[end:]], 0, atol=1e-5)
    assert min(change[1], change[end - 1]) > 1e-8


@every_causal
def test_mixed_precision(name):
    check_mixed_precision(CAUSAL[name], sequence(3))


def with_state(names) -> list[str]:
    """The names of layers that have a state."""
    return [name for name in names if CAUSAL[name]().is_causal]


def functional(names) -> keras.Model:
    """A model of all layers: outputs and state of a first piece, what follows upon these, and upon
    states that come as inputs.
    """
    first, second = keras.Input((None, WIDTH)), keras.Input((None, WIDTH))
    inputs, results = [first, second], {}
    for index, name in enumerate(names):
        layer = CAUSAL[name](name=f"layer_{index}")
        outputs, state = layer(first, return_state=True)
        assert outputs.shape == (None, None, layer.output_units)
        keras.tree.assert_same_structure(state, layer.get_initial_state(1))
        given = keras.tree.map_structure(
            lambda part: keras.Input([size or None for size in part.shape[1:]], dtype=part.dtype),
            layer.get_initial_state(1),
        )
        inputs += flatten(given)
        after = layer(second, initial_state=state), layer(second, initial_state=given)
        results[name] = outputs, state, *after
    return keras.Model(inputs, results)


@every_layer
def test_functional_models_load_in_a_fresh_process(names, tmp_path):
    a, b = sequence(3), sequence(2, seed=1)
    both_ways, names = [n for n in names if n not in with_state(names)], with_state(names)
    model = functional(names)
    expected, states = {}, []
    for index, name in enumerate(names):
        layer = model.get_layer(f"layer_{index}")
        outputs, state = layer(a, return_state=True)
        states += [np.asarray(part) for part in flatten(state)]
        after = layer(b, initial_state=state)
        expected[name] = outputs, state, after, after
    answers = model([a, b, *states])
    for name in names:
        equal(answers[name], expected[name], err_msg=name)
        symbolic = model.output[name]
        keras.tree.assert_same_structure(symbolic, answers[name])
        for spec, value in zip(flatten(symbolic), flatten(answers[name]), strict=True):
            sizes = zip(spec.shape, value.shape, strict=True)
            assert all(size in (None, real) for size, real in sizes), name
            assert spec.dtype == keras.backend.standardize_dtype(value.dtype), name
    cases: list = [(model, [a, b, *states])]
    x = keras.Input((None, WIDTH))
    apart = ("PRUCell", "DEQTransformerCell", "DEQTrellisCell")  # within PRU and DeepEquilibrium
    parts = [PARTS[name](name=f"part_{name}")(x) for name in PARTS if name not in apart]
    parts.append(keras.layers.RNN(PARTS["PRUCell"]())(x))
    parts += [CAUSAL[name]()(x) for name in both_ways]
    cases.append((keras.Model(x, [*parts, layers.VariationalDropout(0.5)(x)]), a))
    ids = keras.Input((None,), dtype="int32")
    vectors = layers.AdaptiveEmbedding(9, WIDTH, cutoffs=[4], div_value=2)(ids)
    words = keras.Model(ids, layers.EmbeddingDropout(0.5, 9)(vectors, ids))
    cases.append((words, np.array([[1, 8, 5]], "int32")))
    check_fresh_process(cases, tmp_path, rtol=1e-4)


def runner(name):
    """A layer, built, and a function of x that runs it from its initial state, if it has one."""
    layer = CAUSAL[name]()
    layer.build((None, None, WIDTH))
    if not layer.is_causal:
        return layer, layer

    def run(x):
        start = layer.get_initial_state(tf.shape(x)[0])
        return layer(x, initial_state=start, return_state=True)

    return layer, run


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_xla(name):
    _, run = runner(name)
    x = sequence(3)
    equal(tf.function(run, jit_compile=True, autograph=False)(tf.constant(x)), run(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_export(name, tmp_path):
    layer, run = runner(name)
    module = tf.Module()
    module.held = [weight.value for weight in layer.variables]
    spec = tf.TensorSpec((None, None, WIDTH), tf.float32)
    module.run = tf.function(run, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path))
    for length in (1, 4):
        x = sequence(length, batch=3)
        equal(served.run(x), run(x))
