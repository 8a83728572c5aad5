"""The golden files and their runner."""

from typing import Any

import numpy as np
import parity
import pytest
from golden_cases.cases import _CASES, Golden, case, compare, find_case, run_case

OURS = ("adaptive_", "softmax_", "trellis_")


def files(golden):
    return [path for path in sorted(golden.glob("*.npz")) if path.stem.startswith(OURS)]


def test_every_golden_file_passes(golden):
    results = [run_case(path) for path in files(golden)]
    assert len(results) == 26
    for result in results:
        assert result is not None
        assert result.ok, (result.name, result.faults)
        # Far inside of the bounds: an error of the formula would not hide below them.
        assert result.forward < 2e-6 and result.gradients < 5e-5, result


@pytest.mark.parametrize("name", ["trellis_lm_mos_wn", "adaptive_embedding_softmax_div2_proj"])
def test_float64_agrees_to_the_rounding_of_the_files(name, golden):
    result = run_case(golden / f"{name}.npz", "float64")
    assert result is not None and result.ok
    assert result.forward < 2e-7 and result.gradients < 2e-7


def copy_of(golden, tmp_path, name="softmax_splitcross", **changes):
    """A golden file with some arrays replaced, or left out where the change is None."""
    with np.load(golden / f"{name}.npz") as file:
        arrays = {**file, **{k.replace("__", "/"): x for k, x in changes.items()}}
    path = tmp_path / f"{name}_copy.npz"
    np.savez(path, **{k: x for k, x in arrays.items() if x is not None})
    return path


def test_runner_prints_one_line_a_file(golden, capsys):
    assert parity.main([str(golden), "--only", "softmax_split"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [
        "softmax_splitcross",
        "softmax_splitcross_nosplit",
    ]
    assert all(line.endswith(" ok") and "gradients" in line for line in lines[:2])
    assert lines[2:] == ["2 of 2 ok"]


@pytest.mark.parametrize("key", ["out/log_prob", "loss", "grad/tail_bias", "grad_in/x"])
def test_runner_fails_on_any_wrong_number(key, golden, tmp_path, capsys):
    with np.load(golden / "softmax_splitcross.npz") as file:
        wrong = file[key].copy()
    wrong += 1e-3 * np.max(np.abs(wrong))
    copy_of(golden, tmp_path, **{key.replace("/", "__"): wrong})
    assert parity.main([str(tmp_path)]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("softmax_splitcross_copy: ") and "FAIL" in line and key in line


def test_runner_fails_on_an_output_that_we_do_not_compute(golden, tmp_path, capsys):
    copy_of(golden, tmp_path, out__more=np.ones(3, np.float32))
    assert parity.main([str(tmp_path)]) == 1
    assert "out/more: not computed" in capsys.readouterr().out


def test_runner_fails_on_files_it_cannot_read_and_goes_on(golden, tmp_path, capsys):
    copy_of(golden, tmp_path, "softmax_torch_adaptive")
    whole = (golden / "softmax_splitcross.npz").read_bytes()
    (tmp_path / "softmax_a.npz").write_bytes(whole)  # a kind that is not known
    (tmp_path / "softmax_splitcross_b.npz").write_bytes(whole[: len(whole) // 2])
    copy_of(golden, tmp_path, "softmax_splitcross_nosplit", param__extra=np.ones(2, np.float32))
    assert parity.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "softmax_a: unknown case"
    assert "FAIL" in lines[1] and "GoldenFileError" in lines[1]
    assert "left over: `extra` (2,)" in lines[2]
    assert lines[3].startswith("softmax_torch_adaptive_copy: ") and lines[3].endswith("ok")
    assert lines[4] == "1 of 4 ok"


def test_runner_refuses_wrong_calls(golden, tmp_path, capsys):
    assert parity.main([str(tmp_path / "nowhere")]) == 2
    assert parity.main([str(golden), "--only", "zzz"]) == 1
    assert "No file zzz*.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "single,double,passes",
    [
        (2e-4, 1e-8, True),  # float32 rounding of a sum that cancels
        (2e-4, 2e-4, False),  # an error of the formula
        (2e-3, 1e-8, False),  # too much for rounding
    ],
)
def test_float64_decides_about_cancellation(single, double, passes, tmp_path, capsys):
    path = tmp_path / "made_up.npz"
    arrays: dict[str, Any] = {"grad/w": np.array([1.0, 0.5], np.float32)}
    np.savez(path, config=np.array("{}"), **arrays)

    @case("made_up")
    def made_up(golden, dtype):
        return {"grad/w": np.array([1.0 + (single if dtype == "float32" else double), 0.5])}

    try:
        assert parity.main([str(tmp_path)]) == (0 if passes else 1)
        line = capsys.readouterr().out.splitlines()[0]
        assert ("in float64" in line) == (single < 1e-3)
        assert line.endswith(" ok") == passes
    finally:
        del _CASES["made_up"]


def test_longest_prefix_decides():
    @case("trellis_lm_mine")
    def mine(golden, dtype):
        return {}

    try:
        found, other = find_case("trellis_lm_mine_7"), find_case("trellis_lm_tied")
        assert found is not None and found.function is mine
        assert other is not None and other.function is not mine
        assert find_case("unheard_of") is None
    finally:
        del _CASES["trellis_lm_mine"]


def test_comparison_is_relative_to_the_largest_value():
    ours = {"out/a": np.array([100.0, 0.0005]), "grad/z": np.zeros(2), "loss": 1e-3}
    arrays = {"out/a": np.array([100.0, 0.0]), "grad/z": np.zeros(2), "loss": np.array(0.0)}
    arrays |= {"coef/a": np.array([1.0, 1.0])}
    result = compare(Golden("x", {}, arrays), ours)
    # The loss is a sum that cancels: its error is relative to the largest summand, here 100.
    assert result.forward == pytest.approx(1e-5) and result.ok
    ours["grad/z"] = np.array([0.0, np.nan])
    result = compare(Golden("x", {}, arrays), ours)
    assert result.gradients == np.inf and not result.ok
