"""Solves that need more steps than the memory holds, and those that take a second way."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from solvers.problems import varied

from keras_seq.layers import DeepEquilibrium, DEQTransformerCell, DEQTrellisCell
from keras_seq.solvers import Anderson, Broyden, FixedPoint, Status, solve
from keras_seq.solvers.driver import FALLBACK

CONVERGED = int(Status.CONVERGED)


@pytest.fixture(scope="module")
def bank():
    return varied()


def run(batch, solver, steps=500, tolerance=1e-10, **options):
    """A solve as a graph, in float64."""

    def solved(z):
        found = solve(batch.f, z, solver, steps, tolerance, **options)
        return found._asdict() | {"trace": found.trace if options.get("trace") else ()}

    found = tf.function(solved)(tf.constant(batch.z0))
    return {name: np.asarray(value) for name, value in found.items() if name != "kept"}


def failures(batch, found):
    return {name for name, s in zip(batch.names, found["status"], strict=True) if s != CONVERGED}


# What a memory of so many pairs does not solve in 500 steps, of what all of the steps solve.
UNSOLVED = {
    3: {"turn 1.05", "turn 1.2", "turn 1.5", "gauss 1.5", "chain 2"},
    10: {"turn 1.2", "turn 1.5", "chain 2"},
    30: {"chain 2"},
}


@pytest.mark.parametrize(
    "memory",
    [pytest.param(3, marks=pytest.mark.slow), 10, pytest.param(30, marks=pytest.mark.slow)],
)
def test_broyden_survives_its_memory(memory, bank):
    found = run(bank, Broyden(memory), fallback=None)
    assert failures(bank, found) <= {f"affine, {name}" for name in UNSOLVED[memory]}
    residual = np.linalg.norm(bank.f(found["value"]) - found["value"], axis=1)
    solved = found["status"] == CONVERGED
    assert np.all(residual[solved] <= 1e-9 * np.linalg.norm(found["value"][solved], axis=1))
    assert np.median(found["steps"]) < {3: 60, 10: 45, 30: 40}[memory]


@pytest.mark.slow
def test_full_memory_solves_the_bank(bank):
    assert not failures(bank, run(bank, Broyden(199), 200, fallback=None))


def test_a_memory_reduced_is_the_nearest(bank):
    """The pairs that take the place of more are a truncated singular value decomposition."""
    from keras_seq.solvers._low_rank import reduced

    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 3, 6, 20))
    v[1, 4] = v[1, 2]  # dependent
    u[2, 0, 0] = np.inf
    got = [np.asarray(part) for part in reduced(tf.constant(u), tf.constant(v), 4)]
    assert got[0].shape == u.shape and not np.any(got[0][:, 4:]) and not np.any(got[1][:, 4:])
    for sample in range(2):
        left, sizes, right = np.linalg.svd(u[sample].T @ v[sample], full_matrices=False)
        want = (left[:, :4] * sizes[:4]) @ right[:4]
        np.testing.assert_allclose(got[0][sample].T @ got[1][sample], want, atol=1e-10)
    assert not np.any(got[0][2])  # a sample that is not finite forgets all, and raises nothing


def test_fallback_solves_what_the_solver_does_not(bank):
    names = [f"affine, {name}" for name in ("symmetric 1.05", "symmetric 1.2", "gauss 0.5")]
    few = bank.chosen(names)
    alone = run(few, FixedPoint(), 300, fallback=None)
    assert list(alone["status"] == CONVERGED) == [False, False, True]
    found = run(few, FixedPoint(), 300, trace=True)
    assert np.all(found["status"] == CONVERGED)
    np.testing.assert_allclose(found["value"], np.asarray(few.f(found["value"])), atol=1e-8)
    # The easy one is as before, to the bit; the others say how many steps they took in all.
    np.testing.assert_array_equal(found["value"][2], alone["value"][2])
    assert found["steps"][2] == alone["steps"][2]
    for trace, steps, residual in zip(
        found["trace"], found["steps"], found["residual"], strict=True
    ):
        assert trace[steps] == residual == np.min(trace) and np.argmin(trace) == steps
        assert np.all(trace[steps:] == residual) and np.all(trace[: steps + 1] > 0)


@pytest.mark.slow
def test_fallback_under_xla_and_eagerly(bank):
    few = bank.chosen([f"affine, {name}" for name in ("symmetric 1.2", "gauss 0.5")])
    plain = run(few, FixedPoint(), 300)

    @tf.function(jit_compile=True)
    def compiled(z):
        found = solve(few.f, z, FixedPoint(), 300, 1e-10)
        return found.value, found.steps, found.status

    eager = solve(few.f, tf.constant(few.z0), FixedPoint(), 300, 1e-10)
    for value, steps, status in (compiled(tf.constant(few.z0)), (eager[0], eager[2], eager[3])):
        assert np.all(np.asarray(status) == CONVERGED)
        np.testing.assert_allclose(value, plain["value"], atol=1e-7)
        np.testing.assert_allclose(steps, plain["steps"], atol=2)


def test_no_fallback_is_made_where_there_is_no_time_for_it():
    """A limit of 30 steps has the graph that it has without one."""

    def operations(steps, fallback):
        function = tf.function(
            lambda z: solve(lambda z: ops.cos(z), z, Broyden(), steps, fallback=fallback).value
        )
        graph = function.get_concrete_function(tf.TensorSpec((2, 3))).graph.as_graph_def()
        return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert operations(30, FALLBACK) == operations(30, None)
    assert operations(31, FALLBACK) > operations(31, None)


def test_what_would_converge_is_not_stopped(bank):
    """Residuals of chains rise before they fall; slow ones fall by less than 5% in 30 steps."""
    chain = bank.chosen(["affine, chain 1"])
    found = run(chain, FixedPoint(), 100, fallback=None)
    assert found["status"] == CONVERGED and found["steps"] == len(chain.z0[0])
    doubling = bank.chosen(["affine, chain 2"])
    assert run(doubling, FixedPoint(), 100, fallback=None)["status"] == Status.DIVERGED
    known = run(doubling, FixedPoint(), 100, transient=40)
    assert known["status"] == CONVERGED and known["steps"] == 40

    def slow(rate):
        return lambda z: rate * z + 1.0

    z0 = tf.zeros((1, 3), "float64")
    single = tf.function(
        lambda z: solve(slow(0.999), z, FixedPoint(), 3000, 0.1, "absolute", fallback=None).status
    )
    assert int(single(z0)[0]) == CONVERGED
    found = solve(slow(0.9999), z0, FixedPoint(), 120, 1e-3, "absolute")
    assert int(found.status[0]) == CONVERGED  # by the second way


@pytest.mark.slow
def test_hard_and_easy_in_one_batch(bank):
    """Each sample of the bank is solved as if it were alone."""
    names = ["tanh, gauss 0.5", "affine, symmetric 1.5", "affine, turn 0.95"]
    whole = run(bank.chosen(names), Broyden(5), 200)
    for place, name in enumerate(names):
        alone = run(bank.chosen([name]), Broyden(5), 200)
        assert abs(int(alone["steps"][0]) - int(whole["steps"][place])) <= 1
        np.testing.assert_allclose(alone["value"][0], whole["value"][place], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_precision_of_the_function(dtype, bank):
    """What rounding leaves is no reason for a second way, and ends the solve early."""
    few = bank.chosen([f"tanh, {name}" for name in ("gauss 0.95", "symmetric 1.2", "turn 0.8")])
    z0 = tf.cast(few.z0, dtype)
    found = tf.function(lambda z: solve(few.f, z, Anderson(), 400, 0.0).residual)(z0)
    assert np.all(np.asarray(found) < (1e-6 if dtype == "float32" else 2e-2))
    steps = solve(few.f, z0, Broyden(), 400, 0.0).steps
    assert np.all(np.asarray(steps) < 250)


def trellis(**options):
    normal = keras.initializers.RandomNormal(stddev=0.8, seed=1)
    cell = DEQTrellisCell(3, 2, kernel_initializer=normal, bias_initializer=normal.clone())
    return DeepEquilibrium(cell, **options)


def test_layer_hands_on_fallback_and_reach():
    layer = trellis(fallback=("fixed_point",), subsequence_length="auto", max_steps=8)
    again = DeepEquilibrium.from_config(layer.get_config())
    assert [type(way) for way in again.fallback] == [FixedPoint]
    assert again.subsequence_length == "auto"
    assert DeepEquilibrium.from_config(trellis(fallback=None).get_config()).fallback == ()
    assert len(DeepEquilibrium(DEQTrellisCell(3, 2)).fallback) == len(FALLBACK)
    x = np.random.default_rng(0).normal(size=(2, 12, 4)).astype("float32")
    pieces = trellis(subsequence_length=4, max_steps=8)
    np.testing.assert_array_equal(layer(x), pieces(x))
    with pytest.raises(ValueError, match="`subsequence_length` may be 'auto' with a cell"):
        DeepEquilibrium(DEQTransformerCell(8, 2, 8), subsequence_length="auto")


def test_layer_says_once_what_did_not_converge(recwarn):
    layer = trellis(max_steps=1, tolerance=1e-6, name="short")
    x = np.ones((2, 12, 4), "float32")
    layer(x, training=True)
    assert not [w for w in recwarn if "short" in str(w.message)]
    for _ in range(2):
        layer(x)
        layer.solve(x)
    said = [str(w.message) for w in recwarn if "`short` did not converge" in str(w.message)]
    assert len(said) == 1 and "for 2 of 2 samples" in said[0] and "tolerance=1e-06" in said[0]


def test_refusals():
    for wrong in ("anderson", Anderson(), {"name": "anderson"}, 3):
        with pytest.raises(ValueError, match="`fallback` must be a sequence"):
            solve(lambda z: z, np.zeros((1, 1)), fallback=wrong)  # pyright: ignore
