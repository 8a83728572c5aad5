"""Draws pictures of deep equilibria: `python docs/make_deq_pictures.py [traces|memory]`.

The memory curve takes a few minutes: each point is measured in a process of its own by
`benchmarks/bench_deq_memory.py`.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "benchmarks"))


def figure(columns: int, width: float, height: float):
    """A figure that is drawn without a display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(1, columns, squeeze=False)[0]


def traces() -> None:
    """Residuals by step on a function that contracts and on one that expands."""
    import numpy as np
    from keras import ops

    from keras_seq import solvers

    rng = np.random.default_rng(0)
    size = 60
    base = rng.normal(size=(size, size)) / np.sqrt(size)
    shift = rng.normal(size=(1, size)).astype("float32")
    made, axes = figure(2, 8, 3.4)
    for axis, (title, scale) in zip(axes, (("contracts", 0.9), ("expands", -2.5)), strict=True):
        matrix = (scale * (base if scale > 0 else base @ base.T / 2)).astype("float32")

        def function(z, matrix=matrix):
            return ops.tanh(ops.matmul(z, matrix) + shift)

        for name in ("fixed_point", "anderson", "broyden"):
            start = np.zeros((1, size), "float32")
            found = solvers.solve(function, start, name, 40, 1e-6, trace=True)
            steps = int(found.steps[0]) + 1
            axis.semilogy(np.asarray(found.trace[0])[:steps], label=name.replace("_", " "))
        axis.set_title(f"a function that {title}")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("relative residual")
    axes[0].legend()
    made.savefig(IMAGES / "solver_traces.png", dpi=110)


def memory() -> None:
    """What a training step with the transformer cell adds to the process, by steps or levels."""
    import bench_deq_memory as bench

    made, (axis,) = figure(1, 6, 3.6)
    for gradient, steps in (("implicit", bench.STEPS), ("unrolled", (10, 20, 40))):
        values = [
            bench.in_own_process(gradient, count, "transformer")["step_mib"] for count in steps
        ]
        axis.plot(steps, values, "o-", label=gradient)
        print(gradient, dict(zip(steps, (round(value) for value in values), strict=True)))
    axis.set_xlabel("solver steps, or levels")
    axis.set_ylabel("memory of a training step, MiB")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    made.savefig(IMAGES / "deq_memory.png", dpi=110)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or ("traces", "memory"):
        {"traces": traces, "memory": memory}[chosen]()
