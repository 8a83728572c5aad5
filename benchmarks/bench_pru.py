"""Language-model steps: PRU against LSTMs of equal size and against the machine's matrix products.

    python benchmarks/run.py pru_step pru_step_xla pru_against_lstm

The model of `pru_ptb_word` (layers 400-1400-1400-400, two levels, four groups, 10,000 words, no
dropout; 18.9M parameters) on batches of 20 x 35, loss and gradients, against the same with
`keras.layers.LSTM` and, where it is installed, `torch.nn.LSTM` of 1000 units (19.9M parameters).
All of them take turns in one process, so that a busy machine slows all alike.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

from harness import Work, alternate, benchmark, matrix_product, measure

THREADS = 2
BATCH, STEPS, WORDS, EMBEDDING = 20, 35, 10_000, 400
PRU_UNITS, LSTM_UNITS, GROUPS = 1400, 1000, 4


def pru_flops() -> float:
    """Floating-point operations of a PRU step: two a multiply-add, three products a weight."""
    weights, width = EMBEDDING * WORDS, EMBEDDING
    for units in (PRU_UNITS, PRU_UNITS, EMBEDDING):
        pyramid = width * 3 * units + (width // 2) * units  # two levels: 3/4 and 1/4 of 4u outputs
        weights += pyramid + 4 * units * units // GROUPS
        width = units
    return 6.0 * BATCH * STEPS * weights


def pru_step(jit_compile: bool) -> Callable[[], Any]:
    """Loss and gradients of our model, as a graph or with XLA."""
    import tensorflow as tf

    from keras_seq import zoo

    model = zoo.pru_ptb_word(
        units=PRU_UNITS,
        groups=GROUPS,
        input_dropout=0.0,
        dropout=0.0,
        output_dropout=0.0,
        carry_state=False,
        temporal_activation_regularization=0.0,
    )
    variables = [variable.value for variable in model.trainable_variables]
    return _tensorflow_step(
        lambda ids, targets: tf.reduce_mean(model.token_losses(ids, targets)),
        variables,
        jit_compile,
    )


def keras_step() -> Callable[[], Any]:
    """The same with `keras.layers.LSTM`."""
    import keras
    import tensorflow as tf

    embedding = keras.layers.ReversibleEmbedding(WORDS, EMBEDDING)
    layers = [
        keras.layers.LSTM(units, return_sequences=True)
        for units in (LSTM_UNITS, LSTM_UNITS, EMBEDDING)
    ]

    def loss(ids, targets):
        x = embedding(ids)
        for layer in layers:
            x = layer(x)
        logits = embedding(x, reverse=True)
        nll = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return tf.reduce_mean(nll)

    loss(*_ids())
    variables = [w.value for layer in (embedding, *layers) for w in layer.trainable_variables]
    return _tensorflow_step(loss, variables, False)


def torch_step() -> Callable[[], Any]:
    """The same with `torch.nn.LSTM`."""
    import torch

    torch.set_num_threads(THREADS)
    table = torch.nn.Embedding(WORDS, EMBEDDING)
    widths = (EMBEDDING, LSTM_UNITS, LSTM_UNITS, EMBEDDING)
    layers = [torch.nn.LSTM(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    ids, targets = (torch.from_numpy(part.T.copy()).long() for part in _ids())

    def run():
        x = table(ids)
        for layer in layers:
            x, _ = layer(x)
        logits = (x @ table.weight.T).reshape(-1, WORDS)
        loss = torch.nn.functional.cross_entropy(logits, targets.reshape(-1))
        torch.autograd.grad(loss, [table.weight, *(p for la in layers for p in la.parameters())])

    return run


def _ids():
    import numpy as np

    ids = np.random.default_rng(0).integers(0, WORDS, (BATCH, STEPS + 1)).astype("int32")
    return ids[:, :-1], ids[:, 1:]


def _tensorflow_step(loss, variables, jit_compile: bool) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def step(ids, targets):
        with tf.GradientTape() as tape:
            value = loss(ids, targets)
        gradients: Any = tape.gradient(value, variables)
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    ids, targets = (tf.constant(part) for part in _ids())

    def run():
        value, gradients = step(ids, targets)
        gradients[0].numpy()
        return value.numpy()

    return run


@benchmark("pru_step", "PRU language model step as a graph")
def pru_step_graph():
    return measure(lambda: pru_step(jit_compile=False), pru_flops())


@benchmark("pru_step_xla", "the same with XLA")
def pru_step_xla():
    return measure(lambda: pru_step(jit_compile=True), pru_flops())


@benchmark("pru_against_lstm", "PRU steps in turn with LSTMs of equal size, on two threads")
def pru_against_lstm() -> dict[str, float]:
    """Median seconds of each; `torch_lstm` only where PyTorch is installed."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    works = {
        "product": matrix_product(),
        "pru": Work(pru_step(False)),
        "pru_xla": Work(pru_step(True)),
        "keras_lstm": Work(keras_step()),
    }
    if importlib.util.find_spec("torch") is not None:
        works["torch_lstm"] = Work(torch_step())
    for work in works.values():
        work.function()
    alternate(7, *works.values())
    return {name: work.median for name, work in works.items()}
