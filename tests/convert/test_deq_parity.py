"""The golden files of deep equilibrium models."""

import pytest
from golden_cases.cases import run_case

FILES = (
    "deq_solvers",
    "deq_jacobian",
    *(
        f"deq_trellis_{kind}_k{taps}_{norm}"
        for kind in ("step", "unrolled4", "equilibrium")
        for taps, norm in ((2, "wn"), (3, "plain"))
    ),
)


@pytest.mark.parametrize("name", FILES)
def test_golden_file_passes(name, golden):
    result = run_case(golden / f"{name}.npz")
    assert result is not None and result.ok, result
    # Against the reference's own solves, to their tolerance; everything else to rounding.
    assert result.forward < (1e-5 if name == "deq_solvers" else 2e-6)
    assert result.gradients < 5e-6
