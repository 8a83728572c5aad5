"""Adaptive softmax and embedding: golden files in every mode, memory, and edge cases."""

import json

import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.layers import AdaptiveEmbedding, AdaptiveSoftmax
from keras_seq.ops import cluster_nll

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}
# 60 logits at once: several chunks a cluster, and a remainder
modes = pytest.mark.parametrize(
    ("mode", "max_logits"),
    [
        ("eager", 60),
        pytest.param("xla", 60, marks=pytest.mark.slow),
        ("graph", 60),
        ("graph", 10**6),
    ],
)


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def variable(array) -> tf.Variable:
    return tf.Variable(tf.convert_to_tensor(array))


def load(folder, name):
    with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    return json.loads(str(arrays["config"])), arrays


def close(got, want, tolerance):
    """Within a tolerance relative to the wanted array's largest value."""
    got = ops.convert_to_numpy(tf.convert_to_tensor(got))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(np.abs(want).max(), 1e-30))


def assign(pairs, arrays):
    for weight, name in pairs:
        value = arrays[f"param/{name}"]
        weight.assign(value if value.shape == tuple(weight.shape) else value.T)


@modes
@pytest.mark.parametrize("name", ["softmax_splitcross", "softmax_splitcross_nosplit"])
def test_split_form(golden, name, mode, max_logits):
    config, arrays = load(golden, name)
    head = AdaptiveSoftmax(config["ntoken"], config["splits"], tied=True, max_logits=max_logits)
    head.build((None, config["hidden_size"]))
    head.biases[0].assign(arrays["in/decoder_bias"])
    pairs = [(head.cluster_kernel, "tail_vectors"), (head.cluster_bias, "tail_bias")]
    pairs = pairs if config["splits"] else []
    assign(pairs, arrays)
    inputs = {key: tf.Variable(arrays[f"in/{key}"]) for key in ("x", "decoder_weight")}
    tables = [inputs["decoder_weight"]]

    @MODES[mode]
    def run():
        with tf.GradientTape() as tape:
            nll = ops.mean(head.nll(inputs["x"], arrays["in/target"], tables=tables))
            log_prob = head(inputs["x"], tables=tables)
            loss = nll * arrays["coef/mean_nll"]
            if "coef/log_prob" in arrays:
                loss += ops.sum(log_prob * arrays["coef/log_prob"])
        variables = [*inputs.values(), head.biases[0].value, *[w.value for w, _ in pairs]]
        return nll, log_prob, loss, tape.gradient(loss, variables)

    nll, log_prob, loss, gradients = run()
    close(nll, arrays["out/mean_nll"], 1e-5)
    close(loss, arrays["loss"], 1e-5)
    if "out/log_prob" in arrays:
        close(log_prob, arrays["out/log_prob"], 1e-5)
    names = [*[f"in/{key}" for key in inputs], "in/decoder_bias", *[n for _, n in pairs]]
    for gradient, key in zip(gradients, names, strict=True):
        key = f"grad_{key}" if key.startswith("in/") else f"grad/{key}"
        close(gradient, arrays[key], 1e-4)


@modes
def test_torch_form(golden, mode, max_logits):
    config, arrays = load(golden, "softmax_torch_adaptive")
    head = AdaptiveSoftmax(
        config["n_classes"],
        config["cutoffs"],
        form="torch",
        div_value=config["div_value"],
        use_bias=config["head_bias"],
        max_logits=max_logits,
    )
    head.build((None, config["in_features"]))
    first = config["cutoffs"][0]
    head.kernels[0].assign(arrays["param/head.weight"][:first])
    head.cluster_kernel.assign(arrays["param/head.weight"][first:])
    pairs = []
    for i in range(len(config["cutoffs"])):
        pairs += [(head.projections[i], f"tail.{i}.0.weight")]
        pairs += [(head.kernels[i + 1], f"tail.{i}.1.weight")]
    assign(pairs, arrays)
    assert len(head.weights) == 2 + len(pairs)
    x = tf.Variable(arrays["in/x"])

    @MODES[mode]
    def run():
        with tf.GradientTape() as tape:
            nll, log_prob = head.nll(x, arrays["in/target"]), head(x)
            loss = ops.mean(nll) * arrays["coef/mean_nll"]
            loss += ops.sum(log_prob * arrays["coef/log_prob"])
            loss -= ops.sum(nll * arrays["coef/target_logprob"])
        kernels = [head.kernels[0].value, head.cluster_kernel.value]
        variables = [x, *kernels, *[w.value for w, _ in pairs]]
        return nll, log_prob, loss, tape.gradient(loss, variables)

    nll, log_prob, loss, (d_x, d_words, d_clusters, *gradients) = run()
    close(-nll, arrays["out/target_logprob"], 1e-5)
    close(log_prob, arrays["out/log_prob"], 1e-5)
    close(loss, arrays["loss"], 1e-5)
    close(d_x, arrays["grad_in/x"], 1e-4)
    close(ops.concatenate([d_words, d_clusters]), arrays["grad/head.weight"], 1e-4)
    for gradient, (weight, name) in zip(gradients, pairs, strict=True):
        want = arrays[f"grad/{name}"]
        close(gradient, want if want.shape == tuple(weight.shape) else want.T, 1e-4)


@modes
@pytest.mark.parametrize("case", ["div1_eq", "div1_proj", "div2_eq", "div2_proj", "div4_proj"])
def test_projected_form(golden, case, mode, max_logits):
    if mode == "xla" and case not in ("div1_proj", "div4_proj"):
        pytest.skip("compiling is slow, and two cases show it")
    config, arrays = load(golden, f"adaptive_embedding_softmax_{case}")
    words = {
        "vocabulary_size": config["n_token"],
        "embedding_dim": config["d_embed"],
        "cutoffs": config["cutoffs"],
        "div_value": config["div_val"],
    }
    embedding = AdaptiveEmbedding(output_dim=config["d_proj"], **words)
    head = AdaptiveSoftmax(form="projected", tied=True, max_logits=max_logits, **words)
    embedding.build()
    head.build((None, config["d_proj"]))
    pairs = [(head.cluster_kernel, "crit.cluster_weight"), (head.cluster_bias, "crit.cluster_bias")]
    for weights, name in (
        (embedding.tables, "word_emb.emb_layers.{}.weight"),
        (embedding.projections, "word_emb.emb_projs.{}.weight"),
        (head.biases, "crit.out_layers.{}.bias"),
        (head.projections, "crit.out_projs.{}.weight"),
    ):
        pairs += [(weight, name.format(i)) for i, weight in enumerate(weights)]
    assert {name for _, name in pairs} == {k[6:] for k in arrays if k.startswith("param/")}
    assign(pairs, arrays)
    hidden = tf.Variable(arrays["in/hidden"])

    @MODES[mode]
    def run():
        with tf.GradientTape() as tape:
            vectors = embedding(arrays["in/tokens"])
            tables = head.tied_tables(embedding)
            nll = head.nll(hidden, arrays["in/target"], tables=tables)
            loss = ops.sum(vectors * arrays["coef/embedding"]) + ops.sum(nll * arrays["coef/nll"])
        variables = [hidden, *[w.value for w, _ in pairs]]
        return vectors, nll, loss, tape.gradient(loss, variables), head(hidden, tables=tables)

    vectors, nll, loss, gradients, log_prob = run()
    close(vectors, arrays["out/embedding"], 1e-5)
    close(nll, arrays["out/nll"], 1e-5)
    close(loss, arrays["loss"], 1e-5)
    close(np.take_along_axis(np.array(log_prob), arrays["in/target"][:, None], 1)[:, 0], -nll, 1e-5)
    np.testing.assert_allclose(np.exp(log_prob).sum(-1), 1, rtol=1e-5)
    close(gradients[0], arrays["grad_in/hidden"], 1e-4)
    for gradient, (_, name) in zip(gradients[1:], pairs, strict=True):
        if name in config.get("unused_params", []):
            assert gradient is None or not np.any(ops.convert_to_numpy(gradient))
        else:
            close(gradient, arrays[f"grad/{name}"], 1e-4)


def test_tied_projections():
    """Tied projections are no weights of the head; their gradient is the sum of both uses."""
    words = {"vocabulary_size": 30, "embedding_dim": 8, "cutoffs": [8, 18], "div_value": 2}
    embedding = AdaptiveEmbedding(output_dim=6, projection_initializer="glorot_normal", **words)
    tied = AdaptiveSoftmax(form="projected", tied=True, tie_projections=True, **words)
    apart = AdaptiveSoftmax(form="projected", tied=True, **words)
    hidden, targets = normal(14, 6), np.arange(14) * 2
    embedding.build()
    tied.build(hidden.shape)
    apart.build(hidden.shape)
    assert [w.name for w in tied.weights].count("projection_0") == 1
    assert len(apart.weights) - len(tied.weights) == 2
    own = {w.name: w for w in tied.weights}
    own.update((w.name, w) for w in embedding.projections[1:])
    apart.set_weights([ops.convert_to_numpy(own[w.name]) for w in apart.weights])

    def gradients(head, variables):
        with tf.GradientTape() as tape:
            loss = ops.sum(head.nll(hidden, targets, tables=head.tied_tables(embedding)))
        return loss, tape.gradient(loss, [v.value for v in variables])

    loss, got = gradients(tied, embedding.projections[1:])
    same, want = gradients(apart, apart.projections[1:])
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    for a, b in zip(got, want, strict=True):
        close(a, np.array(b), 1e-6)
    one = {**words, "div_value": 1}
    embedding = AdaptiveEmbedding(output_dim=6, **one)  # one projection, shared by all clusters
    tied = AdaptiveSoftmax(form="projected", tied=True, tie_projections=True, **one)
    embedding.build()
    assert tied.nll(hidden, targets, tables=tied.tied_tables(embedding)).shape == (14,)


@pytest.mark.parametrize("targets", [[0, 1, 2, 3], [9, 9, 9, 9], [0, 4, 9, 5]], ids=str)
def test_empty_and_full_clusters(targets):
    """Clusters without tokens, and all tokens in one cluster, give the gradients of `call`."""
    head = AdaptiveSoftmax(10, [4, 7], max_logits=3)
    hidden, targets = variable(normal(4, 5)), np.array(targets)
    head.build(hidden.shape)
    head.set_weights([normal(*w.shape, seed=i) for i, w in enumerate(head.weights)])
    variables = [hidden, *[w.value for w in head.weights]]

    def gradients(loss_of):
        def run():
            with tf.GradientTape() as tape:
                loss = loss_of()
            return loss, tape.gradient(loss, variables)

        return run

    got = gradients(lambda: ops.sum(head.nll(hidden, targets)))()
    picked = gradients(lambda: -ops.sum(tf.gather(head(hidden), targets, batch_dims=1)))()
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(picked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_unknown_lengths():
    """A graph traced for any batch and length serves all of them, the empty one included."""
    head = AdaptiveSoftmax(20, [5, 9])
    head.build((None, None, 4))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None, None), tf.int32),
        ]
    )
    def run(hidden, targets):
        with tf.GradientTape() as tape:
            nll = head.nll(hidden, targets)
        return nll, tape.gradient(nll, [w.value for w in head.weights])

    for shape in ((2, 3), (1, 7), (2, 0)):
        hidden, targets = normal(*shape, 4), np.random.default_rng(0).integers(0, 20, shape)
        nll, gradients = run(hidden, targets.astype("int32"))
        np.testing.assert_allclose(nll, head.nll(hidden, targets), rtol=1e-5)
        assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)


def sizes(graph):
    """Element counts of all float tensors of a graph and its functions, with their shapes."""
    seen, graphs = {}, [graph]
    for name in graph._functions:  # bodies of loops and calls, nested ones included
        graphs.append(graph._get_function(name).graph)
    for each in graphs:
        for operation in each.get_operations():
            for tensor in operation.outputs:
                if tensor.dtype.is_floating and tensor.shape.is_fully_defined():
                    seen[tuple(tensor.shape)] = int(np.prod(tensor.shape, dtype=np.int64))
    return seen, len(graphs)


def test_training_never_holds_tokens_by_vocabulary():
    """At the sizes of WikiText-103, no tensor of the training graph nears [tokens, vocabulary]."""
    tokens, width, words = 2800, 8, 267735
    head = AdaptiveSoftmax(words, [2800, 20000, 76000], tied=True, max_logits=2**22)
    head.build((tokens, width))

    @tf.function(jit_compile=True)  # with XLA, the sizes of chunks are part of the graph
    def run(hidden, targets, table):
        with tf.GradientTape() as tape:
            tape.watch([hidden, table])
            loss = ops.mean(head.nll(hidden, targets, tables=[table]))
        return tape.gradient(loss, [hidden, table, *[w.value for w in head.weights]])

    graph = run.get_concrete_function(
        tf.TensorSpec((tokens, width)),
        tf.TensorSpec((tokens,), tf.int32),
        tf.TensorSpec((words, width)),
    ).graph
    found, graphs = sizes(graph)
    assert graphs > 6  # forward and backward loops of three clusters were looked into
    assert (2**22 // 191735, 191735) in found  # a chunk of the last cluster
    largest = max(found.values())
    assert largest <= tokens * (2800 + 3), max(found, key=lambda shape: found[shape])
    assert largest < tokens * words / 90


def test_chunks_obey_max_logits(monkeypatch):
    """In a plain graph and eagerly, where chunks have no fixed size, they are as small."""
    head = AdaptiveSoftmax(100, [10, 40], max_logits=200)
    hidden, targets = variable(normal(64, 4)), np.random.default_rng(0).integers(10, 100, 64)
    shapes, softmax = [], ops.softmax
    loss = ops.sparse_categorical_crossentropy

    class Recorder:
        def __getattr__(self, name):
            return getattr(ops, name)

        def softmax(self, x):
            shapes.append(tuple(x.shape))
            return softmax(x)

        def sparse_categorical_crossentropy(self, target, x, from_logits):
            shapes.append(tuple(x.shape))
            return loss(target, x, from_logits=from_logits)

    monkeypatch.setattr(cluster_nll, "ops", Recorder())
    with tf.GradientTape() as tape:
        nll = ops.sum(head.nll(hidden, targets))
    tape.gradient(nll, hidden)
    assert len(shapes) > 20
    assert max(rows * columns for rows, columns in shapes) <= 200
    rows = sum(rows for rows, columns in shapes if columns == 60)
    assert rows == 2 * np.sum(targets >= 40)  # forward and backward, nothing in vain


def test_adaptive_embedding_formula():
    words = {"vocabulary_size": 20, "embedding_dim": 8, "cutoffs": [5, 12], "div_value": 2}
    layer = AdaptiveEmbedding(output_dim=6, **words)
    layer_checks.check_config(layer)
    ids = np.arange(20).reshape(4, 5)
    got = ops.convert_to_numpy(layer(ids))
    rows = [
        np.asarray(table) @ np.asarray(projection).T
        for table, projection in zip(layer.tables, layer.projections, strict=True)
    ]
    want = np.concatenate(rows).reshape(4, 5, 6) * 6**0.5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    half = AdaptiveEmbedding(output_dim=6, dtype="mixed_bfloat16", **words)
    assert half(ids).dtype == "bfloat16" and half.tables[0].dtype == "float32"
    plain = AdaptiveEmbedding(20, 8)  # one table, no projection
    plain.build()
    assert len(plain.weights) == 1


def test_errors():
    with pytest.raises(ValueError, match=r"cutoffs=\(5, 3\)"):
        AdaptiveSoftmax(10, [5, 3])
    with pytest.raises(ValueError, match="vocabulary size itself is not listed"):
        AdaptiveSoftmax(10, [5, 10])
    with pytest.raises(ValueError, match="form='nested'"):
        AdaptiveSoftmax(10, [5], form="nested")
    with pytest.raises(ValueError, match="Use form='projected'"):
        AdaptiveSoftmax(10, [5], div_value=2)
    with pytest.raises(ValueError, match="owns its weights"):
        AdaptiveSoftmax(10, [5], form="torch", tied=True)
    with pytest.raises(ValueError, match="tie_projections"):
        AdaptiveSoftmax(10, [5], form="projected", tie_projections=True)
    with pytest.raises(ValueError, match="max_logits=0"):
        AdaptiveSoftmax(10, [5], max_logits=0)
    with pytest.raises(ValueError, match=r"widths \[4, 1, 0\]"):
        AdaptiveEmbedding(10, 4, cutoffs=[3, 6], div_value=4)
    with pytest.raises(ValueError, match="needs `tables` of 2 matrices"):
        head = AdaptiveSoftmax(10, [5], form="projected", tied=True, div_value=2)
        head.nll(normal(3, 4), np.zeros(3), tables=[normal(10, 4)])
    layer_checks.check_unknown_argument_refused(AdaptiveSoftmax, vocabulary_size=5)


@pytest.mark.parametrize("div_value", [1, 2])
def test_ids_outside_the_vocabulary_are_refused_or_give_nan(div_value):
    embedding = keras_seq.layers.AdaptiveEmbedding(10, 8, cutoffs=[4, 7], div_value=div_value)
    embedding(np.array([0, 9]))
    for bad in (-1, 10, 2**32 + 1):
        ids = tf.constant([1, bad], "int64")
        with pytest.raises(ValueError, match=r"`ids` must be in \[0, 10\)"):
            embedding(ids)
        for jit in (False, True):
            vectors = tf.function(embedding, jit_compile=jit)(ids).numpy()
            assert np.isfinite(vectors[0]).all() and np.isnan(vectors[1]).all()
