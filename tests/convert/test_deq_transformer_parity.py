"""The golden files of the deep equilibrium transformer."""

import pytest
from golden_cases.cases import run_case

FILES = (
    *(
        f"deq_tf_layer_{norm}_{order}_{memory}"
        for norm in ("plain", "wn")
        for order in ("postln", "preln")
        for memory in ("mem", "nomem")
    ),
    "deq_tf_lm_plain_postln_div1_emb8",
    "deq_tf_lm_wn_postln_div2_emb8",
    "deq_tf_lm_wn_preln_div1_emb6",
)


@pytest.mark.parametrize("name", FILES)
def test_golden_file_passes(name, golden):
    result = run_case(golden / f"{name}.npz")
    assert result is not None and result.ok, result
    assert result.forward < 2e-6
    assert result.gradients < 5e-6
