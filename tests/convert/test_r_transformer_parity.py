"""The golden files of the R-Transformer release, and checkpoints with its unused layers."""

import numpy as np
import pytest
from golden_cases.cases import Golden, compare, find_case, run_case
from golden_cases.r_transformer import rt_mh_pooling

from keras_seq.convert import ReferenceWeightsError, load_reference
from keras_seq.layers import LocalRNN, RTransformer


def test_every_golden_file_passes(golden):
    results = [run_case(path) for path in sorted(golden.glob("rt_*.npz"))]
    assert len(results) == 17
    for result in results:
        assert result is not None
        assert result.ok, (result.name, result.faults)
        assert result.forward < 2e-6 and result.gradients < 5e-5, result


@pytest.mark.parametrize("name", ["rt_audio_model", "rt_char_model", "rt_transformer_n2"])
def test_float64_agrees_to_the_rounding_of_the_files(name, golden):
    result = run_case(golden / f"{name}.npz", "float64")
    assert result is not None and result.ok
    assert result.forward < 2e-7 and result.gradients < 2e-7


def test_gradient_of_the_keys_bias_must_be_zero(golden, monkeypatch):
    """Where it is not, the file's rounding does not stand in for it."""
    file = Golden.load(golden / "rt_mh_pooling.npz")
    assert find_case(file.name).function is rt_mh_pooling
    module = "golden_cases.r_transformer.differentiate"
    from golden_cases.cases import differentiate

    def wrong(*arguments):
        values = differentiate(*arguments)
        values["grad/linears.1.bias"] = values["grad/linears.1.bias"] + 1e-3
        return values

    monkeypatch.setattr(module, wrong)
    result = compare(file, rt_mh_pooling(file, "float32"))
    assert [fault.split(":")[0] for fault in result.faults] == ["grad/linears.1.bias"]


def test_unused_weights_hold_the_whole_checkpoint(golden):
    file = Golden.load(golden / "rt_transformer_n2.npz")
    config = file.config
    layer = RTransformer(
        config["d_model"],
        config["n_level"],
        config["ksize"],
        config["h"],
        local_layers=config["n"],
        unused_weights=True,
    )
    x = file.input("x")
    layer.build(x.shape)
    used = load_reference(layer, file.parameters)
    assert {name for names in used.values() for name in names} == set(file.parameters)
    assert layer.count_params() == sum(array.size for array in file.parameters.values())
    np.testing.assert_allclose(layer(x), file.arrays["out/y"], atol=1e-5)


def test_sizes_and_layers_that_the_release_does_not_have(golden):
    weights = Golden.load(golden / "rt_local_rnn_gru_kA.npz").parameters
    layer = LocalRNN(5, 3)
    layer.build((None, None, 6))
    with pytest.raises(ReferenceWeightsError, match="weight_ih_l0"):
        load_reference(layer, weights)
    stack = RTransformer(6, 1, 2, 2, normalization="layer")
    stack.build((None, None, 6))
    with pytest.raises(ValueError, match="normalisation of the release"):
        load_reference(stack, weights)
