"""Clipping with sparse gradients and under a strategy, coupled L2, and masks of replicas."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq import optimizers

NAMES = [name for name in optimizers.__all__ if hasattr(keras.optimizers, name)]
RNG = np.random.default_rng(0)
IDS, TARGETS = RNG.integers(0, 9, (12, 6)), RNG.integers(0, 9, (12,))
CLIPPING = {"clipnorm": 0.05, "global_clipnorm": 0.05, "clipvalue": 0.01}


class OneHot(keras.layers.Layer):
    """An embedding as a product with one-hot vectors: its gradient is dense."""

    def build(self, shape):
        self.embeddings = self.add_weight(shape=(9, 4), name="embeddings")

    def call(self, ids):
        return ops.matmul(ops.one_hot(ids, 9), self.embeddings)


def train(layer, optimizer, steps=20):
    """Weights of a small classifier after some steps."""
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layer])
    model.add(keras.layers.GlobalAveragePooling1D())
    model.add(keras.layers.Dense(9))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)  # tracing would take most of the time
    for _ in range(steps):
        model.train_on_batch(IDS, TARGETS)
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


@pytest.mark.parametrize("clipping", CLIPPING)
def test_sparse_gradients_clip_as_dense_ones(clipping):
    """A model with an embedding takes the steps of its one-hot twin; Keras' own does not."""

    def difference(cls):
        make = [keras.layers.Embedding(9, 4), OneHot()]
        both = [train(layer, cls(0.1, **{clipping: CLIPPING[clipping]})) for layer in make]
        return np.abs(both[0] - both[1]).max()

    assert difference(optimizers.Adam) < 2e-6
    if clipping == "clipvalue":
        assert difference(keras.optimizers.Adam) > 1e-3


def test_without_clipping_sparse_gradients_stay_sparse():
    variable = keras.Variable(np.ones((5, 2), "float32"))
    optimizer = optimizers.SGD(0.1)
    optimizer.build([variable])
    gradient = tf.IndexedSlices(tf.ones((1, 2)), [3], (5, 2))
    assert optimizer._clip_gradients([gradient])[0] is gradient
    dense = optimizers.SGD(0.1, clipnorm=1.0)
    dense.build([variable])
    assert not isinstance(dense._clip_gradients([gradient])[0], tf.IndexedSlices)
    optimizer.apply([gradient])
    np.testing.assert_allclose(variable[3], 0.9)


def test_l2_is_pytorchs_weight_decay():
    """SGD with momentum and Adam, recomputed with the formulas of `torch.optim`."""
    start, rate, l2, limit = np.array([3.0, -2.0, 0.5]), 0.1, 0.05, 0.4
    gradients = RNG.normal(size=(10, 3))

    def clipped(gradient):
        return gradient * min(1, limit / np.linalg.norm(gradient))

    def run(optimizer):
        variable = keras.Variable(start, dtype="float64")
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient, "float64")], [variable])
        return ops.convert_to_numpy(variable)

    want, momentum = start.copy(), np.zeros(3)
    for gradient in gradients:
        momentum = 0.9 * momentum + clipped(gradient) + l2 * want
        want = want - rate * momentum
    sgd = optimizers.SGD(rate, momentum=0.9, global_clipnorm=limit, l2=l2)
    np.testing.assert_allclose(run(sgd), want, rtol=1e-6)

    want, first, second = start.copy(), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(gradients, start=1):
        gradient = clipped(gradient) + l2 * want
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**t)) + 1e-12
        want = want - rate * first / (1 - 0.9**t) / root
    adam = optimizers.Adam(rate, epsilon=1e-12, global_clipnorm=limit, l2=l2)
    np.testing.assert_allclose(run(adam), want, rtol=1e-4)  # Keras' betas are float32


def test_l2_with_sparse_gradients_and_exclusion():
    """L2 reaches rows without a gradient too, as in PyTorch, and spares excluded weights."""
    weights = [keras.Variable(np.ones((3, 2), "float32"), name=n) for n in ("table", "bias")]
    optimizer = optimizers.SGD(1.0, l2=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    slices = tf.IndexedSlices(tf.ones((2, 2)), [1, 1], (3, 2))
    optimizer.apply([slices, tf.ones((3, 2))], weights)
    np.testing.assert_allclose(weights[0], [[0.5, 0.5], [-1.5, -1.5], [0.5, 0.5]])
    np.testing.assert_allclose(weights[1], 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer(name):
    """By configuration the same again, by way of either deserializer; and a step is taken."""
    cls = getattr(optimizers, name)
    assert issubclass(cls, getattr(keras.optimizers, name))
    optimizer = cls(0.25, clipnorm=0.5, l2=0.125)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    for revive in (keras.optimizers.deserialize, keras.saving.deserialize_keras_object):
        again = revive(json.loads(json.dumps(config)))
        assert type(again) is cls
        assert again.get_config() == optimizer.get_config()
        assert (again.l2, again.clipnorm) == (0.125, 0.5)
    variable = keras.Variable([1.0, 2.0])
    optimizer.apply([ops.ones((2,))], [variable])
    assert np.all(np.abs(variable - np.array([1.0, 2.0])) > 0)


def test_schedules_loss_scaling_and_errors(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizers.SGD(schedule)))
    assert isinstance(again._learning_rate, keras.optimizers.schedules.CosineDecay)
    scaled = keras.optimizers.LossScaleOptimizer(optimizers.Adam(0.1, clipnorm=0.05, l2=1e-3))
    plain = train(keras.layers.Embedding(9, 4), optimizers.Adam(0.1, clipnorm=0.05, l2=1e-3), 3)
    np.testing.assert_allclose(train(keras.layers.Embedding(9, 4), scaled, 3), plain, atol=1e-4)
    with pytest.raises(ValueError, match=r"l2=-1"):
        optimizers.SGD(0.1, l2=-1)
    with pytest.raises(ValueError, match="no_such_option"):
        optimizers.Adam(0.1, no_such_option=1)


SCRIPT = r"""
import contextlib, json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, keras_seq
from keras_seq.layers import EmbeddingDropout, MixtureOfSoftmaxes, VariationalDropout

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
ids = rng.integers(0, 9, (48, 5)).astype("int32")
targets = rng.integers(0, 9, (48, 5)).astype("int32")
data = tf.data.Dataset.from_tensor_slices((ids, targets)).batch(8)

class Tied(keras.Model):
    # an embedding used for input (sparse gradient) and output (dense), and another for input only
    def __init__(self):
        super().__init__()
        initializer = keras.initializers.RandomNormal(stddev=0.5, seed=2)
        self.table = keras.layers.ReversibleEmbedding(9, 4, embeddings_initializer=initializer)
        self.other = keras.layers.Embedding(9, 4, embeddings_initializer=initializer)
        self.dense = keras.layers.Dense(4, "tanh", kernel_initializer=initializer)

    def call(self, ids):
        return self.table(self.dense(self.table(ids) + self.other(ids)), reverse=True)

def train(replicated, make, measure, steps=20):
    with strategy.scope() if replicated else contextlib.nullcontext():
        model = Tied()
        model.compile(make(), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                      metrics=[keras_seq.metrics.Perplexity(from_logits=True),
                               keras_seq.metrics.TokenCount()])
    model.fit(data.repeat(), steps_per_epoch=steps, verbose=0)
    weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
    return weights, model.evaluate(data, verbose=0) if measure else None

ours, theirs = keras_seq.optimizers, keras.optimizers
cases = {
    "sgd": lambda: ours.SGD(0.5, momentum=0.9, global_clipnorm=0.1, l2=1e-2),
    "adam": lambda: ours.Adam(0.02, clipnorm=0.05),
    "value": lambda: ours.SGD(0.5, clipvalue=0.01),
    "radam": lambda: ours.RAdam(0.02, global_clipnorm=0.05, l2=1e-2),
    "keras": lambda: theirs.SGD(0.5, momentum=0.9, global_clipnorm=0.1),
}
clipping = {}
for name, make in cases.items():
    results = [train(replicated, make, measure=name == "sgd") for replicated in (False, True)]
    (one, report_one), (two, report_two) = results
    clipping[name] = [float(np.abs(one - two).max()), report_one, report_two]

with strategy.scope():
    layers = {
        "variational": VariationalDropout(0.5, seed=3),
        "embedding": EmbeddingDropout(0.5, 40, seed=3),
        "mixture": MixtureOfSoftmaxes(9, 4, 10, latent_dropout=0.5, seed=3),
    }
draws = {
    "variational": lambda layer: layer(tf.ones((2, 3, 20)), training=True)[:, 0],
    "embedding": lambda layer: layer.get_mask(),
    "mixture": lambda layer: layer.get_masks(2)["latent"],
}
masks = {}
for name, layer in layers.items():
    steps = []
    draw = tf.function(lambda: strategy.run(lambda: draws[name](layer)))
    for _ in range(2):
        values = strategy.experimental_local_results(draw())
        steps.append([np.ravel(value).tolist() for value in values])
    masks[name] = steps
with strategy.scope():
    again = EmbeddingDropout(0.5, 40, seed=3)
values = strategy.experimental_local_results(strategy.run(again.get_mask))
masks["again"] = [np.ravel(value).tolist() for value in values]
masks["alone"] = np.ravel(EmbeddingDropout(0.5, 40, seed=3).get_mask()).tolist()

# How many numbers a replica hands over to be added up, in a step on gradients of 40 + 2 numbers.
handed = []
all_reduce = tf.distribute.ReplicaContext.all_reduce

def counted(context, operation, value, options=None):
    handed.extend(int(tf.size(part)) for part in tf.nest.flatten(value))
    return all_reduce(context, operation, value, options)

tf.distribute.ReplicaContext.all_reduce = counted
sums = {}
for name in (*cases, "unclipped"):
    with strategy.scope():
        optimizer = cases[name]() if name in cases else ours.Adam(0.1)
        variables = [keras.Variable(tf.ones((10, 4))), keras.Variable(tf.ones((2,)))]
        optimizer.build(variables)
    handed.clear()
    strategy.run(lambda: optimizer.apply([tf.ones((10, 4)), tf.ones((2,))]))
    sums[name] = sum(handed) / strategy.num_replicas_in_sync
print(json.dumps({"clipping": clipping, "masks": masks, "sums": sums}))
"""


@pytest.fixture(scope="module")
def replicas():
    """What happened on two logical devices; they must be made before TensorFlow starts."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["sgd", "adam", "value", "radam"])
def test_two_replicas_take_the_steps_of_one_device(replicas, case):
    assert replicas["clipping"][case][0] < 1e-6


def test_gradients_are_added_up_once_a_step(replicas):
    assert set(replicas["sums"].values()) == {42.0}


def test_two_replicas_measure_what_one_device_does(replicas):
    """Loss, perplexity, and every token counted once."""
    _, one, two = replicas["clipping"]["sgd"]
    assert one == pytest.approx(two, rel=1e-5)
    assert one[-1] == two[-1] == 240


def test_the_comparison_of_replicas_is_sharp(replicas):
    """Keras' own clipping is seen to differ, so the limit above means something."""
    assert replicas["clipping"]["keras"][0] > 1e-3


@pytest.mark.parametrize("name", ["variational", "embedding", "mixture"])
def test_every_replica_draws_its_own_masks(replicas, name):
    """Masks differ between replicas and between calls, and are right on each."""
    flat = [tuple(mask) for step in replicas["masks"][name] for mask in step]
    assert len(flat) == len(set(flat)) == 4
    assert set(np.concatenate(flat)) == {0.0, 2.0}


def test_masks_of_replicas_are_reproducible(replicas):
    masks = replicas["masks"]
    assert masks["again"] == masks["embedding"][0]
    assert masks["alone"] == masks["again"][0]
