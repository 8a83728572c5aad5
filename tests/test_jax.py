"""What runs on Keras' JAX backend: every golden file, forward and gradients, and the benchmark.

pip install jax
python -m pytest -m slow tests/test_jax.py -n 0
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("adaptive", "deq_j", "deq_s", "deq_tf_la", "deq_tf_lm", "deq_tr", "pru", "rt", "s", "tr")
GROUPS += ("asgd", "awd", "keras_tcn", "tcn", "txl")
pytestmark = pytest.mark.slow


def with_jax(*command: str, timeout: int = 550) -> str:
    """What a script of the repository prints on JAX."""
    pytest.importorskip("jax", reason="pip install jax")
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result.stdout


def test_groups_hold_every_file():
    names = [path.stem for path in (ROOT / "tests" / "golden").glob("*.npz")]
    assert all(sum(name.startswith(group) for group in GROUPS) == 1 for name in names)


@pytest.mark.parametrize("group", GROUPS)
def test_golden_files(group):
    """Forward and all gradients, the implicit ones of equilibria too."""
    said = with_jax("tests/parity.py", "tests/golden", "--only", group)
    assert said.count(" ok\n") == said.count("forward") + 1 > 1


_SECOND = """
import jax, numpy as np, keras_seq
cell = keras_seq.layers.DEQTrellisCell(4, 3)
layer = keras_seq.layers.DeepEquilibrium(cell, gradient={gradient!r})
x = np.ones((1, 3, 2), "float32")
layer(x)
jax.grad(lambda x: jax.grad(lambda x: layer(x).sum())(x).sum())(x)
"""


@pytest.mark.parametrize("gradient", ["implicit", "phantom"])
def test_second_derivatives_are_refused(gradient):
    code = _SECOND.format(gradient=gradient)
    with pytest.raises(AssertionError, match="A second derivative through an equilibrium is not"):
        with_jax("-c", code)


_FIT = """
import keras, numpy as np
from keras_seq import layers
cell = layers.DEQTransformerCell(8, heads=2, inner_units=12, hidden_dropout=0.1)
layer = layers.DeepEquilibrium(
    cell,
    jacobian=layers.JacobianRegularization(0.1, frequency=0.5),
    pretraining=layers.Pretraining(steps=2, levels=2),
    name="deq",
)
inputs = keras.Input((None, 3))
model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
model.compile(keras.optimizers.Adam(0.01), "mse")
x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
history = model.fit(x, np.cumsum(x, 1)[..., :1], batch_size=4, epochs=6, verbose=0).history
assert history["loss"][-1] < history["loss"][0]
assert int(layer.steps_taken.value) == 2
"""


def test_an_equilibrium_trains_with_every_option():
    with_jax("-c", _FIT)


def test_the_benchmark_trains(tmp_path):
    ids = np.random.default_rng(0).integers(0, 30, 400).astype("int32")
    arrays = {"train": ids, "validation": ids[:90], "test": ids[:90], "eos": np.int32(0)}
    np.savez(tmp_path / "arrays.npz", **arrays)
    settings = {
        "model.vocabulary_size": 30,
        "model.units": 8,
        "model.output_units": 8,
        "model.embedding_dim": 8,
        "model.levels": 3,
        "data.batch_size": 4,
        "data.eval_batch_size": 2,
    }
    changes = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    with_jax(
        "benchmarks/train_jax.py",
        "trellisnet_ptb_word",
        f"--arrays={tmp_path / 'arrays.npz'}",
        f"--out={tmp_path}",
        "--minutes=0.01",
        *changes,
    )
    (file,) = tmp_path.glob("*.jsonl")
    *epochs, last = map(json.loads, file.read_text().splitlines())
    assert epochs and all(np.isfinite(line["validation_nll"]) for line in epochs)
    assert last["epochs"] == len(epochs) and np.isfinite(last["test"]["nll"])
