"""The golden files of the baselines: TCN, Transformer-XL, AWD-LSTM; and other names of weights."""

import json

import keras
import numpy as np
import pytest
from golden_cases.cases import Golden, run_case

from keras_seq import convert
from keras_seq.convert import ReferenceWeightsError, bind, load_reference
from keras_seq.layers import (
    LSTM,
    TCN,
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    RecurrentStack,
    RelativeAttention,
    TransformerXL,
)
from keras_seq.models import LanguageModel, SequenceClassifier

FILES = (
    *(f"tcn_block_{kind}_k{taps}" for kind in ("identity", "downsample") for taps in (2, 3)),
    *(f"tcn_net_k{taps}" for taps in (2, 3, 5)),
    *(f"tcn_{name}_model" for name in ("char", "music", "mnist")),
    *(f"tcn_word_model_{kind}" for kind in ("tied", "untied")),
    *(
        f"txl_{part}_{order}_{memory}"
        for part in ("rel_attention", "layer")
        for order in ("postln", "preln")
        for memory in ("mem", "nomem")
    ),
    *(f"txl_lm_{kind}" for kind in ("div1", "div1_proj", "div1_same_length_clamp", "div2")),
    "txl_lm_nocutoffs_preln",
    *(f"awd_lm_{kind}" for kind in ("tied", "tied_wdrop_eval", "untied")),
    "awd_dropout_masks",
    *(f"asgd_steps_{kind}" for kind in ("finetune", "trigger")),
)


def test_every_file_is_listed(golden):
    prefixes = ("tcn_", "txl_", "awd_", "asgd_")
    names = {path.stem for path in golden.glob("*.npz")}
    assert {name for name in names if name.startswith(prefixes)} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_golden_file_passes(name, golden):
    result = run_case(golden / f"{name}.npz")
    assert result is not None and result.ok and result.exact is None, result
    assert result.forward < 5e-6
    assert result.gradients < 5e-6


# Names of weights ---------------------------------------------------------------------------------


def tcn_classifier() -> SequenceClassifier:
    model = SequenceClassifier(TCN([6, 6, 6], kernel_size=7), 5)
    model.build((None, None, 1))
    return model


def transformer_xl(width=8, embedding_dim=8, div_value=1) -> LanguageModel:
    options = {"cutoffs": (8, 18), "embedding_dim": embedding_dim, "div_value": div_value}
    core = TransformerXL(2, 2, 12, head_units=4, memory_length=6)
    head = AdaptiveSoftmax(30, form="projected", tied=True, tie_projections=True, **options)
    embedding = AdaptiveEmbedding(30, output_dim=width, **options)
    model = LanguageModel(30, width, core, head=head, embedding=embedding)
    model.build((None, None))
    return model


def awd_lstm() -> LanguageModel:
    model = LanguageModel(17, 5, RecurrentStack([LSTM(8), LSTM(5)]))
    model.build((None, None))
    return model


MODELS = {
    "tcn_mnist_model": tcn_classifier,
    "txl_lm_div1": transformer_xl,
    "txl_lm_div1_proj": lambda: transformer_xl(embedding_dim=6),
    "txl_lm_div2": lambda: transformer_xl(div_value=2),
    "awd_lm_tied_wdrop_eval": awd_lstm,
}


@pytest.mark.parametrize("name", MODELS)
def test_names_of_one_tensor(name, golden):
    """A state dict has a tensor under all its names; a file may also hold only another one."""
    file = Golden.load(golden / f"{name}.npz")
    model = MODELS[name]()
    whole, others = dict(file.parameters), dict(file.parameters)
    for alias, stored in file.config["aliases"].items():
        whole[alias] = whole[stored]
        others[alias] = others.pop(stored, whole[stored])
    values = [binding.value for binding in bind(model, file.parameters)]
    for arrays in (whole, others):
        bindings = bind(model, arrays)
        assert len(bindings) == len(model.weights)
        for binding, value in zip(bindings, values, strict=True):
            np.testing.assert_array_equal(binding.value, value)
    alias, stored = next(iter(file.config["aliases"].items()))
    with pytest.raises(ReferenceWeightsError, match="are one weight here but differ"):
        bind(model, {**whole, alias: whole[stored] + 1})


def test_names_since_pytorch_2(golden):
    """Weight normalisation as a parametrisation, whose originals are gain and direction."""
    arrays = Golden.load(golden / "tcn_mnist_model.npz").parameters
    renamed = {"weight_g": "parametrizations.weight.original0"}
    renamed |= {"weight_v": "parametrizations.weight.original1"}
    for old, new in renamed.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    model = tcn_classifier()
    assert len(load_reference(model, arrays)) == len(model.weights)


def test_projections_with_and_without_a_module(golden):
    file = Golden.load(golden / "txl_lm_div2.npz")
    model = transformer_xl(div_value=2)
    for arrays in (
        file.parameters,
        {n + ".weight" if "_projs." in n else n: x for n, x in file.parameters.items()},
    ):
        filled = load_reference(model, {**arrays, "pos_emb.inv_freq": np.ones(4, "float32")})
        names = {name for group in filled.values() for name in group}
        assert names == set(arrays)
    assert "pos_emb.inv_freq" not in names


def test_a_release_without_clusters_fills_an_ordinary_softmax(golden):
    """The enwik8 model: the release's adaptive softmax of one cluster is a tied softmax."""
    file = Golden.load(golden / "txl_lm_nocutoffs_preln.npz")
    core = TransformerXL(3, 2, 10, head_units=4, memory_length=5, norm_order="pre")
    model = LanguageModel(17, 6, core, embedding=AdaptiveEmbedding(17, 6))
    model.build((None, None))
    table = file.parameters["word_emb.emb_layers.0.weight"]
    load_reference(model, {**file.parameters, "crit.out_layers.0.weight": table})
    ids = np.transpose(file.input("tokens"))[:, :5]
    targets = np.transpose(file.input("targets"))[:, :5]
    nll = keras.ops.convert_to_numpy(model.token_losses(ids, targets))
    np.testing.assert_allclose(nll.T, file.arrays["out/seg1_nll"], rtol=2e-6)


def test_wrapped_by_data_parallel(golden):
    arrays = Golden.load(golden / "awd_lm_tied_wdrop_eval.npz").parameters
    model = awd_lstm()
    filled = load_reference(model, {f"module.{name}": array for name, array in arrays.items()})
    assert sorted(name for group in filled.values() for name in group) == sorted(arrays)


def test_a_dropped_kernel_beside_the_kernel_is_not_read(golden):
    """Some versions of the release save what weight dropout last made of `weight_hh_l0_raw`."""
    arrays = dict(Golden.load(golden / "awd_lm_tied_wdrop_eval.npz").parameters)
    raw = "rnns.0.module.weight_hh_l0_raw"
    arrays[raw.removesuffix("_raw")] = np.zeros_like(arrays[raw])
    model = awd_lstm()
    filled = load_reference(model, arrays)
    assert (raw,) in filled.values()
    kernel = model.core.layers[0].cell.context_transform.kernel
    assert np.any(keras.ops.convert_to_numpy(kernel))


def test_vectors_of_each_level():
    """With `share_vectors=False` every level has its own pair."""
    layer = TransformerXL(2, 2, 12, share_vectors=False)
    layer.build((None, None, 8))
    names = {name for item in convert.slots(layer) for name in getattr(item, "names", ())}
    assert {n.rsplit("\\.", 1)[-1] for n in names if "r_w" in n} == {"r_w_bias"}
    assert sum("r_w_bias" in name for name in names) == 2


def test_attention_that_the_release_does_not_have():
    layer = RelativeAttention(2)
    layer.build((None, None, 8))
    with pytest.raises(ValueError, match="without a bias.*Received: .*use_bias=True"):
        convert.slots(layer)


@pytest.mark.parametrize(
    "option",
    [{"skip_connections": True}, {"padding": "same"}, {"branch_activation": True}],
)
def test_networks_that_the_release_does_not_have(option):
    """They have the same weights and would give other outputs."""
    layer = TCN(6, 2, kernel_size=2, **option)
    layer.build((None, None, 6))
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"the release of Bai.*Received: {name}={value!r}\."):
        load_reference(layer, {"network.0.conv1.bias": np.zeros(6)})


# The model here, its variant, and the configuration of the original script.
ZOO = [
    ("tcn_seq_mnist", None, "tcn_seq_mnist"),
    ("tcn_nottingham", None, "tcn_nottingham"),
    ("tcn_ptb_char", None, "tcn_ptb_char"),
    ("tcn_ptb_word", None, "tcn_ptb_word"),
    ("tcn_copy_memory", None, "tcn_copy_memory"),
    ("tcn_adding", None, "tcn_adding"),
    ("transformer_xl_ptb_word", None, "transformer_xl_ptb_word_16x380"),
    ("transformer_xl_enwik8", None, "transformer_xl_enwik8_12l"),
    ("awd_lstm_ptb_word", None, "awd_lstm_ptb_word"),
]


@pytest.mark.parametrize(("name", "variant", "original"), ZOO)
def test_names_and_shapes_of_the_release_fit(name, variant, original, golden):
    from keras_seq import zoo

    counts = json.loads((golden / "parameter_counts_baselines.json").read_text())[original]
    zero = np.float32(0)
    arrays = {key: np.broadcast_to(zero, shape) for key, shape in counts["shapes"].items()}
    model = getattr(zoo, name)(variant=variant)
    bindings = bind(model, arrays)
    assert len(bindings) == len(arrays) == len(model.trainable_weights)
    assert model.count_params() == counts["parameters"] == zoo.recipe(name, variant).parameters
