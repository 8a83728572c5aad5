"""Memory of a process that answers from an export, over requests of ever other sizes.

    python benchmarks/run.py served_memory_rtransformer                     # one model
    MALLOC_ARENA_MAX=1 python benchmarks/run.py served_memory_rtransformer  # the allocator bounded

Two figures are taken at intervals: what is resident, and what the C library's allocator has handed
out and not got back. A leak shows in both; a heap with holes in the first one alone.
"""

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import benchmark

MODELS = ("rtransformer", "deq_trellisnet", "trellisnet")
REQUESTS = 3400
POINTS = (0, 100, 400, 850, 1700, 3400)  # requests after which memory is looked at
MOST_ROWS, MOST_TOKENS = 16, 192
MIB = 2**20


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library, 2.33 or later."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd")
    more = ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names + more]


def resident_now() -> float:
    """Resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


def handed_out() -> float:
    """MiB that are in use, of the heaps and mapped one by one."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Mallinfo
    found = library.mallinfo2()
    return (found.uordblks + found.hblkhd) / MIB


def requests(served, size: int, rng: np.random.Generator):
    """Asks signatures in turn, each time with another number of rows and tokens; for ever."""
    import tensorflow as tf

    while True:
        for name in ("log_probs", "step", "text", "generate"):
            rows = int(rng.integers(1, MOST_ROWS + 1))
            tokens = int(rng.integers(1, MOST_TOKENS + 1))
            ids = tf.constant(rng.integers(0, size, (rows, tokens)), tf.int32)
            texts = tf.constant(["The of if (" * (tokens // 11 + 1)] * rows)
            whole: dict[str, Any] = {"text": texts}
            if name == "generate":
                numbers = {"length": tokens // 8, "top_k": 5, "seed": tokens}
                whole |= {key: tf.constant(value) for key, value in numbers.items()}
                whole["temperature"] = tf.constant(1.0)
            elif name == "log_probs":
                whole = {"ids": ids}
            elif name == "step":
                whole = {"ids": ids[:, : tokens // 8 + 1]}
                whole |= served["initial_state"](batch_size=tf.constant(rows))
            answer = served[name](**whole)
            yield {key: value.numpy() for key, value in answer.items()}


def figures(model: str) -> dict[str, Any]:
    """MiB resident and handed out, after so many requests."""
    import tensorflow as tf

    from keras_seq import zoo
    from keras_seq.export import export_model
    from keras_seq.pipelines import Vocabulary

    (shipped,) = zoo.weights(model)
    built = zoo.registry.find(model).build(weights=shipped.name)
    vocabulary = Vocabulary.load(str(shipped.vocabulary_file))
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(built, vocabulary, folder, name="model", warmup=False)
        served = tf.saved_model.load(str(path)).signatures
    asked = requests(served, built.vocabulary_size, np.random.default_rng(0))
    found: dict[str, Any] = {}
    for count in range(REQUESTS + 1):
        if count in POINTS:
            found[f"resident_{count}"] = round(resident_now())
            found[f"handed_out_{count}"] = round(handed_out())
        next(asked)
    return found


def _register(model: str) -> None:
    name = f"served_memory_{model}"

    @benchmark(name, f"served {model}_python_docs: memory over {REQUESTS} requests of all sizes")
    def run():
        return figures(f"{model}_python_docs")


for _model in MODELS:
    _register(_model)
