"""Every solver on every problem, and what the driver promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from solvers.problems import problems

from keras_seq import solvers
from keras_seq.solvers import Anderson, Broyden, FixedPoint, Status, solve

NAMES = ("contraction", "expansion", "network", "rank_deficient", "already_solved")
HOPELESS = ("unsolvable", "not_a_number", "later_not_a_number")
SOLVERS = {
    "fixed_point": FixedPoint(),
    "anderson": Anderson(),
    "broyden": Broyden(),
    "broyden_small": Broyden(memory=5),
    "broyden_search": Broyden(line_search=True),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=list(SOLVERS))


@pytest.fixture(scope="module")
def arrays(golden):
    with np.load(golden / "deq_solvers.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def bank(arrays):
    return problems(arrays)


@pytest.mark.parametrize("key", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_solves(name, key, bank):
    problem, solver = bank[name], SOLVERS[key]
    if key in problem.unsuitable:
        solution = solve(problem.f, problem.z0, solver, 60, 1e-9, fallback=None)
        assert np.all(np.isfinite(solution.value)) and np.any(solution.status != Status.CONVERGED)
        return
    solution = solve(problem.f, problem.z0, solver, 100, 1e-9)
    assert np.all(solution.status == Status.CONVERGED)
    np.testing.assert_allclose(solution.value, problem.answer, rtol=1e-7, atol=1e-7)
    assert np.max(solution.residual) <= 1e-9
    if name == "already_solved":
        assert np.all(ops.convert_to_numpy(solution.steps) == 0)
        assert int(solution.evaluations) == 1


@every_solver
@pytest.mark.parametrize("name", HOPELESS)
def test_ends_where_there_is_no_answer(name, solver, bank):
    problem = bank[name]
    solution = solve(problem.f, np.float32(problem.z0), solver, 80, 1e-6)
    assert all(Status(int(s)) in problem.statuses for s in solution.status)
    assert np.all(np.isfinite(solution.value))
    if name == "later_not_a_number" and not getattr(solver, "line_search", False):
        # The best iterate is the guess: no better one was seen.
        np.testing.assert_array_equal(solution.value, problem.z0)


def batch_residual(f, z, stop):
    value = np.asarray(f(tf.constant(z)))
    length = np.linalg.norm(value - z)
    return length / (np.linalg.norm(value) + 1e-9) if stop == "relative" else length


@pytest.mark.parametrize(
    "case,bits,tolerance,stop",
    [
        ("broyden_default_thr30", "f64", 1e-3, "relative"),
        ("broyden_abs_eps1e-5_thr40", "f64", 1e-5, "absolute"),
        ("broyden_ls_thr30", "f64", 1e-3, "relative"),
        ("broyden_tight", "f64", 1e-7, "relative"),
        ("broyden_default_thr30", "f32", 1e-3, "relative"),
        ("broyden_abs_eps1e-5_thr40", "f32", 1e-5, "absolute"),
        ("broyden_tight", "f32", 1e-6, "relative"),
        ("anderson_default_thr50", "f64", 1e-3, "relative"),
        ("anderson_tight", "f64", 1e-7, "relative"),
        ("anderson_tight", "f32", 1e-6, "relative"),
    ],
)
def test_no_more_evaluations_than_the_reference(case, bits, tolerance, stop, arrays, bank):
    """The reference measures the whole batch at once: so measured, we are there as soon as it."""
    steps = int(arrays[f"out/{bits}/{case}/nstep"])
    dtype = "float64" if bits == "f64" else "float32"
    f, z0 = bank["network"].f, bank["network"].z0.astype(dtype)
    solver = Anderson() if case.startswith("anderson") else Broyden(line_search="_ls_" in case)
    solution = solve(f, z0, solver, steps, 0.0, stop)
    assert int(solution.evaluations) == steps + 1
    assert batch_residual(f, np.asarray(solution.value), stop) <= tolerance


@pytest.mark.parametrize("case", ["broyden_tight", "broyden_abs_eps1e-5_thr40", "anderson_tight"])
def test_reference_values(case, arrays, bank):
    """A tight solve agrees with the reference's result to the reference's own tolerance."""
    solution = solve(bank["network"].f, bank["network"].z0, Broyden(), 80, 1e-12)
    result = arrays[f"out/f64/{case}/result"]
    np.testing.assert_allclose(solution.value, result, atol=2e-5 if "abs" in case else 1e-5)
    np.testing.assert_allclose(solution.value, arrays["out/z_star"], atol=1e-11)


@pytest.mark.parametrize("name", ["network", "expansion"])
def test_broyden_from_steps_alone_equals_that_from_pairs(name, bank):
    """Both ways to keep H take the same steps, until the memory of the second is full."""
    problem, memory = bank[name], 6
    traces = []
    for steps in (memory + 1, memory + 2):  # the first holds all its steps, the second wraps
        (state,) = Broyden(memory).init(tf.zeros((1, 3)), steps)
        assert ("steps" in state) == (steps == memory + 1)
        found = solve(problem.f, problem.z0, Broyden(memory), steps, 0.0, trace=True)
        traces.append(np.asarray(found.trace)[:, : memory + 2])
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-6, atol=1e-12)


@every_solver
def test_samples_are_independent(solver):
    """A hard sample in the batch, or one that is not finite, changes nothing for an easy one."""
    rates = np.array([0.3, 0.9, 0.5])[:, None] * np.ones((3, 4))
    rates = rates * np.linspace(0.5, 1, 4)

    def run(index):
        def f(z):
            value = ops.cast(rates[index], z.dtype) * ops.sin(z) + 1.0
            broken = np.equal(index, 2)[:, None]
            return ops.where(ops.logical_and(broken, z > 1.2), float("nan"), value)

        return solve(f, np.zeros((len(index), 4)), solver, 60, 1e-8)

    alone, together = run(np.array([0])), run(np.array([0, 1, 2]))
    np.testing.assert_allclose(alone.value[0], together.value[0], rtol=1e-12)
    assert int(alone.steps[0]) == int(together.steps[0]) < int(together.steps[1])
    assert list(map(int, together.status)) == [1, 1, 4]
    assert np.all(np.isfinite(together.value))


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("anderson", marks=pytest.mark.slow),
        pytest.param("broyden_small", marks=pytest.mark.slow),
        "broyden_search",
    ],
)
def test_graph_and_xla_equal_eager(key, bank):
    problem, solver = bank["network"], SOLVERS[key]
    z0 = tf.constant(problem.z0)

    def run(z):
        return tuple(solve(problem.f, z, solver, 70, 1e-8, trace=True))

    want = run(z0)
    signature = [tf.TensorSpec((None, 6, None), "float64")]
    functions = (tf.function(run, input_signature=signature), tf.function(run, jit_compile=True))
    for function in functions:
        got = function(z0)
        np.testing.assert_allclose(got[0], want[0], atol=1e-6)
        np.testing.assert_array_equal(got[3], want[3])
        assert got[5].shape == (2, 71)


@pytest.mark.parametrize("key", ["anderson", "broyden", "broyden_small", "broyden_search"])
def test_calls_leave_nothing_behind(key):
    """The memory is written in place: each call, and each part of it, must have its own."""
    starts = [np.full((2, 4), value, "float32") for value in (0.0, 3.0, 0.0)]

    def run(z):
        return solve(lambda z: ops.cos(2 * z), z, SOLVERS[key], 12, 0.0).value

    graph = tf.function(run, input_signature=[tf.TensorSpec((2, 4), "float32")])
    first, _, again = [graph(tf.constant(z)).numpy() for z in starts]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, run(tf.constant(starts[0])), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_solved_in_float32(dtype):
    seen = []

    def f(z):
        seen.append(str(z.dtype))
        return ops.cast(0.5, z.dtype) * z + ops.cast(1.0, z.dtype)

    solution = solve(f, ops.zeros((2, 5), dtype), "anderson", 20, 1e-2)
    assert keras.backend.standardize_dtype(solution.value.dtype) == dtype
    assert dtype in seen[0] and "float32" in str(solution.residual.dtype)
    np.testing.assert_allclose(ops.cast(solution.value, "float32"), 2.0, atol=3e-2)


@pytest.mark.parametrize("stop", ["relative", "absolute"])
def test_trace_is_what_it_says(stop, bank):
    problem = bank["contraction"]
    solution = solve(problem.f, problem.z0, "fixed_point", 8, 0.0, stop, trace=True)
    z, want = problem.z0, []
    for _ in range(9):
        value = np.asarray(problem.f(tf.constant(z)))
        size = np.linalg.norm(value - z, axis=1)
        want.append(size / np.linalg.norm(value, axis=1) if stop == "relative" else size)
        z = value
    np.testing.assert_allclose(solution.trace, np.stack(want, 1), rtol=1e-6)
    early = solve(problem.f, problem.z0, "broyden", 40, 1e-6, stop, trace=True)
    last = int(np.max(early.steps))
    np.testing.assert_array_equal(
        early.trace[:, last:], np.repeat(np.asarray(early.residual)[:, None], 41 - last, 1)
    )


def test_best_iterate_is_kept():
    """From the start on: an expansive map gives the guess back."""
    solution = solve(lambda z: 5 * z, np.ones((1, 3)), "fixed_point", 6, 0.0, "absolute")
    np.testing.assert_array_equal(solution.value, np.ones((1, 3)))
    assert float(solution.residual[0]) == pytest.approx(4 * np.sqrt(3))
    assert Status(int(solution.status[0])) == Status.MAX_STEPS
    assert "max_steps" in Status(int(solution.status[0])).message
    solution = solve(
        lambda z: 50 * z, np.ones((1, 3)), "fixed_point", 50, 0.0, "absolute", fallback=None
    )
    assert Status(int(solution.status[0])) == Status.DIVERGED


def test_stagnation_ends_the_solve():
    """A tolerance that float32 cannot resolve does not use up the limit."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(20, 20)).astype("float32") / 8
    offset = rng.normal(size=(1, 20)).astype("float32")
    solution = solve(
        lambda z: ops.tanh(ops.matmul(z, weights) + offset),
        np.zeros((1, 20), "float32"),
        FixedPoint(0.5),
        1000,
        1e-12,
    )
    assert Status(int(solution.status[0])) in (Status.STAGNATED, Status.CONVERGED)
    assert int(solution.steps[0]) < 300 and float(solution.residual[0]) < 1e-6


@pytest.mark.parametrize("solver", [Broyden(4), Anderson(4)])
def test_memory_is_bounded(solver):
    z = ops.zeros((2, 10))
    sizes = [
        sum(int(np.prod(t.shape)) for t in keras.tree.flatten(solver.init(z, steps)))
        for steps in (10, 1000)
    ]
    assert sizes[0] == sizes[1] <= 2 * 10 * (2 * 4 + 3) + 100


def test_line_search_helps_where_full_steps_do_not(arrays, bank):
    """From far out, full steps towards the root of arctan overshoot."""

    def f(z):
        return z - 3 * ops.arctan(z)

    plain = solve(f, np.full((1, 1), 4.0), Broyden(), 40, 1e-10, "absolute")
    searched = solve(f, np.full((1, 1), 4.0), Broyden(line_search=True), 40, 1e-10, "absolute")
    assert int(searched.status[0]) == Status.CONVERGED
    assert int(searched.steps[0]) <= int(plain.steps[0])
    assert int(searched.evaluations) > int(searched.steps[0])


def test_under_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])

    @tf.function
    def run():
        return strategy.run(lambda: solve(lambda z: ops.cos(z), ops.zeros((2, 3)), "broyden").value)

    np.testing.assert_allclose(strategy.experimental_local_results(run())[0], 0.739, atol=2e-3)


def test_get():
    assert isinstance(solvers.get("broyden"), Broyden)
    assert solvers.get({"name": "anderson", "memory": 3}).memory == 3  # pyright: ignore
    solver = Broyden(memory=7, line_search=True)
    assert solvers.get(solver) is solver
    again = solvers.get(keras.saving.serialize_keras_object(solver))
    assert again.get_config() == solver.get_config()
    with pytest.raises(ValueError, match="one of"):
        solvers.get("newton")
    with pytest.raises(ValueError, match="has the options"):
        solvers.get({"name": "broyden", "beta": 2})
    for wrong in (lambda: FixedPoint(1.0), lambda: Anderson(0), lambda: Broyden(memory=0)):
        with pytest.raises(ValueError, match="Received"):
            wrong()
    refused: list[dict] = [{"max_steps": 0}, {"tolerance": -1}, {"stop": "rel"}]
    for options in refused:
        with pytest.raises(ValueError, match="Received"):
            solve(lambda z: z, np.zeros((1, 1)), **options)
