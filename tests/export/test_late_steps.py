"""A step of a served stream costs the same however much was read before."""

import statistics
import time

import numpy as np
import pytest
import tensorflow as tf
from export.test_zoo_models import shipped

from keras_seq.export import export_model

NEAR, FAR = 10, 10_000
STEPS, ROUNDS = 10, 15


def named_state(answer) -> dict:
    return {name: part for name, part in answer.items() if name.startswith("state_")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "transformer_python_docs",
        "rtransformer_python_docs",
        "transformer_xl_python_docs",
        "trellisnet_python_docs",
    ],
)
def test_a_late_step_costs_what_an_early_one_costs(tmp_path, name):
    """Families of attention have a span or a memory; 1.1 is the aim, and 1.3 allows for noise.

    An attention without a span would look at a thousand times as much.
    """
    model, _ = shipped(name)
    folder = export_model(model, None, tmp_path, name=name, warmup=False)
    served = tf.saved_model.load(str(folder)).signatures
    rng = np.random.default_rng(0)

    def ids(length: int):
        return tf.constant(rng.integers(0, model.vocabulary_size, (1, length)), tf.int32)

    def state_at(position: int) -> dict:
        state = served["initial_state"](batch_size=tf.constant(1))
        for start in range(0, position, 500):
            chunk = ids(min(500, position - start))
            state = named_state(served["step"](ids=chunk, **state))
        return state

    def seconds(state, tokens) -> float:
        begun = time.perf_counter()
        for token in tokens:
            answer = served["step"](ids=token, **state)
            answer["log_probs"].numpy()
            state = named_state(answer)
        return time.perf_counter() - begun

    states = [state_at(position) for position in (NEAR, FAR)]
    for name in states[0]:
        assert states[0][name].shape == states[1][name].shape
    tokens = [ids(1) for _ in range(STEPS)]
    ratios = []
    for _ in range(ROUNDS):
        near, far = (seconds(state, tokens) for state in states)
        ratios.append(far / near)
    assert statistics.median(ratios) < 1.3, ratios
