"""Evaluations that solvers need, ours beside those of SciPy and of TorchDEQ: a table for the docs.

    python benchmarks/bench_solvers.py [--torchdeq PYTHON]
    python benchmarks/bench_solvers.py --cells [--golden FOLDER]

Problems: affine functions and tanh of them whose Jacobians have a spectral radius of 0.5 to 1.5, of
several kinds (`tests/solvers/problems.py`), in float64; and the shipped cells on held-out text, in
float32. Every solver has 300 evaluations of f a sample. A cell of the table has the medians of the
evaluations to each tolerance, a failure counting as 300, and how many samples failed at the last.

`--memory` prints what a smaller memory costs, without a fallback, to 1e-10.

`--pieces` measures the shipped DEQ-TrellisNet instead, solved in pieces of its windows.

`--golden` names a folder with `deq_tf_lm_hard.npz`; `--torchdeq` the Python of an environment with
TorchDEQ, for the problems that are made of matrices.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300
TOLERANCES = {"float64": (1e-3, 1e-6, 1e-10), "float32": (1e-3, 1e-6)}
TORCH = {"TorchDEQ anderson": "anderson", "TorchDEQ broyden": "broyden"}

# Run by another Python, which has no TensorFlow.
TORCH_PROGRAM = """
import json, sys
import numpy, torch
from torchdeq.solver import get_solver
data = numpy.load(sys.argv[1])
tolerances, limit = json.loads(sys.argv[3]), int(sys.argv[4])
answers = []
for weight, offset, bent in zip(data["weights"], data["offsets"], data["bent"]):
    weight, offset = torch.tensor(weight), torch.tensor(offset)
    found = []
    def f(z):
        value = (weight @ z.reshape(-1) + offset).reshape(z.shape)
        value = torch.tanh(value) if bent else value
        found.append(float((value - z).norm() / (value.norm() + 1e-9)))
        return value
    try:
        get_solver(sys.argv[2])(f, torch.zeros(1, len(offset), dtype=torch.float64), limit,
                                tol=min(tolerances), stop_mode="rel")
    except Exception:
        pass
    found = found[:limit]
    answers.append([next((i + 1 for i, r in enumerate(found) if r <= t), None) for t in tolerances])
print(json.dumps(answers))
"""


class Enough(Exception):
    """All evaluations are spent, or the tightest tolerance is reached."""


class Group:
    """Problems that make one row of the table, as samples of a batch.

    Args:
        f: from (b, n) to (b, n).
        z0: where to start, (b, n).
        dtype: the type of both.
        matrices: weights, offsets and bends, if f is made of these.
    """

    def __init__(self, f: Callable, z0, dtype: str, matrices: dict[str, Any] | None = None):
        import tensorflow as tf

        self.f, self.matrices, self.tolerances = f, matrices, TOLERANCES[dtype]
        self.z0 = tf.cast(z0, dtype)
        self.samples, self.size = len(z0), int(self.z0.shape[1])
        self.graph = tf.function(f)

    def ours(self, solver, **options) -> list[list[int | None]]:
        """Evaluations to each tolerance, of each sample."""
        import numpy as np
        import tensorflow as tf

        from keras_seq.solvers import solve

        def run(z):
            return solve(
                self.f, z, solver, LIMIT - 1, min(self.tolerances), trace=True, **options
            ).trace

        trace = np.asarray(tf.function(run)(self.z0))
        return [[first(row, t) for t in self.tolerances] for row in trace]

    def scipy(self, name: str) -> list[list[int | None]]:
        """The same of a solver of `scipy.optimize`."""
        import numpy as np
        import scipy.optimize
        import tensorflow as tf

        answers = []
        for sample in range(self.samples):
            found: list[float] = []

            def residual(z, sample=sample, found=found):
                batch = np.zeros(self.z0.shape)
                batch[sample] = z
                value = self.graph(tf.cast(batch, self.z0.dtype)).numpy()[sample].astype("float64")
                size = np.linalg.norm(value - z) / (np.linalg.norm(value) + 1e-9)
                found.append(size if np.isfinite(size) else np.inf)
                if len(found) >= LIMIT or size <= min(self.tolerances) or not np.isfinite(size):
                    raise Enough
                return value - z

            try:
                with np.errstate(all="ignore"):
                    getattr(scipy.optimize, name)(
                        residual, np.zeros(self.size), f_tol=0.0, maxiter=LIMIT
                    )
            except Exception:  # Enough, no convergence, a singular matrix: the counts say it all
                pass
            answers.append([first(found, t) for t in self.tolerances])
        return answers

    def torch(self, name: str, python: str) -> list[list[int | None]] | None:
        """The same of a solver of TorchDEQ."""
        import numpy as np

        if self.matrices is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "problems.npz"
            np.savez(path, **self.matrices)
            command = [python, "-c", TORCH_PROGRAM, str(path), name]
            command += [json.dumps(self.tolerances), str(LIMIT)]
            clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
        return json.loads(out.stdout.splitlines()[-1])


def first(residuals, tolerance: float) -> int | None:
    """The count of the first residual that is low enough."""
    return next((i + 1 for i, r in enumerate(residuals) if r <= tolerance), None)


def made_of_matrices() -> dict[str, Group]:
    """Affine functions and tanh of them, by how their residuals behave."""
    from solvers.problems import varied

    bank = varied()
    rows: dict[str, list[str]] = {}
    for name in bank.names:
        kind, jacobian = name.split(", ")
        radius = float(jacobian.split()[1])
        chain = jacobian.split()[0] in ("chain", "triangular")
        row = "not normal" if chain else f"radius {'below' if radius < 1 else 'above'} 1"
        rows.setdefault(f"{kind}, {row}", []).append(name)
    groups = {}
    for row, names in rows.items():
        chosen = bank.chosen(names)
        groups[row] = Group(chosen.f, chosen.z0, "float64", chosen.parts)
    return groups


def flat(core, x, state, dtype: str) -> Group:
    """The equilibrium of a layer as a group."""
    import tensorflow as tf

    f, z0 = core.function(x, state)
    shape = z0.shape

    def function(z):
        return tf.reshape(f(tf.reshape(z, shape)), (shape[0], -1))

    return Group(function, tf.reshape(z0, (shape[0], -1)).numpy(), dtype)


def trained() -> dict[str, Group]:
    """The shipped cells on eight rows of 64 characters of the validation split."""
    from keras_seq.training import open_model

    groups = {}
    for name in ("deq_trellisnet_python_docs", "deq_transformer_python_docs"):
        opened = open_model(name, "python_docs")
        batches = iter(opened.data().split("validation"))
        (before, *_), (ids, *_) = next(batches), next(batches)
        model: Any = opened.model
        model.core.subsequence_length = None
        state = model.core.get_initial_state(8, "exact")
        _, state = model.core(model.embedding(before), initial_state=state, return_state=True)
        groups[f"`{name}`"] = flat(model.core, model.embedding(ids), state, "float32")
    return groups


def golden(folder: Path) -> dict[str, Group]:
    """The golden language model of a spectral radius of 0.97."""
    import numpy as np
    from golden_cases import deq_transformer
    from golden_cases.cases import Golden

    from keras_seq.convert.reference import load_reference

    file = Golden.load(folder / "deq_tf_lm_hard.npz")
    model: Any = deq_transformer._language_model(file, "float64")
    load_reference(model, file.parameters)
    ids = np.transpose(file.input("tokens"))
    state: dict[str, Any] = {
        name: np.transpose(file.input(key).astype("float64"), (1, 0, 2))
        for name, key in (("hidden", "mem_z"), ("injected", "mem_u"))
    }
    state["valid"] = np.ones((len(ids), file.config["mlen"]))
    return {"`deq_tf_lm_hard`": flat(model.core, model.embedding(ids), state, "float64")}


def memories() -> None:
    """What a smaller memory of Broyden's method costs on the problems made of matrices."""
    import numpy as np

    from keras_seq.solvers import Broyden

    print("| memory | median | mean, a failure as 300 | failures |\n| --- | --- | --- | --- |")
    for memory in (LIMIT, 30, 10, 5, 3):
        counts = [
            row[-1]
            for group in made_of_matrices().values()
            for row in group.ours(Broyden(memory), fallback=None)
        ]
        values = [LIMIT if count is None else count for count in counts]
        print(f"| {memory} | {np.median(values)} | {np.mean(values):.0f} | {counts.count(None)} |")


def pieces() -> None:
    """Bits of the shipped DEQ-TrellisNet where pieces of 16 steps are solved by plain iteration."""
    from keras_seq import solvers
    from keras_seq.training import open_model
    from keras_seq.training.evaluation import evaluate_model

    opened = open_model("deq_trellisnet_python_docs", "python_docs")
    model: Any = opened.model
    model.core.solver, model.core.subsequence_length = solvers.get("fixed_point"), 16
    for split in ("validation", "test"):
        print(split, evaluate_model(model, opened.data(), split))


def cell(answers: list[list[int | None]] | None) -> str:
    """What the table says of a group."""
    import numpy as np

    if answers is None:
        return ""
    medians = np.median([[LIMIT if n is None else n for n in row] for row in answers], axis=0)
    lost = sum(row[-1] is None for row in answers)
    text = " / ".join("–" if m >= LIMIT else f"{m:.0f}" for m in medians)
    return f"{text}, {lost} failed" if lost else text


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluations that solvers need.")
    parser.add_argument("--golden", type=Path, help="a folder with deq_tf_lm_hard.npz")
    parser.add_argument("--torchdeq", metavar="PYTHON", help="of an environment with TorchDEQ")
    parser.add_argument("--cells", action="store_true", help="the cells of models, ours alone")
    parser.add_argument("--memory", action="store_true", help=(memories.__doc__ or "").strip())
    parser.add_argument("--pieces", action="store_true", help=(pieces.__doc__ or "").strip())
    options = parser.parse_args()
    if options.pieces:
        pieces()
        return
    sys.path.insert(0, str(ROOT / "tests"))
    if options.memory:
        memories()
        return
    from keras_seq.solvers import Anderson, Broyden, FixedPoint

    groups = trained() if options.cells else made_of_matrices()
    if options.cells and options.golden:
        groups |= golden(options.golden)
    columns: dict[str, Callable[[Group], Any]] = {
        "default": lambda g: g.ours(Broyden()),
        "`Broyden(10)`": lambda g: g.ours(Broyden(10)),
        "`Anderson()`": lambda g: g.ours(Anderson()),
        "`FixedPoint()`": lambda g: g.ours(FixedPoint()),
        "Broyden(30) alone": lambda g: g.ours(Broyden(), fallback=None),
    }
    if not options.cells:
        for name in ("anderson", "broyden1", "newton_krylov"):
            columns[f"SciPy {name}"] = lambda g, name=name: g.scipy(name)
    if options.torchdeq and not options.cells:
        for title, name in TORCH.items():
            columns[title] = lambda g, name=name: g.torch(name, options.torchdeq)
    print(f"| problems | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for name, group in groups.items():
        cells = [cell(solved(group)) for solved in columns.values()]
        print(f"| {name} ({group.samples}) | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
