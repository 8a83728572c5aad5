"""Training step of a deep equilibrium transformer against the machine's matrix products.

    python benchmarks/run.py deq_transformer_step deq_transformer_step_xla deq_metrics

Width 128, 4 heads, inner width 512, batch 8 x 64, memory 64, exactly 15 forward and 15 backward
steps of Broyden's method; values and gradients of all weights. The same evaluations of the cell
and products with its Jacobian, without a solver between them, take turns with it: what the step
takes beyond them is the solver's overhead.

`deq_metrics` times the training step of `deq_transformer_python_docs` with the metrics that say how
the solves went, and without.
"""

from collections.abc import Callable
from typing import Any

from harness import Work, alternate, benchmark, matrix_product, train_step

BATCH, STEPS, MEMORY, WIDTH, HEADS, INNER = 8, 64, 64, 128, 4, 512
SOLVER_STEPS = 15
STATED = 14e9  # operations of such a step of the original, by which its speed was stated


def flops() -> float:
    """Floating-point operations of the products that a step here makes, the solver's left out."""
    rows = BATCH * STEPS
    kernels = WIDTH * (3 * WIDTH + WIDTH + 2 * INNER)  # qkv, output, feed-forward
    linear = 2.0 * rows * kernels
    attention = 3 * 2.0 * rows * (STEPS + MEMORY) * WIDTH  # content, positions, values
    applications = SOLVER_STEPS + 2  # one before the first step, and the one that is recorded
    products = SOLVER_STEPS + 1
    once = 2.0 * 3 * WIDTH * WIDTH * (rows + 2 * BATCH * MEMORY)  # injection, keys and values
    backward = 2 * (linear + attention) + 2 * once  # to all weights, once
    solves = applications * (linear + attention) + products * (linear + 2 * attention)
    return solves + once + backward


def _make(jit_compile: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The step, and the same applications and products without a solver."""
    import keras
    import tensorflow as tf

    from keras_seq.gradients import attach_implicit_gradient
    from keras_seq.layers import DeepEquilibrium, DEQTransformerCell

    keras.utils.set_random_seed(0)
    cell = DEQTransformerCell(WIDTH, HEADS, INNER, memory_length=MEMORY)
    layer = DeepEquilibrium(cell, max_steps=SOLVER_STEPS, tolerance=0.0, backward_tolerance=0.0)
    layer.build((None, None, WIDTH))
    x = tf.random.normal((BATCH, STEPS, WIDTH))
    coefficients = tf.random.normal((BATCH, STEPS, WIDTH))
    state = {
        "hidden": tf.random.normal((BATCH, MEMORY, WIDTH)),
        "injected": tf.random.normal((BATCH, MEMORY, 3 * WIDTH)),
        "valid": tf.ones((BATCH, MEMORY)),
    }
    weights = [weight.value for weight in layer.trainable_variables]

    def finish(tape, outputs, steps):
        gradients = tape.gradient(outputs, weights, coefficients)
        return steps, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def step(x, state):
        with tf.GradientTape() as tape:
            outputs, solution = layer(x, initial_state=state, training=True, return_solution=True)
        return finish(tape, outputs, solution["steps"])

    def bare(x, state):
        with tf.GradientTape() as tape:
            context = cell.prepare(x, training=True, initial_state=state)
            with tape.stop_recording():
                _, z = tf.while_loop(
                    lambda i, z: i < SOLVER_STEPS + 1,
                    lambda i, z: (i + 1, cell.iterate(z, context)),
                    (0, tf.zeros_like(x)),
                )
            # Plain iteration of the driver costs next to nothing.
            outputs = attach_implicit_gradient(
                lambda z: cell.iterate(z, context), z, "fixed_point", SOLVER_STEPS, 0.0
            )
        return finish(tape, outputs, tf.constant(SOLVER_STEPS))

    works = []
    for function in (step, bare):
        compiled = tf.function(function, jit_compile=jit_compile, autograph=False)

        def run(compiled=compiled):
            steps, gradients = compiled(x, state)
            gradients[0].numpy()
            return steps.numpy()

        works.append(run)
    taken = works[0]()
    if (taken != SOLVER_STEPS).any():
        raise RuntimeError(f"The solver took {taken} steps, not {SOLVER_STEPS}.")
    return works[0], works[1]


def _measured(jit_compile: bool) -> dict[str, Any]:
    step, bare = _make(jit_compile)
    step()
    bare()
    timed, alone, product = Work(step), Work(bare), matrix_product()
    alternate(9, product, timed, alone)
    speed = product.flops / product.median
    return {
        "seconds": timed.median,
        "flops": flops(),
        "fraction_of_matmul": flops() / timed.median / speed,
        "fraction_by_stated_flops": STATED / timed.median / speed,
        "matmul_gflops": speed / 1e9,
        "seconds_without_solver": alone.median,
        "solver_share": 1 - alone.median / timed.median,
    }


@benchmark("deq_transformer_step", "DEQ-Transformer training step as a graph")
def deq_transformer_step():
    return _measured(jit_compile=False)


@benchmark("deq_transformer_step_xla", "the same with XLA")
def deq_transformer_step_xla():
    return _measured(jit_compile=True)


@benchmark("deq_metrics", "training step with the solver's metrics and without")
def deq_metrics() -> dict[str, float]:
    """Median seconds of each, in turn, and the ratio."""
    from unittest import mock

    import keras
    import numpy as np

    from keras_seq import zoo
    from keras_seq.layers import deep_equilibrium

    ids = np.random.default_rng(0).integers(0, 90, (16, 65)).astype("int32")
    works = []
    for update in (deep_equilibrium.update, lambda *_: None):
        keras.utils.set_random_seed(0)
        model = zoo.deq_transformer_python_docs(pretrain_steps=0, carry_state=False)
        model.compile(keras.optimizers.Adam(1e-3))
        works.append(Work(train_step(model, (ids[:, :-1], ids[:, 1:]), jit_compile=False)))
        with mock.patch.object(deep_equilibrium, "update", update):
            works[-1].function()  # traces it
    alternate(25, *works)
    return {
        "seconds_with": works[0].median,
        "seconds_without": works[1].median,
        "ratio": works[0].median / works[1].median,
    }
