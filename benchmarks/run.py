"""Runs benchmarks: `python benchmarks/run.py [NAME ...] [--json]`.

Each benchmark runs in a process of its own, on all cores. Speeds are given as fractions of the
machine's own float32 matrix-product speed, measured in the same process in turn with the steps.
Every file `bench_*.py` of this folder is imported, and registers its benchmarks with
`harness.benchmark`.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

from harness import REGISTRY  # noqa: E402


def discover() -> None:
    """Imports every benchmark file."""
    for path in sorted(FOLDER.glob("bench_*.py")):
        importlib.import_module(path.stem)


def in_own_process(name: str) -> dict:
    """Runs one benchmark in a fresh process."""
    command = [sys.executable, str(FOLDER / "run.py"), "--child", name]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return {"name": name, "error": last}
    return json.loads(result.stdout.splitlines()[-1])


def line(figures: dict) -> str:
    """One readable line of a benchmark's figures."""
    if "error" in figures:
        return f"{figures['name']:18} failed: {figures['error']}"
    parts = []
    for key, value in figures.items():
        if key not in ("name", "summary"):
            parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return f"{figures['name']:18} " + ", ".join(parts)


def main() -> int:
    discover()
    parser = argparse.ArgumentParser(description="Runs benchmarks of keras_seq.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(REGISTRY)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        figures = REGISTRY[options.child].run()
        print(json.dumps({"name": options.child, **figures}))
        return 0
    unknown = sorted(set(options.names) - set(REGISTRY))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}. Known: {', '.join(REGISTRY)}")
    results = []
    for name in options.names or REGISTRY:
        results.append(in_own_process(name))
        print(line(results[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(results, indent=2))
    return int(any("error" in figures for figures in results))


if __name__ == "__main__":
    sys.exit(main())
