"""Operations against counts by hand, memory, receptive fields, blocks and their picture."""

import dataclasses
from typing import Any

import keras
import pytest
import tensorflow as tf

from keras_seq import analysis, layers, models, zoo
from keras_seq.analysis import diagram
from keras_seq.analysis.architecture import Block, _facts
from keras_seq.analysis.cost import receptive_field
from keras_seq.analysis.graph_cost import count_flops
from keras_seq.training.watching.gradients import input_norms


def test_flops_of_an_lstm():
    """Four gates of a product with the input and one with the state; then the tied softmax."""
    recipe = zoo.recipe("lstm_ptb_word_single").replace(
        **{"model.vocabulary_size": 50, "model.embedding_dim": 12, "model.units": 12}
    )
    found = analysis.cost(recipe, batch_size=3, steps=7, memory=False)
    assert found.flops_per_token == 2 * (12 * 48 + 12 * 48) + 2 * 12 * 50
    assert found.receptive_field == "unbounded"
    assert found.solver_steps is None


def test_flops_of_a_trellis():
    """Taps of the input once, taps of the hidden units at each level but the first, softmax."""
    recipe = zoo.recipe("trellisnet_python_docs")
    settings = recipe.model
    width, taps = settings["units"] + settings["output_units"], 2
    found = analysis.cost(recipe, memory=False)
    injected = 2 * taps * settings["embedding_dim"] * 4 * width
    level = 2 * taps * width * 4 * width
    softmax = 2 * settings["output_units"] * settings["vocabulary_size"]
    assert found.flops_per_token == injected + (settings["levels"] - 1) * level + softmax
    assert found.receptive_field == settings["levels"] + 1
    assert (found.batch_size, found.steps) == (16, 64)


def test_flops_of_a_transformer():
    """Projections, scores against all steps of the window, feed-forward layers, softmax."""
    recipe = zoo.recipe("transformer_python_docs").replace(
        **{"model.units": 16, "model.levels": 2, "model.span": None, "model.history": 0}
    )
    found = analysis.cost(recipe, batch_size=2, steps=10, memory=False)
    inner = 4 * 16
    block = 2 * 16 * (3 * 16 + 16) + 2 * 2 * 10 * 16 + 2 * 2 * 16 * inner
    assert found.flops_per_token == 2 * block + 2 * 16 * 99


def test_an_equilibrium_is_counted_with_the_most_steps():
    few, many = (
        analysis.cost(
            zoo.recipe("deq_trellisnet_python_docs").replace(
                **{"model.inference_max_steps": steps, "model.pretrain_steps": 0}
            ),
            memory=False,
        )
        for steps in (20, 30)
    )
    assert (few.solver_steps, many.solver_steps) == (20, 30)
    assert few.flops_per_solver_step and many.flops_per_solver_step
    each = (many.flops_per_token - few.flops_per_token) / 10
    assert each == pytest.approx(many.flops_per_solver_step, rel=0.05)


def test_convolutions_and_einsums():
    with tf.Graph().as_default() as graph:
        tf.einsum("...td,vd->...tv", tf.zeros((2, 3, 4)), tf.zeros((5, 4)))
        tf.nn.conv1d(tf.zeros((1, 8, 2)), tf.zeros((3, 2, 6)), 1, "SAME")
    assert count_flops(graph.get_operations()).total == 2 * 2 * 3 * 4 * 5 + 2 * 8 * 6 * 3 * 2
    with tf.Graph().as_default() as graph:
        tf.matmul(tf.compat.v1.placeholder(tf.float32, (None, 3)), tf.zeros((3, 2)))
    with pytest.raises(ValueError, match="known shapes"):
        count_flops(graph.get_operations())


def test_the_largest_models_need_no_weights():
    """181 million parameters are counted and none is made."""
    found = analysis.cost("trellisnet_wt103", batch_size=1, steps=4, memory=False)
    assert found.parameters == zoo.recipe("trellisnet_wt103").parameters
    assert found.weight_bytes == 4 * found.parameters


def test_memory():
    recipe = zoo.recipe("trellisnet_python_docs")
    found: list[Any] = [analysis.cost(recipe, batch_size=n, steps=32) for n in (8, 16)]
    one, two = found
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.1)
    assert one.step_bytes == 2 * one.weight_bytes + one.optimizer_bytes + one.activation_bytes
    # Adam: two averages of each weight, and the number of steps.
    assert 0 < one.optimizer_bytes - 2 * one.weight_bytes < 100
    # At least the gates of every level are needed again.
    width = recipe.model["units"] + recipe.model["output_units"]
    assert two.activation_bytes > 4 * 16 * 32 * recipe.model["levels"] * 4 * width


@pytest.mark.slow
def test_the_estimate_grows_as_the_measured_memory():
    recipe = zoo.recipe("trellisnet_python_docs").replace(**{"model.levels": 12})
    small, large = (recipe.replace(**{"data.batch_size": n}) for n in (16, 256))
    costs: list[Any] = [analysis.cost(recipe) for recipe in (small, large)]
    estimated = costs[1].step_bytes - costs[0].step_bytes
    measured = analysis.measure_step(large) - analysis.measure_step(small)
    assert 0.5 < estimated / measured < 2


@pytest.mark.parametrize(
    ("core", "steps"),
    [
        (layers.RTransformer(8, levels=2, window=3, heads=2, span=4), 11),
        (layers.Transformer(8, levels=2, heads=2, span=4), 7),
        (layers.TransformerXL(levels=2, heads=2, inner_units=8, memory_length=3, span=4), 7),
        (layers.TCN(units=4, levels=2, kernel_size=2, activation="tanh"), 7),
    ],
)
def test_receptive_fields_are_those_of_the_gradients(core, steps):
    model = models.SequenceClassifier(core, classes=3)
    x = tf.random.stateless_normal((1, 20, 8), (1, 2))
    norms = input_norms(model, x)
    assert receptive_field(model) == steps
    assert norms[: 20 - steps].max() < 1e-7 < norms[20 - steps]


@pytest.mark.slow
def test_a_failed_measurement_says_why():
    recipe = dataclasses.replace(zoo.recipe("trellisnet_python_docs"), task="none")
    broken = recipe.replace(**{"model.units": -1})
    with pytest.raises(RuntimeError, match="could not be measured: .*units"):
        analysis.measure_step(broken)


def test_what_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        analysis.cost("trellisnet_python_docs", steps=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_model_is_counted_and_drawn(name):
    found = analysis.cost(name)
    assert found.parameters == zoo.recipe(name).parameters
    assert found.flops_per_token > 0
    assert found.activation_bytes
    assert analysis.draw_architecture(analysis.architecture(name)).startswith(b"\x89PNG")


NORM_AND_FEED = "LayerNormalization FeedForward"
SMALL = [name for name in zoo.names() if name.endswith("_python_docs")]


@pytest.mark.parametrize("name", SMALL)
def test_blocks_hold_all_parameters(name):
    found, recipe = analysis.architecture(name), zoo.recipe(name)
    tokens, head = recipe.model["vocabulary_size"], found.blocks[-1]
    assert sum(block.parameters for block in found.blocks) == recipe.parameters
    assert head.output == f"(b, t, {tokens})"
    own_table = head.parameters > tokens  # else there is but a bias
    assert found.tied == (None if own_table else (0, len(found.blocks) - 1))
    for block in found.blocks:
        _check(block)


def _check(block: Block) -> None:
    assert sum(part.parameters for part in block.parts) <= block.parameters
    for part in block.parts:
        _check(part)


def test_blocks_that_are_alike_are_one():
    (tcn,) = (b for b in analysis.architecture("tcn_seq_mnist").blocks if b.title == "TCN")
    first, others = tcn.parts if len(tcn.parts) == 2 else (None, tcn.parts[0])
    repeats = others.repeats + (first is not None)
    assert repeats == 8
    assert any("128" in fact for fact in others.facts if fact.startswith("dilation rate"))
    xl = analysis.architecture("transformer_xl_python_docs").blocks[1]
    assert [part.repeats for part in xl.parts] == [3]
    assert {part.title for part in xl.parts[0].parts} >= {"RelativeAttention", "FeedForward"}
    block = analysis.architecture("rtransformer_python_docs").blocks[1].parts[0]
    assert block.repeats == 2
    titles = [part.title for part in block.parts if "Norm" not in part.title]
    assert titles == ["LocalRNN", "SelfAttention", "FeedForward"]  # as they are called
    assert block.ordered


RESIDUALS = {
    # Each connection: what it goes around, and what it passes on the way.
    "transformer_python_docs": [("LayerNormalization SelfAttention", ""), (NORM_AND_FEED, "")],
    "transformer_xl_python_docs": [
        ("LayerNormalization RelativeAttention", ""),
        (NORM_AND_FEED, ""),
    ],
    "rtransformer_python_docs": [
        ("UnbiasedLayerNormalization LocalRNN", ""),
        ("UnbiasedLayerNormalization SelfAttention", ""),
        (f"Unbiased{NORM_AND_FEED}", ""),
    ],
    "deq_transformer_python_docs": [("layer norm RelativeAttention", ""), ("feed-forward", "")],
    "tcn_python_docs": [("Convolution Convolution", "1 × 1 convolution")],
    "trellisnet_python_docs": [],
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residual_connections(name):
    block = analysis.architecture(name).blocks[1]
    while block.parts and not block.residuals:
        block = block.parts[0]
    found = [
        (" ".join(part.title for part in block.parts[first : last + 1]), through)
        for first, last, through in block.residuals
    ]
    assert found == RESIDUALS[name]
    assert block.ordered


def test_normalisation_after_the_sum_is_outside_of_the_connection():
    recipe = zoo.recipe("transformer_python_docs").replace(**{"model.norm_order": "post"})
    (block,) = analysis.architecture(recipe).blocks[1].parts
    titles = [part.title for part in block.parts]
    assert titles == ["SelfAttention", "LayerNormalization", "FeedForward", "LayerNormalization"]
    assert block.residuals == ((0, 0, ""), (2, 2, ""))


def test_the_picture_draws_every_connection(monkeypatch):
    drawn = []
    monkeypatch.setattr(diagram, "_skip", lambda plot, *places: drawn.append(places))
    analysis.draw_architecture(analysis.architecture("tcn_python_docs"))
    assert [places[-1] for places in drawn] == ["1 × 1 convolution", "", "1 × 1 convolution"]
    for middle, side, top, bottom, _ in drawn:
        assert middle < side
        assert top < bottom


def test_loops_and_the_picture():
    found = analysis.architecture("deq_transformer_python_docs")
    assert "f(z, x)" in found.blocks[1].loop
    picture = analysis.draw_architecture(found, "a line")
    assert picture.startswith(b"\x89PNG")
    assert "6 levels" in analysis.architecture("trellisnet_python_docs").blocks[1].loop


def test_objects_among_the_facts_are_called_by_their_names():
    cell = layers.DEQTrellisCell(4, 3)
    for gradient, said in (("one_step", "one_step"), (layers.Phantom(steps=3), "phantom")):
        assert f"gradient {said}" in _facts(layers.DeepEquilibrium(cell, gradient=gradient))
    local = layers.LocalRNN(6, window=3, cell=keras.layers.GRUCell(6))
    assert "cell gru_cell" in _facts(local)
