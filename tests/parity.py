"""Runs golden files of the reference implementations against this library.

    python tests/parity.py FOLDER [--only PREFIX]

Prints one line a file: its name, the largest relative error forward and of the gradients, and ok,
FAIL or "unknown case". Exits with 1 if a file fails or is of a kind that is not known here, with 2
for a wrong call. docs/parity.md explains the bounds.
"""

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # float32 products of a GPU may be TF32
os.environ.setdefault("JAX_ENABLE_X64", "1")  # read with KERAS_BACKEND=jax alone


@contextmanager
def quiet_start():
    """Hides what TensorFlow's libraries write to standard error while they load."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def run_file(path: Path, dtype: str | None = None) -> tuple[str, bool]:
    """The line of a file, and whether it passed."""
    from golden_cases.cases import run_case

    try:
        result = run_case(path, dtype)
    except Exception as error:  # one bad file must not hide the others
        lines = str(error).strip().splitlines() or [""]
        return f"{path.stem}: FAIL {type(error).__name__}: {' '.join(lines)[:300]}", False
    if result is None:
        return f"{path.stem}: unknown case", False
    line = f"{path.stem}: forward {result.forward:.1e} gradients {result.gradients:.1e}"
    if result.exact is not None:
        forward, gradients = result.exact
        line += f" (in float64: {forward:.1e}, {gradients:.1e})"
    if result.ok:
        return f"{line} ok", True
    return f"{line} FAIL ({'; '.join(result.faults[:4])})", False


def main(arguments: list[str] | None = None) -> int:
    """Runs the files of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of golden .npz files")
    parser.add_argument("--only", metavar="PREFIX", default="", help="files that begin with PREFIX")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="compute in this type throughout"
    )
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        print(f"{options.folder} is no folder. Give one with golden .npz files.", file=sys.stderr)
        return 2
    paths = sorted(options.folder.glob(f"{options.only}*.npz"))
    if not paths:
        print(f"No file {options.only}*.npz in {options.folder}.", file=sys.stderr)
        return 1
    with quiet_start():
        import golden_cases  # noqa: F401
    failed = 0
    for path in paths:
        line, passed = run_file(path, options.dtype)
        print(line, flush=True)
        failed += not passed
    print(f"{len(paths) - failed} of {len(paths)} ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
